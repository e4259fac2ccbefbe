"""The programs of JAX: inference and eval, and training."""

from __future__ import annotations

import math
from typing import Any, Dict, Iterable, List, Mapping, Optional, Tuple

import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np

from bench.backends.jax import lowering, optimisers
from bench.cases.case import Case, Settings
from bench.cases.precision import PRECISIONS, loss_scale
from bench.graph import Graph, naming
from bench.profiling import Profile
from bench.program import Arrays, Program

Array = Any
DRAWING = frozenset(("random", "dropout"))
# The events of XLA's compiler in this process.
_compiled: List[str] = []


def _note(event: str, seconds: float, **kwargs: Any) -> None:
    if event.endswith("backend_compile_duration"):
        _compiled.append(event)


jax.monitoring.register_event_duration_secs_listener(_note)


class Inference(Program):
    """Inference; in eval with a loss.

    held     the weights on the device, by name
    key      the random key of the next run; None if the graph draws nothing
    slots    the arrays of each batch of a run, by name
    results  the output, and the loss if the graph has one, of the last run
    """

    def __init__(self, graph: Graph, weights: Mapping[str, Any], case: Case, settings: Settings, device: Any) -> None:
        super().__init__(graph, case, settings)
        # fp32 means fp32: no TF32.
        jax.config.update("jax_default_matmul_precision", "highest")
        precision = PRECISIONS[case.precision]
        self.compute, self.stored = jnp.dtype(precision.compute), jnp.dtype(precision.weights)
        self.device, self.labels, self.forward_inputs = device, graph.label_inputs, graph.forward_inputs
        self.loss_node = graph.nodes[graph.loss.node] if graph.loss.node >= 0 else None
        self.key = jax.device_put(jax.random.key(0), device) if DRAWING & graph.operations else None
        self.step = jax.jit(self._step, donate_argnums=1)
        self.predictor = jax.jit(lambda weights, inputs: self.forward(weights, inputs, None, False)[0])
        self.slots: List[Arrays] = []
        self.results: Tuple[Array, ...] = ()
        self.load(weights)

    def wait(self) -> None:
        jax.block_until_ready(self.results)

    def forward(self, weights: Arrays, inputs: Arrays, key: Optional[Array], training: bool) -> Tuple[Array, Arrays]:
        """The output of a batch, and the new running statistics."""
        trace = lowering.Trace(self.graph, weights, key, self.compute, training)
        return trace.output(inputs), trace.moved

    def loss(self, output: Array, inputs: Arrays) -> Array:
        assert self.loss_node is not None
        labels = [inputs[name] for name in self.labels]
        with jax.named_scope(naming.scope(self.graph.loss.node, self.loss_node)):
            return lowering.LOSSES[self.loss_node.op](self.loss_node, output.astype(jnp.float32), *labels)

    def _step(self, weights: Arrays, key: Optional[Array], inputs: Arrays) -> Tuple[Tuple[Array, ...], Optional[Array]]:
        key, draw = split(key)
        output, _ = self.forward(weights, inputs, draw, False)
        return (output,) if self.loss_node is None else (output, self.loss(output, inputs)), key

    def convert(self, batch: Mapping[str, Any]) -> Arrays:
        return {name: self._array(name, array) for name, array in batch.items()}

    def _array(self, name: str, array: Any) -> Any:
        dtype = {"i": np.dtype("int32"), "u": array.dtype}.get(array.dtype.kind, self.compute)
        if name in self.labels and array.dtype.kind == "f":
            dtype = np.dtype("float32")
        return np.ascontiguousarray(lowering.native(array), dtype)

    def keep(self, batches: Iterable[Arrays]) -> None:
        # Copies: JAX may use the memory of a numpy array, to which the caller may write.
        slots = [jax.device_put(batch, self.device, may_alias=False) for batch in batches]
        # Copied now, not in the next step.
        self.slots = jax.block_until_ready(slots)

    def move_in(self, batches: Iterable[Arrays]) -> None:
        self.slots = [jax.device_put(batch, self.device) for batch in batches]

    # The last output is freed before the next is computed, so that its memory is reused.
    def run_resident(self) -> None:
        self.results = ()
        self.results, self.key = self.step(self.held, self.key, self.slots[0])

    def copy_back(self) -> None:
        np.asarray(self.results[-1])

    def outputs(self) -> Arrays:
        results = dict(zip(("output", "loss"), self.results))
        return {name: lowering.canonical(array) for name, array in results.items()}

    def dtypes(self) -> Tuple[str, str]:
        stored = {str(array.dtype) for array in self.held.values()}
        return str(self.results[0].dtype), ",".join(sorted(stored)) or str(self.stored)

    def weights(self) -> Arrays:
        return {name: lowering.canonical_weight(array) for name, array in self.held.items()}

    def compiles(self) -> int:
        return len(_compiled)

    def load(self, weights: Mapping[str, Any]) -> None:
        native = {w.name: np.array(lowering.native_weight(weights[w.name]), self.stored) for w in self.graph.weights}
        self.held: Arrays = jax.device_put(native, self.device, may_alias=False)

    def predict(self, batch: Mapping[str, Any]) -> Any:
        arrays = {name: self._array(name, batch[name]) for name in self.forward_inputs}
        return lowering.canonical(self.predictor(self.held, jax.device_put(arrays, self.device)))

    def profile(self, steps: int) -> Profile:
        from bench.backends.jax import profiler

        return profiler.profile(self.run, steps, self.graph, self.modules())

    def modules(self) -> List[str]:
        """The texts of the compiled modules that a run calls."""
        return [self.step.lower(self.held, self.key, self.slots[0]).compile().as_text()]


class Training(Inference):
    """Weight updates. The memory of the weights and of all other state is donated: the new values take it.

    state   what an update changes, besides the weights: the optimiser's state, the number of updates, and the sums of
            the gradients if several batches are behind an update
    """

    state: Dict[str, Any]

    def __init__(self, graph: Graph, weights: Mapping[str, Any], case: Case, settings: Settings, device: Any) -> None:
        self.trained = [weight.name for weight in graph.weights if weight.trained]
        self.recipe = settings.recipe
        super().__init__(graph, weights, case, settings, device)
        self.scale = self.recipe.loss_scaling or loss_scale(case.precision, max(1, math.prod(graph.output.shape)))
        if self.scale != 1:
            self.facts["loss_scale"] = self.scale
        self.set_learning_rate(0.0)
        self.add = jax.jit(self._add, donate_argnums=(0, 1, 2))
        self.update = jax.jit(self._update, donate_argnums=(0, 1, 2))

    def run_resident(self) -> None:
        self.results = ()
        for slot in self.slots[:-1]:
            self._call(self.add, slot)
        self._call(self.update, self.slots[-1])

    def _call(self, train: Any, slot: Arrays) -> None:
        self.results, self.held, self.state, self.key = train(self.held, self.state, self.key, self.rate, slot)

    # Two functions, since a module has the name of its function: a profile tells them apart.
    def _add(self, *args: Any) -> Tuple[Any, ...]:
        return self._train(*args, last=False)

    def _update(self, *args: Any) -> Tuple[Any, ...]:
        return self._train(*args, last=True)

    def modules(self) -> List[str]:
        calls = [*([self.add] if len(self.slots) > 1 else []), self.update]
        arguments = self.held, self.state, self.key, self.rate, self.slots[0]
        return [call.lower(*arguments).compile().as_text() for call in calls]

    def _train(
        self, weights: Arrays, state: Dict[str, Any], key: Optional[Array], rate: Array, inputs: Arrays, *, last: bool
    ) -> Tuple[Any, ...]:
        """Add the gradients of a batch; with the last batch of an update, update the weights."""
        key, draw = split(key)
        factor = self.scale / self.batches_per_update

        def scaled(trained: Arrays) -> Tuple[Array, Any]:
            output, moved = self.forward({**weights, **trained}, inputs, draw, True)
            loss = self.loss(output, inputs)
            return loss * factor, (output, loss, moved)

        trained = {name: weights[name] for name in self.trained}
        gradients, (output, loss, moved) = jax.grad(scaled, has_aux=True)(trained)
        if state["sums"]:
            gradients = {name: gradient + state["sums"][name] for name, gradient in gradients.items()}
        weights = {**weights, **{name: new.astype(self.stored) for name, new in moved.items()}}
        if not last:
            return (output, loss), weights, {**state, "sums": gradients}, key
        count, optimiser = state["count"] + 1, {}
        for name, gradient in gradients.items():
            exact = gradient.astype(jnp.float32) / self.scale
            before = state["optimiser"][name]
            weights[name], optimiser[name] = optimisers.update(self.recipe, weights[name], exact, rate, before, count)
        sums = {name: jnp.zeros_like(array) for name, array in state["sums"].items()}
        return (output, loss), weights, {"optimiser": optimiser, "count": count, "sums": sums}, key

    def load(self, weights: Mapping[str, Any]) -> None:
        super().load(weights)
        trained = {name: self.held[name] for name in self.trained}
        sums = {name: jnp.zeros_like(w) for name, w in trained.items()} if self.batches_per_update > 1 else {}
        state = {"optimiser": optimisers.start(self.recipe, trained), "count": jnp.zeros(()), "sums": sums}
        self.state = jax.device_put(state, self.device)

    def wait(self) -> None:
        jax.block_until_ready((self.results, self.held))

    def set_learning_rate(self, rate: float) -> None:
        self.rate = jax.device_put(np.float32(rate), self.device)


def split(key: Optional[Array]) -> Tuple[Optional[Array], Optional[Array]]:
    """The key of the next run, and the one to draw with in this run; None if nothing is drawn."""
    return (None, None) if key is None else tuple(jax.random.split(key))

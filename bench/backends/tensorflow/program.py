"""The programs of TensorFlow: inference and eval, and training."""

from __future__ import annotations

import math
from typing import Any, Callable, Iterable, List, Mapping, Sequence, Tuple

import tensorflow as tf

from bench.backends.tensorflow import lowering
from bench.backends.tensorflow.training import Trainer
from bench.cases.case import Case, Settings
from bench.cases.precision import PRECISIONS
from bench.graph import Graph, naming
from bench.group import Group
from bench.profiling import Profile
from bench.program import Arrays, Program

LOOPS = ("rnn", "lstm", "gru", "scan")


class Inference(Program):
    """Inference; in eval with a loss.

    slots   the tensors of each batch of a run, in the order of the graph's inputs
    calls   the traced function for each batch
    functions  what has been traced
    """

    def __init__(self, graph: Graph, weights: Mapping[str, Any], case: Case, settings: Settings, group: Group) -> None:
        super().__init__(graph, case, settings, group)
        # fp32 means fp32: no TF32.
        tf.config.experimental.enable_tensor_float_32_execution(False)
        self.place = {"cpu": "/CPU:0", "cuda": "/GPU:0"}[case.device]
        best = settings.tuning == "best"
        self.frozen = best and not self.training and any(node.block for node in graph.nodes)
        full = PRECISIONS[case.precision].compute == "float32"
        # XLA on the CPU has no all-reduce between processes.
        self.xla = group.count == 1 and best and full and any(node.op in LOOPS for node in graph.nodes)
        with tf.device(self.place):
            self.lowered = lowering.Lowered(graph, dict(weights), case.precision, self.frozen)
        self.loss_node = graph.nodes[graph.loss.node] if graph.loss.node >= 0 else None
        self.names, self.labels, self.forward_inputs = list(graph.inputs), graph.label_inputs, graph.forward_inputs
        self.facts = {"xla": self.xla, **({"frozen": True} if self.frozen else {})}
        self.wait = tf.test.experimental.sync_devices if case.device == "cuda" else None
        self.slots: List[List[Any]] = []
        self.calls: List[Any] = []
        self.functions: List[Any] = []
        self.predictor: Any = None
        self.output: Any = None
        self.loss: Any = None

    def started(self, inputs: Sequence[Mapping[str, Any]]) -> Program:
        self.arguments = self.convert(inputs[0])
        self.trace()
        return super().started(inputs)

    def trace(self) -> None:
        self.calls = [self._traced(self.forward, self.arguments, self.xla)]

    def _traced(self, function: Callable[..., Any], arrays: Sequence[Any], jit: bool = False) -> Any:
        """`function`, traced for the shapes and types of `arrays`."""
        with tf.device(self.place):
            traced = tf.function(function, jit_compile=jit or None, autograph=False)
            self.functions.append(traced)
            return traced.get_concrete_function(*[tf.TensorSpec(array.shape, array.dtype) for array in arrays])

    def forward(self, *args: Any) -> Any:
        """The output and the loss. Without a loss, the output twice."""
        values = dict(zip(self.names, args))
        output = self.lowered.output(values, self.training)
        if self.loss_node is None:
            return output, output
        with tf.name_scope(naming.scope(self.graph.loss.node, self.loss_node)):
            return output, lowering.loss(self.loss_node, output, [values[name] for name in self.labels])

    def convert(self, batch: Mapping[str, Any]) -> List[Any]:
        return [self._array(name, batch[name]) for name in self.names]

    def _array(self, name: str, array: Any) -> Any:
        return lowering.native_input(array, tf.float32 if name in self.labels else self.lowered.compute)

    def keep(self, batches: Iterable[List[Any]]) -> None:
        # Copies: TensorFlow may use the memory of a numpy array, to which the caller may write.
        self.slots = [[tf.identity(tensor) for tensor in self._on_device(batch)] for batch in batches]

    def move_in(self, batches: Iterable[List[Any]]) -> None:
        self.slots = [self._on_device(batch) for batch in batches]

    def _on_device(self, arrays: Sequence[Any]) -> List[Any]:
        with tf.device(self.place):
            return [tf.convert_to_tensor(array) for array in arrays]

    def run_resident(self) -> None:
        self._call(self.calls)

    def _call(self, calls: Sequence[Any]) -> None:
        # The last output is freed before the next is computed, so that its memory is reused.
        self.output = self.loss = None
        for call, slot in zip(calls, self.slots):
            results = call(*slot)
        self.output, self.loss = results

    def copy_back(self) -> None:
        (self.output if self.loss_node is None else self.loss).numpy()

    def outputs(self) -> Arrays:
        results = {"output": lowering.canonical(tf.cast(self.output, tf.float64).numpy())}
        if self.loss_node is not None:
            results["loss"] = tf.cast(self.loss, tf.float64).numpy()
        return results

    def dtypes(self) -> Tuple[str, str]:
        stored = {variable.dtype.name for variable, _ in self.lowered.variables()}
        return self.output.dtype.name, ",".join(sorted(stored)) or PRECISIONS[self.case.precision].weights

    def compiles(self) -> int:
        return sum(function.experimental_get_tracing_count() for function in self.functions)

    def load(self, weights: Mapping[str, Any]) -> None:
        self.lowered.load(weights)
        if self.frozen:
            self.trace()

    def predict(self, batch: Mapping[str, Any]) -> Any:
        arguments = self._on_device([self._array(name, batch[name]) for name in self.forward_inputs])
        if self.predictor is None:
            self.predictor = self._traced(self._logits, arguments)
        return lowering.canonical(tf.cast(self.predictor(*arguments), tf.float64).numpy())

    def profile(self, steps: int) -> Profile:
        from bench.backends.tensorflow import profiler

        return profiler.profile(self.run, steps, self.graph)

    def _logits(self, *args: Any) -> Any:
        return self.lowered.output(dict(zip(self.forward_inputs, args)))


class Training(Inference):
    def __init__(self, graph: Graph, weights: Mapping[str, Any], case: Case, settings: Settings, group: Group) -> None:
        super().__init__(graph, weights, case, settings, group)
        with tf.device(self.place):
            self.trainer = Trainer(self.lowered, case, settings.recipe, math.prod(graph.output.shape))
        if self.trainer.scale != 1:
            self.facts["loss_scale"] = self.trainer.scale

    def trace(self) -> None:
        several = self.group.count > 1
        add, update, alone = self.trainer.steps(self.forward, self.batches_per_update, several)
        calls = []
        if self.batches_per_update > 1:
            calls = [self._traced(add, self.arguments, self.xla)] * (self.batches_per_update - 1)
        self.calls_alone = [*calls, self._traced(alone, self.arguments)] if several else []
        self.calls = [*calls, self._traced(update, self.arguments, self.xla)]

    def run_without_all_reduce(self) -> None:
        self._call(self.calls_alone)

    def weights(self) -> Arrays:
        return self.lowered.arrays()

    def load(self, weights: Mapping[str, Any]) -> None:
        super().load(weights)
        self.trainer.optimiser.reset()

    def set_learning_rate(self, rate: float) -> None:
        self.trainer.set_learning_rate(rate)

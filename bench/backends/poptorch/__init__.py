"""PopTorch, PyTorch on Graphcore's IPUs, of Poplar's SDK 3.4: torch's own lowering, compiled by the SDK.

One call runs all batches of a step, on all replicas. Compiling comes first and is not part of any call.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import math
import os
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

from bench.backends import _ipu
from bench.backends._ipu.closures import Closures
from bench.backends.poptorch import errors, options
from bench.cases import poplar
from bench.cases.case import Case, Settings
from bench.cases.errors import Unavailable
from bench.cases.poplar import checkable as checkable
from bench.cases.precision import PRECISIONS, loss_scale
from bench.devices import ipu
from bench.graph import Graph
from bench.program import Arrays, Batches

PACKAGE = "poptorch"
DEVICES = ("ipu",)
MODES = ("inference", "eval", "training")


def unsupported(precision: str, mode: str, device: str) -> Optional[str]:
    return f"an IPU has no bfloat16, which {precision} is" if precision in ("bf16", "bf16m") else None


def environment(settings: Settings, device: str) -> Dict[str, str]:
    return poplar.environment(settings, os.environ)


def version() -> str:
    try:
        import poptorch
    except Exception as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise ImportError(f"Poplar's SDK is not enabled, or it is for another Python or torch ({first})") from error
    if not hasattr(poptorch, "trainingModel"):
        raise ImportError("the module poptorch is not the one of Graphcore's Poplar SDK: uninstall it, enable the SDK")
    return str(getattr(poptorch, "__version__", "unknown"))


def compile(
    graph: Graph, weights: Mapping[str, Any], inputs: Sequence[Mapping[str, Any]], case: Case, settings: Settings
) -> Closures:
    import poptorch

    options.require(case, settings)
    with errors.told(poptorch, case, settings), contextlib.ExitStack() as undo:
        made = _Compiled(poptorch, graph, weights, case, settings)
        undo.callback(made.close)
        made.feed(inputs)
        made.attach()
        undo.pop_all()
    return made.program()


class _Compiled:
    """A model on its device, what it is fed, and what came back."""

    def __init__(self, sdk: Any, graph: Graph, weights: Mapping[str, Any], case: Case, settings: Settings) -> None:
        import torch

        from bench.backends.poptorch import modules, optimisers
        from bench.backends.torch import lowering

        self.sdk, self.graph, self.case, self.settings = sdk, graph, case, settings
        self.arrays = lowering.arrays
        self.count = _ipu.count(case, settings)
        self.training = case.mode == "training"
        # A program without inputs only gives: what it drew goes back, and can be judged.
        self.synthetic = settings.data == "synthetic" and bool(graph.inputs)
        precision = PRECISIONS[case.precision]
        self.compute: Any = getattr(torch, precision.compute)
        self.labels = modules.labels_of(graph)
        self.lowered = lowering.Lowered(graph, weights, plain=True)
        modules.hold(self.lowered.module, getattr(torch, precision.weights))
        self._place(modules)
        mixed = precision.weights != precision.compute
        model = modules.Cast(self.lowered.module, self.compute) if mixed else self.lowered.module
        self.whole = modules.Whole(sdk, model, graph, case.mode, self.compute)
        if settings.poplar.num_io_tiles:
            inner = self.training and settings.recipe.gradient_accumulation > 1
            self.whole.overlap = getattr(
                sdk.OverlapMode, "OverlapAccumulationLoop" if inner else "OverlapDeviceIterationLoop"
            )
        self.held: List[Any] = []
        self.source: Iterator[List[Any]] = iter(())
        # Whether the batches of a call that are alike give the same: nothing is drawn, and no update comes between.
        self.still = not any(node.op in ("random", "dropout") for node in graph.nodes)
        self.still = self.still and not (self.training and settings.batches_per_step > 1)
        self.alike = False
        self.results: Tuple[Any, ...] = ()
        self.rated: Any = None
        self.optimiser: Any = None
        self.scale = settings.recipe.loss_scaling or loss_scale(case.precision, max(1, math.prod(graph.output.shape)))
        chosen = options.make(sdk, case, settings, self.synthetic)
        if self.training:
            self.optimiser = optimisers.make(sdk, settings.recipe, self.whole.parameters(), self.scale)
            self.executor: Any = sdk.trainingModel(self.whole.train(), chosen, self.optimiser)
        else:
            self.executor = sdk.inferenceModel(self.whole.eval(), chosen)

    def _place(self, modules: Any) -> None:
        """Say which IPU has which layer, and what is kept for the backward pass."""
        settings, module = self.settings, self.lowered.module
        if poplar.stages(settings) > 1:
            stage_of = _ipu.stage_of_block(self.graph, self.case, settings)
            begun = modules.place(self.sdk, module, self.graph, stage_of)
            if begun != list(range(poplar.stages(settings))):
                raise Unavailable(f"not supported: --pipeline-splits {settings.pipeline_splits} leaves an IPU no layer")
        if self.training and settings.recipe.recompute == "manual":
            modules.keep(self.sdk, module, self.graph, settings.recipe)

    def attach(self) -> None:
        """Compile, and take the device, which PopTorch does in one."""
        own = self.settings.poplar
        if own.compile_only or own.ipu_model:
            self.executor.compile(*self.held)
        else:
            ipu.attach(self._attempt, poplar.ipus(self.case, self.settings), own.wait_s, own.device_id)
        if self.training and not own.compile_only:
            from bench.backends.poptorch.optimisers import Rated

            self.rated = Rated(self.executor, self.optimiser, self.settings.recipe)

    def _attempt(self) -> None:
        try:
            self.executor.compile(*self.held)
        except self.sdk.Error as error:
            if errors.none_free(self.sdk, error):
                raise ipu.NoneFree(str(error).splitlines()[0]) from None
            raise

    def feed(self, batches: Batches) -> None:
        self.alike = self.still and isinstance(batches, Sequence) and len(batches) == 1
        calls = map(self._native, _ipu.calls(batches, self.count))
        # The first are given to the compiler, and to what runs without moving anything new.
        self.held = next(calls)
        self.source = itertools.repeat(self.held) if isinstance(batches, Sequence) else calls
        if not isinstance(batches, Sequence):
            self.source = itertools.chain([self.held], calls)

    def _native(self, arrays: Mapping[str, Any]) -> List[Any]:
        return [self._tensor(name, arrays[name]) for name in self.graph.inputs]

    def _tensor(self, name: str, array: Any) -> Any:
        """Batches one behind the other, as one; sixteen bits a number where the device computes so."""
        import torch

        tensor = torch.from_numpy(array.reshape(-1, *array.shape[2:]))
        return tensor.to(self.compute) if name not in self.labels and tensor.is_floating_point() else tensor

    def run(self) -> None:
        self.held = next(self.source)
        self.run_held()

    def run_held(self) -> None:
        with errors.told(self.sdk, self.case, self.settings):
            results = self.executor(*self.held)
        self.results = tuple(results) if isinstance(results, (tuple, list)) else (results,)

    def outputs(self) -> Arrays:
        # What comes back of synthetic data was never written.
        if self.synthetic:
            return {}
        import torch

        arrays = [result.detach().to(torch.float64).numpy() for result in self.results]
        shapes = {"output": self.graph.output.shape, "loss": ()}
        return {name: _ipu.last(array.reshape(-1, *shapes[name]), self.alike) for name, array in zip(shapes, arrays)}

    def weights(self) -> Arrays:
        with errors.told(self.sdk, self.case, self.settings):
            self.executor.copyWeightsToHost()
        return self.arrays(self.lowered.parameters)

    def load(self, weights: Mapping[str, Any]) -> None:
        with errors.told(self.sdk, self.case, self.settings):
            self.lowered.load(weights)
            self.executor.copyWeightsToDevice()
            if self.rated is not None:
                self.rated.forget()

    def set_learning_rate(self, rate: float) -> None:
        with errors.told(self.sdk, self.case, self.settings):
            self.rated.set_learning_rate(rate)

    def predict(self, batch: Mapping[str, Any]) -> Any:
        """On the host, in 32 bits, which it has kernels for: a second program would need a second device."""
        import torch

        from bench.backends.poptorch import modules

        with errors.told(self.sdk, self.case, self.settings):
            self.executor.copyWeightsToHost()
        module, held = self.lowered.module, getattr(torch, PRECISIONS[self.case.precision].weights)
        tensors = [self._tensor(name, batch[name][None]) for name in self.graph.inputs if name not in self.labels]
        modules.hold(module.eval(), torch.float32)
        try:
            with torch.no_grad():
                logits = module(*[tensor.to(torch.float32) for tensor in tensors])
        finally:
            modules.hold(module.train(self.training), held)
        return logits.to(torch.float64).numpy()

    def told(self) -> Dict[str, Any]:
        found: Dict[str, Any] = {}
        if self.settings.data != "synthetic":
            found["sdk_latency_s"] = float(self.executor.getLatency()[2])
        if self.settings.poplar.cycle_count:
            found["cycles"] = int(self.executor.cycleCount())
        return found

    def close(self) -> None:
        executor, self.executor = self.executor, None
        self.rated = self.optimiser = None
        if executor is None:
            return
        with contextlib.suppress(self.sdk.Error):
            executor.destroy()
            return
        # It reads the weights back first, which what broke the device breaks as well: then the device goes with the
        # last reference to it, and an error keeps some in a circle.
        del executor
        gc.collect()

    def program(self) -> Closures:
        precision = PRECISIONS[self.case.precision]
        held = next((str(p.dtype).replace("torch.", "") for p in self.lowered.parameters.values()), precision.weights)
        moved = not self.synthetic and bool(self.graph.inputs)
        return Closures(
            self.run,
            self.feed,
            self.outputs,
            compute=self.whole.ran.get("compute", ""),
            held=held,
            weights=self.weights if self.training else None,
            load=self.load,
            set_learning_rate=self.set_learning_rate if self.training else None,
            compute_only=self.run_held if moved else None,
            predict=self.predict if self.training else None,
            facts=self._facts(),
            looped=True,
            told=self.told,
            close=self.close,
            source=_ipu.source(self.sdk, self.settings),
        )

    def _facts(self) -> Dict[str, Any]:
        matmul, conv = poplar.partials(self.settings)
        scale = self.scale if self.training and self.scale != 1 else None
        facts = {"partials_matmul": matmul, "partials_conv": conv, "loss_scale": scale}
        found = {name: fact for name, fact in facts.items() if fact}
        return {"output_mode": options.output_mode(self.case, self.settings), **found}

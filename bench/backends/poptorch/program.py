"""A PopTorch model on its device, its inputs and its results."""

from __future__ import annotations

import contextlib
import gc
from typing import Any, ContextManager, Dict, List, Mapping, Sequence, Tuple

import torch

from bench.backends import _ipu
from bench.backends._ipu.program import IpuProgram
from bench.backends.poptorch import errors, modules, optimisers, options
from bench.backends.torch import lowering
from bench.cases.case import Case, Settings
from bench.cases.errors import Unavailable
from bench.cases.ipu_rules import ipus, stages
from bench.cases.poplar import STATE_STREAMS
from bench.cases.precision import PRECISIONS
from bench.devices import ipu
from bench.graph import Graph
from bench.program import Arrays


class Executor(IpuProgram):
    """A compiled model.

    lowered   the module of torch's lowering, which has the weights
    whole     the module that PopTorch traces: `lowered` and the loss
    """

    def __init__(self, sdk: Any, graph: Graph, weights: Mapping[str, Any], case: Case, settings: Settings) -> None:
        super().__init__(sdk, graph, case, settings)
        precision = PRECISIONS[case.precision]
        self.compute: Any = getattr(torch, precision.compute)
        self.labels = modules.labels_of(graph)
        self.lowered = lowering.Lowered(graph, weights, plain=True)
        modules.hold(self.lowered.module, getattr(torch, precision.weights))
        modules.take_device_norms(self.lowered.module)
        if not self.training:
            modules.take_device_loops(sdk, self.lowered.module)
        self.results: Tuple[Any, ...] = ()
        self.executor: Any = None
        self.optimiser: Any = None
        self.device_optimiser: Any = None

    def translated(self) -> ContextManager[None]:
        return errors.translated(self.sdk, self.case, self.settings)

    def prepare(self, inputs: Sequence[Mapping[str, Any]]) -> None:
        """Compile and attach to a device, which is one call of PopTorch."""
        sdk, settings = self.sdk, self.settings
        self._place()
        self.whole = self._traced()
        sdk_options = options.make(sdk, self.graph, self.case, settings, self.synthetic)
        if self.training:
            combined = bool(settings.poplar.combined_momentum)
            self.optimiser = optimisers.make(sdk, settings.recipe, self.whole.parameters(), self.scale, combined)
            self.executor = sdk.trainingModel(self.whole.train(), sdk_options, self.optimiser)
        else:
            self.executor = sdk.inferenceModel(self.whole.eval(), sdk_options)
        self.feed(inputs)
        if not self.synthetic:
            self.keep([next(self.batches)])
        poplar = settings.poplar
        if poplar.compile_only or poplar.ipu_model:
            self.executor.compile(*self.call)
        else:
            ipu.attach(self._attempt, ipus(self.case, settings), poplar.wait_s, poplar.device_id)
        if self.training and not poplar.compile_only:
            streamed = not {*STATE_STREAMS} & {*poplar.session_options}
            self.device_optimiser = optimisers.DeviceOptimiser(self.executor, self.optimiser, settings.recipe, streamed)

    def _place(self) -> None:
        """Assign layers to IPUs, and checkpoint what is not recomputed."""
        settings, module = self.settings, self.lowered.module
        if stages(settings) > 1:
            stage_of = _ipu.stage_of_block(self.graph, self.case, settings)
            placed = modules.place(self.sdk, module, self.graph, stage_of)
            if placed != list(range(stages(settings))):
                raise Unavailable(f"not supported: --pipeline-splits {settings.pipeline_splits} leaves an IPU no layer")
        if self.training and settings.recipe.recompute == "manual":
            modules.add_checkpoints(self.sdk, module, self.graph, settings.recipe)

    def _traced(self) -> modules.Whole:
        precision, settings = PRECISIONS[self.case.precision], self.settings
        mixed = precision.weights != precision.compute
        model = modules.Cast(self.lowered.module, self.compute) if mixed else self.lowered.module
        whole = modules.Whole(self.sdk, model, self.graph, self.case.mode, self.compute)
        if settings.poplar.num_io_tiles:
            accumulates = self.training and settings.recipe.gradient_accumulation > 1
            overlap = "OverlapAccumulationLoop" if accumulates else "OverlapDeviceIterationLoop"
            whole.overlap = getattr(self.sdk.OverlapMode, overlap)
        return whole

    def _attempt(self) -> None:
        try:
            self.executor.compile(*self.call)
        except self.sdk.Error as error:
            if errors.none_free(self.sdk, error):
                raise ipu.NoneFree(str(error).splitlines()[0]) from None
            raise

    def packed(self, arrays: Dict[str, Any]) -> List[Any]:
        return [self._tensor(name, arrays[name]) for name in self.graph.inputs]

    def _tensor(self, name: str, array: Any) -> Any:
        """A tensor of shape (batches x batch size, ...), in the compute type unless it has integers or labels."""
        tensor = torch.from_numpy(array.reshape(-1, *array.shape[2:]))
        return tensor.to(self.compute) if name not in self.labels and tensor.is_floating_point() else tensor

    def run_resident(self) -> None:
        with self.translated():
            results = self.executor(*self.call)
        self.results = tuple(results) if isinstance(results, (tuple, list)) else (results,)

    def dtypes(self) -> Tuple[str, str]:
        default = PRECISIONS[self.case.precision].weights
        weights = next((str(p.dtype).replace("torch.", "") for p in self.lowered.parameters.values()), default)
        return self.whole.dtypes.get("compute", ""), weights

    def outputs(self) -> Arrays:
        # The results of synthetic data are uninitialised.
        if self.synthetic:
            return {}
        arrays = [result.detach().to(torch.float64).numpy() for result in self.results]
        shapes = {"output": self.graph.output.shape, "loss": ()}
        return {
            name: _ipu.last(array.reshape(-1, *shapes[name]), self.identical) for name, array in zip(shapes, arrays)
        }

    def weights(self) -> Arrays:
        with self.translated():
            self.executor.copyWeightsToHost()
        return lowering.arrays(self.lowered.parameters)

    def load(self, weights: Mapping[str, Any]) -> None:
        with self.translated():
            self.lowered.load(weights)
            self.executor.copyWeightsToDevice()
            if self.device_optimiser is not None:
                self.device_optimiser.reset()

    def set_learning_rate(self, rate: float) -> None:
        with self.translated():
            self.device_optimiser.set_learning_rate(rate)

    def predict(self, batch: Mapping[str, Any]) -> Any:
        """In training, the logits are computed on the host, in 32 bits because the host lacks 16-bit kernels. A second
        program would need a second device."""
        if not self.training:
            return super().predict(batch)
        with self.translated():
            self.executor.copyWeightsToHost()
        module, weight_dtype = self.lowered.module, getattr(torch, PRECISIONS[self.case.precision].weights)
        tensors = [self._tensor(name, batch[name][None]) for name in self.graph.inputs if name not in self.labels]
        modules.hold(module.eval(), torch.float32)
        modules.norms_on_device(module, False)
        try:
            with torch.no_grad():
                logits = module(*[tensor.to(torch.float32) for tensor in tensors])
        finally:
            modules.hold(module.train(), weight_dtype)
            modules.norms_on_device(module, True)
        return logits.to(torch.float64).numpy()

    def device_facts(self) -> Dict[str, Any]:
        facts: Dict[str, Any] = {}
        # PopTorch computes the latency from the first input to the last output, and fails without inputs.
        if self.settings.data != "synthetic" and self.graph.inputs:
            facts["sdk_latency_s"] = float(self.executor.getLatency()[2])
        if self.settings.poplar.cycle_count:
            facts["cycles"] = int(self.executor.cycleCount())
        return facts

    def release(self) -> None:
        executor, optimiser = self.executor, self.optimiser
        self.executor = self.device_optimiser = self.optimiser = None
        if executor is None:
            return
        # destroy() first reads back what a run changed, which fails on a broken device. It does not try the weights
        # twice, nor the optimiser's state if the host's is not out of date.
        for _ in range(2):
            with contextlib.suppress(self.sdk.Error):
                executor.destroy()
                return
            if optimiser is not None:
                optimiser.host_state_is_dirty = False
        # Then the device is released with the last reference, and an exception may hold references in a cycle.
        del executor, optimiser
        gc.collect()

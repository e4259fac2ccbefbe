"""A PopART session on a device, its inputs and its results."""

from __future__ import annotations

import contextlib
from typing import Any, ContextManager, Dict, List, Mapping, Sequence, Tuple

from onnx import numpy_helper

from bench.backends import _ipu
from bench.backends._ipu.program import IpuProgram
from bench.backends._onnx import model as onnx_model
from bench.backends.popart import errors, operations, optimisers, options
from bench.cases.case import Case, Settings
from bench.cases.ipu_rules import ipus, stages
from bench.cases.precision import PRECISIONS
from bench.devices import ipu
from bench.graph import Graph
from bench.program import Arrays

# The number of the type in ONNX.
FLOAT16 = 10


class Session(IpuProgram):
    """A session, and its device until `release`.

    held      the weights in each initializer of the model
    arrays    the initial value of each initializer
    halves    the inputs of the model that are FLOAT16
    anchors   the arrays that receive the results
    """

    def __init__(self, popart: Any, graph: Graph, weights: Mapping[str, Any], case: Case, settings: Settings) -> None:
        super().__init__(popart, graph, case, settings)
        marks = options.marks(graph, case, settings)
        self.model, self.held = onnx_model.lowered(graph, weights, case.precision, marks, operations.OPERATIONS)
        model = self.model.graph
        self.arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.initializer}
        self.halves = {value.name for value in model.input if value.type.tensor_type.elem_type == FLOAT16}
        (output_type,) = (value.type.tensor_type.elem_type for value in model.output if value.name == "output")
        self.output_dtype = "float16" if output_type == FLOAT16 else "float32"
        self.anchors: Arrays = {}
        self.device = contextlib.ExitStack()

    def translated(self) -> ContextManager[None]:
        return errors.translated(self.sdk, self.settings)

    def prepare(self, inputs: Sequence[Mapping[str, Any]]) -> None:
        session_options = options.session_options(self.sdk, self.graph, self.case, self.settings)
        self.session = self._session(self._device(), session_options)
        del self.model
        self.session.prepareDevice(loadEngine=not self.settings.poplar.compile_only)
        if not self.settings.poplar.compile_only:
            self._load(session_options)
        self.feed(inputs)

    def release(self) -> None:
        self.device.close()

    def _device(self) -> Any:
        """A device of the case's size. One that is attached is held until `release`."""
        poplar = self.settings.poplar
        count = ipus(self.case, self.settings)
        manager = self.sdk.DeviceManager()
        if poplar.ipu_model:
            return manager.createIpuModelDevice({"numIPUs": count})
        if poplar.compile_only:
            return manager.createOfflineIPUDevice({"numIPUs": count, "ipuVersion": poplar.compile_only})

        popdist = _ipu.popdist("popart", self.case, self.settings)

        def attempt() -> Any:
            if popdist:
                # By position, as PopART's own tests do: the name of the parameter is not public.
                return popdist.getDevice(stages(self.settings))
            if poplar.device_id is not None:
                device = manager.tryAcquireDeviceById(poplar.device_id)
            else:
                device = manager.tryAcquireAvailableDevice(count)
            if device is None:
                raise ipu.NoneFree("PopART found none")
            return device

        device = ipu.attach(attempt, count, poplar.wait_s, poplar.device_id)
        self.device.enter_context(device)
        return device

    def _session(self, device: Any, session_options: Any) -> Any:
        popart, model = self.sdk, self.model.SerializeToString()
        returned = popart.AnchorReturnType(self.output_mode.capitalize())
        flow = popart.DataFlow(self.settings.batches_per_step, {name: returned for name in self._results()})
        common = {"fnModel": model, "dataFlow": flow, "deviceInfo": device, "userOptions": session_options}
        if not self.training:
            return popart.InferenceSession(**common)
        return popart.TrainingSession(loss="loss", optimizer=self._optimiser(0.0), **common)

    def _results(self) -> List[str]:
        """The results that come back: the loss if there is one, and the output with `--output-mode all` or no loss."""
        if self.graph.loss.node < 0:
            return ["output"]
        return ["output", "loss"] if self.settings.poplar.output_mode == "all" else ["loss"]

    def _optimiser(self, rate: float) -> Any:
        combined = self.settings.poplar.combined_momentum
        return optimisers.make(self.sdk, self.settings.recipe, rate, self.scale, self.held, combined)

    def _load(self, session_options: Any) -> None:
        if self.training or not session_options.constantWeights:
            self.session.weightsFromHost()
        self.anchors = self.session.initAnchorArrays()
        if self.synthetic:
            # Synthetic data has no results, and these arrays are uninitialised.
            for array in self.anchors.values():
                array[...] = 0

    def convert(self, batch: Mapping[str, Any]) -> Arrays:
        dtypes = {name: "float16" if name in self.halves else "float32" for name in batch}
        return {name: onnx_model.native(array, dtypes[name]) for name, array in batch.items()}

    def packed(self, arrays: Arrays) -> Arrays:
        """The arrays in PopART's shape: (steps, accumulated, replicas, *shape of a batch)."""
        return {name: array.reshape(self.call_shape + array.shape[1:]) for name, array in arrays.items()}

    def run_resident(self) -> None:
        """Run the session, which moves data from and to the host unless it is synthetic."""
        with self.translated():
            self.session.run(self.sdk.PyStepIO(self.call, self.anchors))

    def dtypes(self) -> Tuple[str, str]:
        """The first is the type of the output that comes back, or else the one in the model."""
        compute = str(self.anchors["output"].dtype) if "output" in self.anchors else self.output_dtype
        trained = [name for name, parts in self.held.items() if all(weight.trained for weight, _ in parts)]
        held = {str(self.arrays[name].dtype) for name in trained} or {PRECISIONS[self.case.precision].weights}
        return compute, ",".join(sorted(held))

    def outputs(self) -> Arrays:
        results = {}
        for name, array in self.anchors.items():
            tensor = self.graph.output if name == "output" else self.graph.loss
            shape = onnx_model.native_shape(tensor.shape, False)
            results[name] = _ipu.last(array.reshape([-1, *shape]), self.identical)
        return onnx_model.results(results)

    def weights(self) -> Arrays:
        import numpy as np

        arrays = {name: np.empty_like(self.arrays[name]) for name in self.held}
        with self.translated():
            self.session.weightsToHost()
            self.session.readWeights(self.sdk.PyWeightsIO(arrays))
        weights: Arrays = {}
        for name, parts in self.held.items():
            weights.update(onnx_model.taken_apart(parts, arrays[name]))
        return weights

    def load(self, values: Mapping[str, Any]) -> None:
        """The weights go to the device together with the host's copy of the optimiser's state, which is the initial
        one."""
        initializer = onnx_model.initializer
        arrays = {name: initializer(parts, values, self.arrays[name]) for name, parts in self.held.items()}
        with self.translated():
            self.session.writeWeights(self.sdk.PyWeightsIO(arrays))
            self.session.weightsFromHost()

    def set_learning_rate(self, rate: float) -> None:
        with self.translated():
            self.session.updateOptimizerFromHost(self._optimiser(rate))

    def device_facts(self) -> Dict[str, Any]:
        if not self.settings.poplar.cycle_count:
            return {}
        with self.translated():
            return {"cycles": int(self.session.getCycleCount())}

"""A session of PopART on a device, and what goes in and comes out of it."""

from __future__ import annotations

import contextlib
import math
from typing import Any, ContextManager, Dict, List, Mapping, Sequence, Tuple

from onnx import numpy_helper

from bench.backends import _ipu
from bench.backends._ipu.program import IpuProgram
from bench.backends._onnx import model as onnx_model
from bench.backends.popart import errors, optimisers, options
from bench.cases.case import Case, Settings
from bench.cases.errors import Refused
from bench.cases.ipu_rules import ipus, stages
from bench.cases.precision import PRECISIONS
from bench.devices import ipu
from bench.graph import Graph
from bench.program import Arrays

# ONNX's number of the type.
FLOAT16 = 10


class Session(IpuProgram):
    """A session, and its device until `release`.

    held      the weights in each initializer of the model, which are in `arrays`
    anchors   the arrays in which results come back
    """

    def __init__(self, popart: Any, graph: Graph, weights: Mapping[str, Any], case: Case, settings: Settings) -> None:
        super().__init__(popart, graph, case, settings)
        self.model, self.held = onnx_model.lowered(graph, weights, case.precision, options.marks(graph, case, settings))
        self.arrays = {one.name: numpy_helper.to_array(one) for one in self.model.graph.initializer}
        self.halves = {one.name for one in self.model.graph.input if one.type.tensor_type.elem_type == FLOAT16}
        (kind,) = (one.type.tensor_type.elem_type for one in self.model.graph.output if one.name == "output")
        self.kind = "float16" if kind == FLOAT16 else "float32"
        self.anchors: Arrays = {}
        self.device = contextlib.ExitStack()

    def translated(self) -> ContextManager[None]:
        return errors.translated(self.sdk, self.settings)

    def prepare(self, inputs: Sequence[Mapping[str, Any]]) -> None:
        chosen = options.session_options(self.sdk, self.graph, self.case, self.settings)
        self.session = self._session(self._device(), chosen)
        del self.model
        self.session.prepareDevice(loadEngine=not self.settings.poplar.compile_only)
        if not self.settings.poplar.compile_only:
            self._load(chosen)
        self.feed(inputs)

    def release(self) -> None:
        self.device.close()

    def _device(self) -> Any:
        """A device of the size; a free one is held until `release`."""
        poplar = self.settings.poplar
        wanted = ipus(self.case, self.settings)
        manager = self.sdk.DeviceManager()
        if poplar.ipu_model:
            return manager.createIpuModelDevice({"numIPUs": wanted})
        if poplar.compile_only:
            return manager.createOfflineIPUDevice({"numIPUs": wanted, "ipuVersion": poplar.compile_only})

        popdist = _ipu.popdist("popart", self.case, self.settings)

        def attempt() -> Any:
            if popdist:
                return popdist.getDevice(ipus_per_replica=stages(self.settings))
            if poplar.device_id is not None:
                device = manager.tryAcquireDeviceById(poplar.device_id)
            else:
                device = manager.tryAcquireAvailableDevice(wanted)
            if device is None:
                raise ipu.NoneFree("PopART found none")
            return device

        device = ipu.attach(attempt, wanted, poplar.wait_s, poplar.device_id)
        self.device.enter_context(device)
        return device

    def _session(self, device: Any, chosen: Any) -> Any:
        popart, model = self.sdk, self.model.SerializeToString()
        kind = popart.AnchorReturnType(self.output_mode.capitalize())
        flow = popart.DataFlow(self.settings.batches_per_step, {name: kind for name in self._ends()})
        common = {"fnModel": model, "dataFlow": flow, "deviceInfo": device, "userOptions": chosen}
        if not self.training:
            return popart.InferenceSession(**common)
        return popart.TrainingSession(loss="loss", optimizer=self._optimiser(0.0), **common)

    def _ends(self) -> List[str]:
        """What comes back: all of it where all is asked for, else what the case is about."""
        if self.graph.loss.node < 0:
            return ["output"]
        return ["output", "loss"] if self.settings.poplar.output_mode == "all" else ["loss"]

    def _optimiser(self, rate: float) -> Any:
        return optimisers.make(self.sdk, self.settings.recipe, rate, self.scale, self.held)

    def _load(self, chosen: Any) -> None:
        if self.training or not chosen.constantWeights:
            self.session.weightsFromHost()
        self.anchors = self.session.initAnchorArrays()
        if self.synthetic:
            # Nothing will come back, and these arrays are made of whatever was in memory.
            for array in self.anchors.values():
                array[...] = 0

    def convert(self, batch: Mapping[str, Any]) -> Arrays:
        kinds = {name: "float16" if name in self.halves else "float32" for name in batch}
        return {name: onnx_model.native(array, kinds[name]) for name, array in batch.items()}

    def packed(self, arrays: Arrays) -> Arrays:
        """The batches of a call in PopART's order: of steps, of accumulation, of replicas."""
        settings, replicas = self.settings, self.case.replicas
        accumulated = settings.recipe.batches_per_update(self.case.mode)
        leading = (settings.batches_per_step, accumulated, replicas)
        for array in arrays.values():
            if len(array) != math.prod(leading):
                raise Refused(
                    f"a call takes {settings.batches_per_step} batches per step x {accumulated} accumulated x"
                    f" {replicas} replicas = {math.prod(leading)} batches; there are {len(array)}"
                )
        return {name: array.reshape(leading + array.shape[1:]) for name, array in arrays.items()}

    def run_resident(self) -> None:
        """Data that is not synthetic is moved in any case."""
        with self.translated():
            self.session.run(self.sdk.PyStepIO(self.call, self.anchors))

    def dtypes(self) -> Tuple[str, str]:
        """The output's is that of the session, where it comes back: else PopART may have pruned it."""
        compute = str(self.anchors["output"].dtype) if "output" in self.anchors else self.kind
        trained = [name for name, parts in self.held.items() if all(weight.trained for weight, _ in parts)]
        held = {str(self.arrays[name].dtype) for name in trained} or {PRECISIONS[self.case.precision].weights}
        return compute, ",".join(sorted(held))

    def outputs(self) -> Arrays:
        found = {}
        for name, array in self.anchors.items():
            end = self.graph.output if name == "output" else self.graph.loss
            shape = onnx_model.native_shape(end.shape, False)
            found[name] = _ipu.last(array.reshape([-1, *shape]), self.alike)
        return onnx_model.results(found)

    def weights(self) -> Arrays:
        import numpy as np

        arrays = {name: np.empty_like(self.arrays[name]) for name in self.held}
        with self.translated():
            self.session.weightsToHost()
            self.session.readWeights(self.sdk.PyWeightsIO(arrays))
        found: Arrays = {}
        for name, parts in self.held.items():
            found.update(onnx_model.taken_apart(parts, arrays[name]))
        return found

    def load(self, values: Mapping[str, Any]) -> None:
        """What the optimiser remembers starts anew: its state goes to the device with the weights, and the host's copy
        of it is that of the start."""
        made = onnx_model.initializer
        arrays = {name: made(parts, values, self.arrays[name]) for name, parts in self.held.items()}
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

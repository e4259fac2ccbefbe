"""PopART on Graphcore's IPUs: it runs and trains the ONNX model that ONNX Runtime runs.

Weights  of a trained model are its initializers, which PopART moves; what is none becomes a Constant
16-bit   FLOAT16 throughout, but for the loss; in 16.32 the trained weights are FLOAT, and cast where they are used
Output   every batch's result comes back, as in PopART's own benchmarks, but in training: the last loss
Missing  a gradient of loops; schedules of pipelines; tiles for input and output of a model from a file
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import math
import os
import sys
from typing import Any, ContextManager, Dict, Iterator, List, Mapping, Optional, Sequence

from bench.backends import _ipu
from bench.backends._ipu.closures import Closures
from bench.backends._onnx import exported
from bench.cases import poplar
from bench.cases.case import Case, Settings
from bench.cases.errors import Refused
from bench.cases.poplar import checkable
from bench.cases.precision import PRECISIONS, loss_scale
from bench.devices import ipu
from bench.graph import Graph
from bench.program import Arrays, Batches

__all__ = ["DEVICES", "MODES", "PACKAGE", "checkable", "compile", "environment", "exported", "unsupported", "version"]

PACKAGE = "popart"
DEVICES = ("ipu",)
MODES = ("inference", "eval", "training")

# ONNX's number of the type.
FLOAT16 = 10
# Nodes that draw numbers, so that batches which are fed alike differ.
DRAWING = ("random", "dropout")


def unsupported(precision: str, mode: str, device: str) -> Optional[str]:
    return "IPUs have no bfloat16" if PRECISIONS[precision].compute == "bfloat16" else None


def environment(settings: Settings, device: str) -> Dict[str, str]:
    return poplar.environment(settings, os.environ)


def version() -> str:
    """Load PopART, before anything loads onnx. Raises ImportError, in one line, where it is not the SDK's."""
    try:
        popart = importlib.import_module("popart")
    except (ImportError, RuntimeError) as error:
        reason = (str(error).splitlines() or [""])[0]
        if "onnx" in sys.modules:
            raise ImportError(f"import popart first: {reason}") from None
        raise ImportError(f"the Poplar SDK is not enabled, or is for another Python: {reason}") from None
    if not hasattr(popart, "InferenceSession"):
        raise ImportError("this popart is not Graphcore's, but another package of that name: enable the Poplar SDK")
    return str(popart.versionString())


def compile(
    graph: Graph, weights: Mapping[str, Any], inputs: Sequence[Mapping[str, Any]], case: Case, settings: Settings
) -> Closures:
    with contextlib.ExitStack() as stack:
        made = _Compiled(stack, graph, weights, case, settings)
        program = made.program(inputs)
        # Whatever goes wrong before here lets the device go.
        program.close = stack.pop_all().close
    return program


class _Compiled:
    """A session on a device, and what goes in and comes out of it."""

    def __init__(
        self,
        stack: contextlib.ExitStack,
        graph: Graph,
        weights: Mapping[str, Any],
        case: Case,
        settings: Settings,
    ) -> None:
        self.popart = popart = importlib.import_module("popart")
        from onnx import numpy_helper

        from bench.backends._onnx import model as onnx_model
        from bench.backends.popart import errors, options

        options.require(graph, case, settings)
        self.graph, self.case, self.settings = graph, case, settings
        self.onnx_model, self.errors = onnx_model, errors
        marks = options.marks(graph, case, settings)
        model, self.held = onnx_model.lowered(graph, weights, case.precision, marks)
        self.arrays = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
        ends = {one.name: one.type.tensor_type.elem_type for one in model.graph.output}
        self.kind = "float16" if ends["output"] == FLOAT16 else "float32"
        self.halves = {one.name for one in model.graph.input if one.type.tensor_type.elem_type == FLOAT16}
        self.training = case.mode == "training"
        self.scale = settings.recipe.loss_scaling or loss_scale(case.precision, max(1, math.prod(graph.output.shape)))
        self.mode = options.output_mode(case, settings)
        self.streamed = options.streamed(graph, settings)
        self.source: List[Iterator[Arrays]] = []
        self.alike = False
        with self._told():
            made = options.made(popart, graph, case, settings)
            device = self._device(stack)
            self.session = self._session(model.SerializeToString(), device, made)
            self.session.prepareDevice(loadEngine=not settings.poplar.compile_only)
            self.anchors: Arrays = {}
            if not settings.poplar.compile_only:
                self._load(made)

    def _told(self) -> ContextManager[None]:
        return self.errors.told(self.popart, self.settings)

    def _device(self, stack: contextlib.ExitStack) -> Any:
        """A device of the size; a free one is held until the stack closes."""
        popart, given = self.popart, self.settings.poplar
        wanted = poplar.ipus(self.case, self.settings)
        manager = popart.DeviceManager()
        if given.ipu_model:
            return manager.createIpuModelDevice({"numIPUs": wanted})
        if given.compile_only:
            return manager.createOfflineIPUDevice({"numIPUs": wanted, "ipuVersion": given.compile_only})

        popdist = _ipu.popdist("popart", self.case, self.settings)

        def attempt() -> Any:
            if popdist:
                return popdist.getDevice(ipus_per_replica=poplar.stages(self.settings))
            if given.device_id is not None:
                found = manager.tryAcquireDeviceById(given.device_id)
            else:
                found = manager.tryAcquireAvailableDevice(wanted)
            if found is None:
                raise ipu.NoneFree("PopART found none")
            return found

        device = ipu.attach(attempt, wanted, given.wait_s, given.device_id)
        stack.enter_context(device)
        return device

    def _session(self, model: bytes, device: Any, options: Any) -> Any:
        popart = self.popart
        kind = popart.AnchorReturnType(self.mode.capitalize())
        flow = popart.DataFlow(self.settings.batches_per_step, {name: kind for name in self._ends()})
        common = {"fnModel": model, "dataFlow": flow, "deviceInfo": device, "userOptions": options}
        if not self.training:
            return popart.InferenceSession(**common)
        return popart.TrainingSession(loss="loss", optimizer=self._optimiser(0.0), **common)

    def _ends(self) -> List[str]:
        """What comes back: all of it where all is asked for, else what the case is about."""
        if self.graph.loss.node < 0:
            return ["output"]
        return ["output", "loss"] if self.settings.poplar.output_mode == "all" else ["loss"]

    def _optimiser(self, rate: float) -> Any:
        from bench.backends.popart import optimisers

        return optimisers.make(self.popart, self.settings.recipe, rate, self.scale, self.held)

    def _load(self, options: Any) -> None:
        if self.training or not options.constantWeights:
            self.session.weightsFromHost()
        self.anchors = self.session.initAnchorArrays()
        if not self.streamed:
            # Nothing will come back, and these arrays are made of whatever was in memory.
            for array in self.anchors.values():
                array[...] = 0

    def program(self, inputs: Sequence[Mapping[str, Any]]) -> Closures:
        self.feed(inputs)
        trained = [name for name, parts in self.held.items() if all(weight.trained for weight, _ in parts)]
        held = {str(self.arrays[name].dtype) for name in trained} or {PRECISIONS[self.case.precision].weights}
        return Closures(
            self.run,
            self.feed,
            self.outputs,
            compute=self._compute(),
            held=",".join(sorted(held)),
            weights=self.weights if self.training else None,
            load=self.load if self.training else None,
            set_learning_rate=self.set_learning_rate if self.training else None,
            facts=self._facts(),
            looped=True,
            told=self.cycles if self.settings.poplar.cycle_count else None,
            source=_ipu.source(self.popart, self.settings),
        )

    def _compute(self) -> str:
        """The type of the output as the session has it; where it does not come back, PopART may have pruned it."""
        if "output" in self.anchors:
            return str(self.anchors["output"].dtype)
        return self.kind

    def _facts(self) -> Dict[str, Any]:
        matmul, conv = poplar.partials(self.settings)
        facts: Dict[str, Any] = {"output_mode": self.mode}
        facts.update({name: kind for name, kind in (("partials_matmul", matmul), ("partials_conv", conv)) if kind})
        if self.training and self.scale != 1:
            facts["loss_scale"] = self.scale
        return facts

    def feed(self, batches: Batches) -> None:
        count = _ipu.count(self.case, self.settings)
        drawing = any(node.op in DRAWING for node in self.graph.nodes)
        self.alike = isinstance(batches, Sequence) and len(batches) == 1 and not drawing
        native: Any = map(self._native, batches)
        calls = map(self._shaped, _ipu.calls(list(native) if isinstance(batches, Sequence) else native, count))
        self.source[:] = [calls if self.settings.data != "synthetic" else itertools.repeat(next(calls))]

    def _native(self, batch: Mapping[str, Any]) -> Arrays:
        kinds = {name: "float16" if name in self.halves else "float32" for name in batch}
        return {name: self.onnx_model.native(array, kinds[name]) for name, array in batch.items()}

    def _shaped(self, call: Arrays) -> Arrays:
        """The batches of a call in PopART's order: of steps, of accumulation, of replicas."""
        settings, replicas = self.settings, self.case.replicas
        accumulated = settings.recipe.gradient_accumulation if self.training else 1
        leading = (settings.batches_per_step, accumulated, replicas)
        for array in call.values():
            if len(array) != math.prod(leading):
                raise Refused(
                    f"a call takes {settings.batches_per_step} batches per step x {accumulated} accumulated x"
                    f" {replicas} replicas = {math.prod(leading)} batches; there are {len(array)}"
                )
        return {name: array.reshape(leading + array.shape[1:]) for name, array in call.items()}

    def run(self) -> None:
        arrays = next(self.source[0])
        with self._told():
            self.session.run(self.popart.PyStepIO(arrays, self.anchors))

    def outputs(self) -> Arrays:
        """Of the last batch. Those of several updates differ, however alike they are fed."""
        alike = self.alike and not (self.training and self.settings.batches_per_step > 1)
        found = {}
        for name, array in self.anchors.items():
            end = self.graph.output if name == "output" else self.graph.loss
            shape = self.onnx_model.native_shape(end.shape, False)
            found[name] = _ipu.last(array.reshape([-1, *shape]), alike)
        return self.onnx_model.results(found)

    def weights(self) -> Arrays:
        import numpy as np

        arrays = {name: np.empty_like(self.arrays[name]) for name in self.held}
        with self._told():
            self.session.weightsToHost()
            self.session.readWeights(self.popart.PyWeightsIO(arrays))
        found: Arrays = {}
        for name, parts in self.held.items():
            found.update(self.onnx_model.taken_apart(parts, arrays[name]))
        return found

    def load(self, values: Mapping[str, Any]) -> None:
        """What the optimiser remembers starts anew: its state goes to the device with the weights, and the host's copy
        of it is that of the start."""
        made = self.onnx_model.initializer
        arrays = {name: made(parts, values, self.arrays[name]) for name, parts in self.held.items()}
        with self._told():
            self.session.writeWeights(self.popart.PyWeightsIO(arrays))
            self.session.weightsFromHost()

    def set_learning_rate(self, rate: float) -> None:
        with self._told():
            self.session.updateOptimizerFromHost(self._optimiser(rate))

    def cycles(self) -> Dict[str, Any]:
        with self._told():
            return {"cycles": int(self.session.getCycleCount())}

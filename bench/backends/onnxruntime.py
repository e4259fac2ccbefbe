"""ONNX Runtime on the CPU, or on CUDA where its build has it: inference and eval.

Tuning   best: with synthetic data, inputs and outputs are bound to arrays on the device.
         default: plain `run`. Both use the session's defaults for all but the number of threads
16-bit   these cases skip. The CPU provider has no 16-bit kernels for these layers: it inserts casts and
         computes in fp32, as the optimised graph of version 1.31 shows
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple

from bench.backends._onnx import exported
from bench.backends._onnx.primitives import PRIMITIVES
from bench.cases.case import Case, Settings
from bench.cases.errors import Unavailable
from bench.graph import Graph, naming
from bench.profiling import Kernel, Profile, Run, merged, timed
from bench.program import Arrays, Program

PACKAGE, EXTRA = "onnxruntime", "onnx"
DEVICES = ("cpu", "cuda")
MODES = ("inference", "eval")

__all__ = ["DEVICES", "MODES", "PACKAGE", "PRIMITIVES", "compile", "environment", "exported", "unsupported", "version"]


def unsupported(precision: str, mode: str, device: str) -> Optional[str]:
    return None if precision == "fp32" else f"onnxruntime would compute {precision} in fp32 on the {device}"


def environment(settings: Settings, device: str) -> Dict[str, str]:
    return {"OMP_NUM_THREADS": str(settings.threads)}


def version() -> str:
    import onnxruntime

    return str(onnxruntime.__version__)


def compile(
    graph: Graph, weights: Mapping[str, Any], inputs: Sequence[Mapping[str, Any]], case: Case, settings: Settings
) -> Program:
    bound = settings.tuning == "best" and settings.data == "synthetic"
    return (_Bound if bound else _Session)(graph, weights, case, settings).started(inputs)


class _Session(Program):
    """A session that reads numpy arrays and allocates new results in every run."""

    bound = False

    def __init__(self, graph: Graph, weights: Mapping[str, Any], case: Case, settings: Settings) -> None:
        from bench.backends._onnx import model

        super().__init__(graph, case, settings)
        self.model, self.initial = model, weights
        self.arrays: Arrays = {}
        self.use(_session(exported(graph, weights), case, settings))
        self.names = [output.name for output in self.session.get_outputs()]
        self.results: List[Any] = []
        self.facts = {"provider": self.session.get_providers()[0], "io_binding": self.bound}

    def use(self, session: Any) -> None:
        """Run this session from now on, on the same inputs."""
        self.session = session

    def convert(self, batch: Mapping[str, Any]) -> Arrays:
        return {name: self.model.native(array, "float32") for name, array in batch.items()}

    def keep(self, batches: Iterable[Arrays]) -> None:
        (self.arrays,) = batches

    def run_resident(self) -> None:
        self.results = self.session.run(self.names, self.arrays)

    def outputs(self) -> Arrays:
        return self.model.results(dict(zip(self.names, self.results)))

    def dtypes(self) -> Tuple[str, str]:
        kinds = {output.type for output in self.session.get_outputs()}
        return "float32" if kinds == {"tensor(float)"} else ",".join(sorted(kinds)), "float32"

    def profile(self, steps: int) -> Profile:
        before = self.session
        with tempfile.TemporaryDirectory(prefix="layerbench-") as folder:
            self.use(_session(exported(self.graph, self.initial), self.case, self.settings, f"{folder}/profile"))
            try:
                seconds = [timed(self.run, perf_counter) for _ in range(1 + steps)]
                trace = Path(self.session.end_profiling()).read_bytes()
            finally:
                self.use(before)
        return Profile(_runs(json.loads(trace), seconds)[1:], trace)


class _Bound(_Session):
    """A session whose inputs and outputs are bound to arrays on the device: a run allocates none."""

    bound = True

    def use(self, session: Any) -> None:
        super().use(session)
        self.binding = session.io_binding()
        if self.arrays:
            self.keep([self.arrays])

    def keep(self, batches: Iterable[Arrays]) -> None:
        import numpy as np
        from onnxruntime import OrtValue

        # The binding reads these arrays in place.
        super().keep(batches)
        device = self.case.device
        self.binding.clear_binding_inputs()
        self.binding.clear_binding_outputs()
        for name, array in self.arrays.items():
            self.binding.bind_ortvalue_input(name, OrtValue.ortvalue_from_numpy(array, device, 0))
        for output in self.session.get_outputs():
            result = OrtValue.ortvalue_from_shape_and_type(output.shape, np.float32, device, 0)
            self.binding.bind_ortvalue_output(output.name, result)

    def run_resident(self) -> None:
        self.session.run_with_iobinding(self.binding)

    def outputs(self) -> Arrays:
        self.results = [value.numpy() for value in self.binding.get_outputs()]
        return super().outputs()


def _session(model: bytes, case: Case, settings: Settings, profile: str = "") -> Any:
    """A session; with `profile`, the start of a file's name, it writes the times of each node."""
    import onnxruntime as ort

    provider = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}[case.device]
    if provider not in ort.get_available_providers():
        raise Unavailable(f"not supported: onnxruntime {ort.__version__} here has no {provider}")
    options = ort.SessionOptions()
    options.intra_op_num_threads = settings.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if profile:
        options.enable_profiling, options.profile_file_prefix = True, profile
    # fp32 means fp32: CUDA's provider uses TF32 by default.
    configured: Any = (provider, {"use_tf32": "0"}) if case.device == "cuda" else provider
    return ort.InferenceSession(model, options, providers=[configured])


def _runs(events: Sequence[Mapping[str, Any]], seconds: Sequence[float]) -> List[Run]:
    """The runs in a profile. ONNX Runtime names a kernel after its node, or after the node's result."""
    starts = sorted(event["ts"] for event in events if event["name"] == "model_run")
    # On CUDA the nodes are launched, and the kernels are events of their own.
    on_device = [event for event in events if event.get("cat") == "Kernel"]
    nodes = [event for event in events if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")]
    runs = []
    for index, (start, run_s) in enumerate(zip(starts, seconds)):
        end = starts[index + 1] if index + 1 < len(starts) else float("inf")
        within = [event for event in on_device or nodes if start <= event["ts"] < end]
        runs.append(Run(run_s, merged(map(_kernel, sorted(within, key=lambda event: event["ts"])))))
    return runs


def _kernel(event: Mapping[str, Any]) -> Kernel:
    facts = event.get("args", {})
    named = naming.indexes(f"{facts.get('parent_name', '')} {event['name']}")
    name = event["name"] if event["cat"] == "Kernel" else str(facts.get("op_name", event["name"]))
    return Kernel(f"{name} (nchwc)" if "_nchwc" in event["name"] else name, named, event["dur"] / 1e6)

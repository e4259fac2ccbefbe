"""The contract of a file in backends/, and what every backend can be asked without loading it."""

from __future__ import annotations

import importlib.util
from typing import Any, Dict, Mapping, Optional, Protocol, Sequence, Tuple, cast

from bench import devices, registry, workloads
from bench.cases.case import Case, Settings, Unavailable
from bench.graph import Graph
from bench.program import Program
from bench.workloads import host_pipeline


class Backend(Protocol):
    """PACKAGE: what must be importable; DEVICES and MODES: what it can do at all. TOGETHER, where it is there:
    `compile` takes a `group` of replicas that average their gradients."""

    PACKAGE: str
    DEVICES: Tuple[str, ...]
    MODES: Tuple[str, ...]

    def unsupported(self, precision: str, mode: str, device: str) -> Optional[str]:
        """Why this framework cannot run so, or None. Says it without loading the framework."""

    def environment(self, settings: Settings, device: str) -> Dict[str, str]:
        """Variables that must be set before the framework is loaded, thread counts first."""

    def version(self) -> str:
        """Load the framework and return its version."""

    def compile(
        self,
        graph: Graph,
        weights: Mapping[str, Any],
        inputs: Sequence[Mapping[str, Any]],
        case: Case,
        settings: Settings,
    ) -> Program:
        """Lower `graph` for `case`. In training the program runs one SGD update. The learning rate
        comes later. Raises Unavailable where the framework turns out to be unable."""


def names() -> Tuple[str, ...]:
    return tuple(registry.names(__name__))


def load(name: str) -> Backend:
    """Import one backend, without its framework."""
    return cast(Backend, registry.load(__name__, name))


def require(case: Case) -> None:
    """Raise Unavailable, with one of the three reasons, when a case cannot run here."""
    backend = load(case.backend)
    if importlib.util.find_spec(backend.PACKAGE) is None:
        raise Unavailable(f"not installed: {backend.PACKAGE} ({_source(case.backend)})")
    devices.require(case.device)
    if case.device not in backend.DEVICES:
        raise Unavailable(f"not supported: {case.backend} runs on {', '.join(backend.DEVICES)} here, not {case.device}")
    if case.mode not in backend.MODES:
        raise Unavailable(f"not supported: {case.backend} runs {' and '.join(backend.MODES)}, not {case.mode}")
    if case.workload == host_pipeline.NAME and case.backend not in host_pipeline.BACKENDS:
        owners = " and ".join(host_pipeline.BACKENDS)
        raise Unavailable(f"not supported: {case.backend} has no input pipeline of its own, as {owners} have")
    if case.replicas > 1 and case.mode == "training" and case.device != "ipu" and not hasattr(backend, "TOGETHER"):
        raise Unavailable(f"not supported: {case.backend} does not train replicas together")
    reason = workloads.unsupported(workloads.load(case.workload), case.mode, case.precision)
    reason = reason or backend.unsupported(case.precision, case.mode, case.device)
    if reason:
        raise Unavailable(f"not supported: {reason}")


def _source(name: str) -> str:
    """Where the package of a backend comes from."""
    if load(name).DEVICES == ("ipu",):
        return "it comes with Graphcore's Poplar SDK: enable it"
    extra = {"onnxruntime": "onnx", "numpy": "test"}.get(name, name)
    return f"pip install -e '.[{extra}]' -c constraints/cpu.txt"

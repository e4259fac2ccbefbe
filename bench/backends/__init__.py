"""The contract of a file in backends/, and what every backend can be asked without loading it."""

from __future__ import annotations

from typing import Any, Dict, Mapping, Optional, Protocol, Sequence, Tuple, cast

from bench import registry
from bench.cases.case import Case, Settings
from bench.graph import Graph
from bench.program import Program


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

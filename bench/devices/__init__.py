"""The contract of a file in devices/."""

from __future__ import annotations

from typing import Any, ContextManager, Dict, Optional, Protocol, Sequence, cast

from bench import registry
from bench.cases.errors import Unavailable


class Device(Protocol):
    """A device is known by its file's name. Only `peak` may load a framework, and only in a worker."""

    def absent(self) -> Optional[str]:
        """Why the device is not here, or None. Loads no framework."""

    def lease(self, cores: Sequence[int] = ()) -> ContextManager[None]:
        """Hold the device while a case is timed; wait for whoever holds it now, or compiles.

        cores   with --parallel-timing: others may be timed beside, on other cores than these
        """

    def describe(self) -> Dict[str, Any]:
        """What a baseline must match: model, count and whatever else sets the speed."""

    def peak(self, precision: str, threads: int) -> Dict[str, Any]:
        """Measure what the device can do: `flops` per second in `precision`, `bandwidth_bytes_per_s` by the size of
        the working set in bytes (as text, smallest first), the `library` that showed it, and the `limit` that no
        program can exceed: `flops` and `bytes` per second; None: not known."""


def names() -> list[str]:
    return registry.names(__name__)


def load(name: str) -> Device:
    return cast(Device, registry.load(__name__, name))


def require(name: str) -> None:
    """Raise Unavailable when the device is not here."""
    reason = load(name).absent()
    if reason:
        raise Unavailable(f"not present: {reason}")

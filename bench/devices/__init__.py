"""The contract of a file in devices/."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, ContextManager, Dict, Optional

from bench import registry
from bench.cases.errors import Unavailable


@dataclass(frozen=True)
class Device:
    """What the module of a device holds. A device is known by its file's name. Only `peak` may load a framework, and
    only in a worker.

    absent     (): why the device is not here, or None
    lease      (cores=()): hold the device while a case is timed; wait for whoever holds it now, or compiles.
               cores, with --parallel-timing: others may be timed beside, on other cores than these
    describe   (): what a baseline must match: model, count and whatever else sets the speed
    peak       (precision, threads): measure what the device can do: `flops` per second in the precision,
               `bandwidth_bytes_per_s` by the size of the working set in bytes (as text, smallest first), the `library`
               that showed it, and the `limit` that no program can exceed: `flops` and `bytes` per second; None: unknown
    attached   (units, blocked): hold so many of its units from when a case is compiled until it ends; `blocked` is
               called when others have them. None: compiling needs none
    """

    absent: Callable[[], Optional[str]]
    lease: Callable[..., ContextManager[None]]
    describe: Callable[[], Dict[str, Any]]
    peak: Callable[[str, int], Dict[str, Any]]
    attached: Optional[Callable[[int, Callable[[], None]], ContextManager[None]]] = None


def names() -> list[str]:
    return registry.names(__name__)


def load(name: str) -> Device:
    return registry.filled(Device, registry.load(__name__, name))


def require(name: str) -> None:
    """Raise Unavailable when the device is not here."""
    reason = load(name).absent()
    if reason:
        raise Unavailable(f"not present: {reason}")

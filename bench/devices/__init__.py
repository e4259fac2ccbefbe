"""The contract of a file in devices/."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any, Callable, ContextManager, Dict, Iterable, Optional, Tuple

from bench import registry
from bench.cases.case import RECORDED, Case, Settings
from bench.cases.errors import Unavailable


@dataclass(frozen=True)
class Device:
    """What the module of a device holds; constants are in capitals there. A device is known by its file's name. None
    loads a framework.

    absent     (): why the device is not here, or None
    lease      (cores=()): hold the device while a case is timed; wait for whoever holds it now, or compiles.
               cores, with --parallel-timing: others may be timed beside, on other cores than these
    describe   (): what a baseline must match: model, count and whatever else sets the speed
    What follows has a default, which is that of a device on which a framework runs one replica of a case.

    computed_peak   (case, settings): the roofline of all that a case takes, computed; None: it is measured in workers
    limit      (compute type, threads, clock in hertz or None): FLOP and bytes per second that no program can exceed, by
               `flops` and `bytes`; None: not known
    attached   (case, settings, blocked): hold what a framework attaches to, from when a case is compiled until it ends;
               `blocked` is called when others have it
    refusal    (case, settings): what no framework can do with a case; empty: it can be tried
    replicates   one program computes all replicas of a case, and averages their gradients
    backends   those that exist for it only, and are taken where none is named; empty: the suite's usual ones
    source     where the packages of those backends come from
    batches_per_step   batches behind one call, where nobody says how many
    """

    absent: Callable[[], Optional[str]]
    lease: Callable[..., ContextManager[None]]
    describe: Callable[[], Dict[str, Any]]
    computed_peak: Optional[Callable[[Case, Settings], Dict[str, Any]]] = None
    limit: Callable[[str, int, Optional[float]], Optional[Dict[str, float]]] = lambda dtype, threads, clock_hz: None
    attached: Callable[[Case, Settings, Callable[[], None]], ContextManager[None]] = lambda case, settings, blocked: (
        contextlib.nullcontext()
    )
    refusal: Callable[[Case, Settings], str] = lambda case, settings: ""
    replicates: bool = False
    backends: Tuple[str, ...] = ()
    source: str = ""
    batches_per_step: int = 1


def names() -> list[str]:
    return registry.names(__name__)


def load(name: str) -> Device:
    return registry.filled(Device, registry.load(__name__, name))


def take(names: Iterable[str], setting: str) -> bool:
    """Whether a setting of some devices only has an effect on one of these."""
    return any(name in RECORDED[setting].devices for name in names)


def replicate(names: Iterable[str]) -> bool:
    """Whether each of these devices computes all replicas by itself."""
    return all(load(name).replicates for name in names)


def taken_by_default(backend: str, device: str) -> bool:
    """Whether a device takes a backend that nobody named for it."""
    special = load(device).backends
    return backend in special if special else not any(backend in load(name).backends for name in names())


def require(name: str) -> None:
    """Raise Unavailable when the device is not here."""
    reason = load(name).absent()
    if reason:
        raise Unavailable(f"not present: {reason}")

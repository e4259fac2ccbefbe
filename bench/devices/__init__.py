"""The contract of a file in devices/."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any, Callable, ContextManager, Dict, Iterable, Optional, Tuple

from bench import registry
from bench.cases.case import Case, Settings
from bench.cases.errors import Unavailable


@dataclass(frozen=True)
class Traits:
    """What may be different on a device. The defaults are those of a device that a framework takes when it runs.

    replicates   one program computes all replicas of a case, and averages their gradients
    settings     the settings that mean something on this device only
    backends     those that exist for it, and are taken where none is named; empty: the suite's usual ones
    source       where the packages of those backends come from
    batches_per_step   batches behind one call, where none are named
    refusal      what no framework can do with a case, before anything is loaded; empty: it can be tried
    attached     the devices that a framework has from when it compiles; the last argument is called before they are
                 waited for
    peak         None: it is measured, once, in a worker. Else what all devices of a case could do together
    """

    replicates: bool = False
    settings: Tuple[str, ...] = ()
    backends: Tuple[str, ...] = ()
    source: str = ""
    batches_per_step: int = 1
    refusal: Callable[[Case, Settings], str] = lambda case, settings: ""
    attached: Callable[[Case, Settings, Callable[[], None]], ContextManager[None]] = lambda case, settings, blocked: (
        contextlib.nullcontext()
    )
    peak: Optional[Callable[[Case, Settings], Dict[str, Any]]] = None


@dataclass(frozen=True)
class Device:
    """What the module of a device holds. A device is known by its file's name. Only `peak` may load a framework, and
    only in a worker.

    absent     (): why the device is not here, or None
    lease      (cores=()): hold the device while a case is timed; wait for whoever holds it now, or compiles.
               cores, with --parallel-timing: others may be timed beside, on other cores than these
    describe   (): what a baseline must match: model, count and whatever else sets the speed
    peak       (precision, threads): measure what the device can do: `flops` per second in the precision, `bandwidth`
               in bytes per second by the size of the working set in bytes (as text, smallest first), the `library`
               that showed it, and the `limit` that no program can exceed: `flops` and `bytes` per second; None: unknown
    traits     what is different on it
    """

    absent: Callable[[], Optional[str]]
    lease: Callable[..., ContextManager[None]]
    describe: Callable[[], Dict[str, Any]]
    peak: Callable[[str, int], Dict[str, Any]]
    traits: Traits = Traits()


def names() -> list[str]:
    return registry.names(__name__)


def load(name: str) -> Device:
    return registry.filled(Device, registry.load(__name__, name))


def traits(name: str) -> Traits:
    return load(name).traits


def take(names: Iterable[str], setting: str) -> bool:
    """Whether a setting that only some devices know means something on one of these."""
    return any(setting in traits(name).settings for name in names)


def replicate(names: Iterable[str]) -> bool:
    """Whether each of these devices computes all replicas by itself."""
    return all(traits(name).replicates for name in names)


def taken_by_default(backend: str, device: str) -> bool:
    """Whether a device takes a backend that nobody named for it."""
    special = traits(device).backends
    return backend in special if special else not any(backend in traits(name).backends for name in names())


def require(name: str) -> None:
    """Raise Unavailable when the device is not here."""
    reason = load(name).absent()
    if reason:
        raise Unavailable(f"not present: {reason}")

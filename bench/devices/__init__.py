"""The interface of a device: one module in this folder."""

from __future__ import annotations

import contextlib
import functools
from dataclasses import dataclass
from typing import Any, Callable, ContextManager, Dict, Iterable, Optional, Tuple

from bench import registry
from bench.cases.case import RECORDED, Case, Settings
from bench.cases.errors import Unavailable


@dataclass(frozen=True)
class Device:
    """What a device's module defines; constants are in capitals there. The file's name is the device's. No module
    imports a framework.

    absent     (): why the device is not present, or None
    lease      (cores=()): a context that holds the device while a case is timed. It waits until the device is free, and
               until nothing compiles. With --parallel-timing, others may be timed on other cores than `cores`
    describe   (): facts that a baseline must match: model, count and whatever else determines the speed

    The others have defaults, for a device on which a framework runs one replica of a case.

    computed_peak   (case, settings): the computed roofline of all devices of a case; None: it is measured in workers
    limit      (compute type, threads, clock in hertz or None): FLOP and bytes per second that no program can exceed, by
               `flops` and `bytes`; None: unknown
    attached   (case, settings, blocked): a context that reserves what a framework attaches to, from the compilation of
               a case to its end; it calls `blocked` before it waits
    refusal    (case, settings): why no framework can run the case; empty: one may be able to
    replicates   one program computes all replicas of a case, and averages their gradients
    backends   the backends that exist for this device only, which are its default; empty: the suite's usual ones
    source     where the packages of those backends come from
    batches_per_step   the default number of batches of one call
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


def names() -> Tuple[str, ...]:
    return registry.names(__name__)


@functools.lru_cache(maxsize=None)
def load(name: str) -> Device:
    return registry.filled(Device, registry.load(__name__, name))


def take(names: Iterable[str], setting: str) -> bool:
    """Whether a setting of some devices only has an effect on one of these."""
    return any(name in RECORDED[setting].devices for name in names)


def replicate(names: Iterable[str]) -> bool:
    """Whether on each of these devices one program computes all replicas."""
    return all(load(name).replicates for name in names)


def taken_by_default(backend: str, device: str) -> bool:
    """Whether a backend is one of a device's defaults."""
    only_here = load(device).backends
    return backend in only_here if only_here else not any(backend in load(name).backends for name in names())


def require(name: str) -> None:
    """Raise Unavailable if the device is not present."""
    reason = load(name).absent()
    if reason:
        raise Unavailable(f"not present: {reason}")

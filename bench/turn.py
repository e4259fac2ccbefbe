"""Whose turn it is, seen from a case: rank 0 waits, and holds, for all replicas."""

from __future__ import annotations

import contextlib
from typing import Callable, List

from bench import device, lease, poplar
from bench.case import Case, Settings
from bench.group import Group

Tell = Callable[[str], None]


def to_compile(
    devices: contextlib.ExitStack,
    compiling: contextlib.ExitStack,
    case: Case,
    settings: Settings,
    tell: Tell,
    group: Group,
) -> None:
    """Have the devices that compiling attaches, until `devices` ends, and leave to compile, until `compiling` does."""
    cores = _cores(settings, group)
    attached = getattr(device.load(case.device), "attached", None)
    if group.count > 1:
        tell("waiting")
    if attached is not None and not settings.poplar.compile_only:
        devices.enter_context(attached(poplar.ipus(case, settings), lambda: tell("waiting")))
    if group.rank == 0:
        compiling.enter_context(lease.compiling(cores, lambda: tell("waiting")))
    group.all("compiling")


def to_time(
    stack: contextlib.ExitStack,
    compiling: contextlib.ExitStack,
    case: Case,
    settings: Settings,
    tell: Tell,
    group: Group,
) -> None:
    """Have the device, until `stack` ends, once all replicas have compiled: one that still did would be waited for."""
    tell("waiting")
    every = _cores(settings, group)
    compiling.close()
    if group.rank == 0:
        stack.enter_context(device.load(case.device).lease(every if settings.parallel_timing else []))
    group.all("leased")
    tell("timing")


def _cores(settings: Settings, group: Group) -> List[int]:
    """The cores of all replicas; none: not bound."""
    every = group.all(settings.cores)
    return sorted({core for cores in every for core in cores}) if all(every) else []

"""Whose turn it is, seen from a case: one replica a machine waits, and holds, for all that are there."""

from __future__ import annotations

import contextlib
import platform
from typing import Any, Callable, List, Tuple

from bench import devices as device
from bench import locks
from bench.cases.case import Case, Settings
from bench.devices import cpu
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
    if group.count > 1:
        tell("waiting")
    machines = _machines(settings, group)
    if settings.compile_cores:
        cpu.bind(settings.compile_cores)
    devices.enter_context(device.load(case.device).attached(case, settings, lambda: tell("waiting")))
    _one_by_one(group, machines, lambda cores: compiling.enter_context(locks.compiling(cores, lambda: tell("waiting"))))


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
    machines = _machines(settings, group)
    compiling.close()
    timed = device.load(case.device)
    if settings.compile_cores:
        cpu.bind(settings.cores)
    _one_by_one(
        group, machines, lambda cores: stack.enter_context(timed.lease(cores if settings.parallel_timing else []))
    )
    tell("timing")


def _machines(settings: Settings, group: Group) -> List[Tuple[str, List[int]]]:
    """Where each replica is, and the cores of all that are there; none: not bound."""
    every = group.all([platform.node(), settings.cores])
    found = []
    for node, _ in every:
        there = [cores for other, cores in every if other == node]
        found.append((node, sorted({core for cores in there for core in cores}) if all(there) else []))
    return found


def _one_by_one(group: Group, machines: List[Tuple[str, List[int]]], take: Callable[[List[int]], Any]) -> None:
    """Let the first replica of each machine take what all of them there need. The machines have their turn in an order
    that all runs share: two runs never hold what the other one waits for."""
    nodes = [node for node, _ in machines]
    for node in sorted(set(nodes)):
        if group.rank == nodes.index(node):
            take(machines[group.rank][1])
        group.all("taken", patient=True)

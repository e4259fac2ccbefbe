"""Whose turn it is, seen from a case: one replica a machine waits, and holds, for all that are there."""

from __future__ import annotations

import contextlib
import platform
from typing import Any, Callable, List, Tuple

from bench import devices as device
from bench import locks
from bench.cases.case import Settings
from bench.devices import cpu
from bench.group import Group
from bench.job import Job


def to_compile(job: Job, devices: contextlib.ExitStack) -> None:
    """Hold the devices that compiling attaches, until `devices` ends; be free to compile until `job.compiling` does."""
    case, settings, group = job.case, job.settings, job.group
    if group.count > 1:
        job.tell("waiting")
    machines = _machines(settings, group)
    if settings.compile_cores:
        cpu.bind(settings.compile_cores)
    devices.enter_context(device.load(case.device).attached(case, settings, lambda: job.tell("waiting")))

    def take(cores: List[int]) -> None:
        job.compiling.enter_context(locks.compiling(cores, lambda: job.tell("waiting")))

    _one_by_one(group, machines, take)


def to_time(job: Job, stack: contextlib.ExitStack, alone: bool) -> None:
    """Have the device, until `stack` ends, once all replicas have compiled: one that still did would be waited for.

    alone   with nobody beside on other cores either
    """
    settings, timed = job.settings, device.load(job.case.device)
    job.tell("waiting")
    machines = _machines(settings, job.group)
    job.compiling.close()
    if settings.compile_cores:
        cpu.bind(settings.cores)
    shared = settings.parallel_timing and not alone
    _one_by_one(job.group, machines, lambda cores: stack.enter_context(timed.lease(cores if shared else [])))
    job.tell("timing")


def _machines(settings: Settings, group: Group) -> List[Tuple[str, List[int]]]:
    """Where each replica is, and the cores of all that are there; none: not bound."""
    every = group.all_gather([platform.node(), settings.cores])
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
        group.all_gather("taken", no_timeout=True)

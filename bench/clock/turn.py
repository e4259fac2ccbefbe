"""A case waits until it may compile, or be timed. On each machine one replica holds the locks for all of them."""

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
    """Wait until the case may compile: it holds its devices until `devices` ends, and the locks until `job.compiling`
    does. One side of a pair takes no locks: the harness holds them for both.
    """
    case, settings, group = job.case, job.settings, job.group
    if group.count > 1:
        job.tell("waiting")
    machines = _machines(settings, group)
    if settings.compile_cores:
        cpu.bind(settings.compile_cores)
    devices.enter_context(device.load(case.device).attached(case, settings, lambda: job.tell("waiting")))

    if job.pace is not None:
        return

    def take(cores: List[int]) -> None:
        job.compiling.enter_context(locks.compiling(cores, lambda: job.tell("waiting")))

    _one_by_one(group, machines, take)


def to_time(job: Job, stack: contextlib.ExitStack, alone: bool) -> None:
    """Wait until all replicas have compiled and the case has the device, which it holds until `stack` ends.

    alone   no other case may be timed on other cores either
    """
    settings, timed = job.settings, device.load(job.case.device)
    if job.pace is None:
        job.tell("waiting")
    machines = _machines(settings, job.group)
    job.compiling.close()
    if settings.compile_cores:
        cpu.bind(settings.cores)
    if job.pace is not None:
        return
    shared = settings.parallel_timing and not alone
    _one_by_one(job.group, machines, lambda cores: stack.enter_context(timed.lease(cores if shared else [])))
    job.tell("timing")


def _machines(settings: Settings, group: Group) -> List[Tuple[str, List[int]]]:
    """Of each replica, its machine and the cores of all replicas on it; no cores if one of them is not bound."""
    replicas = group.all_gather([platform.node(), settings.cores])
    machines = []
    for machine, _ in replicas:
        cores_of = [cores for node, cores in replicas if node == machine]
        machines.append((machine, sorted({core for cores in cores_of for core in cores}) if all(cores_of) else []))
    return machines


def _one_by_one(group: Group, machines: List[Tuple[str, List[int]]], take: Callable[[List[int]], Any]) -> None:
    """The first replica of each machine takes the locks for all replicas on it. All runs go through the machines in the
    same order, so that two runs cannot wait for each other."""
    nodes = [node for node, _ in machines]
    for node in sorted(set(nodes)):
        if group.rank == nodes.index(node):
            take(machines[group.rank][1])
        group.all_gather("taken", no_timeout=True)

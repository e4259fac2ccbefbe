"""What is done around the clock: canaries before and after, peak memory, the load; and replicas that time together."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from typing import Any, Callable, Dict, List, Tuple

from bench.cases.case import Settings
from bench.clock import canary, conditions, frequency, memory, neighbours
from bench.clock.sampling import Samples, measure
from bench.group import Group
from bench.job import Job
from bench.program import Program, Step, throughput

# Before a canary on several cores: the threads of a framework, and of numpy's products, spin on after their last work.
SETTLE_S = 0.1


def beside_canaries(
    job: Job, working_set: float, timed: Callable[[], Tuple[Samples, Dict[str, Any]]]
) -> Tuple[Samples, Dict[str, Any]]:
    """Time a case between two canaries, of the kinds that it depends on.

    working_set   bytes of the case's data
    """
    load = os.getloadavg()[0]
    before, hz_before = _canary(job, working_set), frequency.hz()
    started_s, start_s = time.time(), time.perf_counter()
    resets = memory.forget_peak()
    others = neighbours.watch(job.settings.cores)
    samples, seen = timed()
    # The two sides of a pair are not others to each other: the harness, which knows both, adds their times.
    mine = None if job.pace else neighbours.others_percent(others())
    others_percent = max((share for share in job.group.all_gather(mine) if share is not None), default=None)
    seen = {**seen, "memory_peak_bytes": memory.peak_bytes() if resets else None, "others_percent": others_percent}
    ended_s, passed_s = time.time(), time.perf_counter() - start_s
    after, hz_after = _canary(job, working_set), frequency.hz()
    seen = {**seen, **canary.fields(before, after, job.canary_s or {}), "load_average_1min": load}
    seen["disturbed"] = seen["disturbed"] or (others_percent or 0) > neighbours.MOST_PERCENT
    seen["core_hz"] = max((hz for hz in (hz_before, hz_after) if hz), default=None)
    reasons = [*seen.get("invalid_reasons", ()), *conditions.of_samples(samples, others_percent)]
    reasons += conditions.of_machine(others_percent, passed_s, hz_before, hz_after)
    # Of all replicas: each has its own cores.
    every = job.group.all_gather(reasons)
    seen["invalid_reasons"] = list(dict.fromkeys(reason for reasons in every for reason in reasons))
    return samples, {**seen, "started_s": started_s, "ended_s": ended_s, "canary_s": canary.best(before, after)}


def _canary(job: Job, working_set: float) -> canary.Times:
    """Seconds of each kind of canary that a case depends on, of the replica where it is slowest; empty: none is known.

    Replicas take turns: two at once would slow each other down.
    """
    if job.canary_s is None:
        return {}
    if len(job.settings.cores) != 1:
        time.sleep(SETTLE_S)
    slowest: canary.Times = {}
    for rank in range(job.group.count):
        mine = rank == job.group.rank
        threads = job.settings.threads
        seconds = canary.seconds(threads, canary.kinds(threads, working_set), job.canary_s) if mine else {}
        for times in job.group.all_gather(seconds):
            slowest.update({kind: max(now_s, slowest.get(kind, 0.0)) for kind, now_s in times.items()})
    return slowest


def noting(program: Program, latencies: List[float]) -> Callable[[], None]:
    """`program.run`, which notes how long each of several batches in flight took."""
    run = program.run
    if program.batches_in_flight == 1:
        return run

    def noting() -> None:
        run()
        latencies.extend(program.latencies())

    return noting


def merged(samples: Samples, step: Step, group: Group) -> Tuple[Samples, Dict[str, Any]]:
    """The samples of all replicas as one: the longest time of each step; and the rate of each replica by itself."""
    if group.count == 1:
        return samples, {}
    every = group.all_gather(samples.seconds)
    longest = [max(step_s) for step_s in zip(*every)]
    section_s = max(group.all_gather(samples.section_s))
    own = step.items // group.count
    rates = [throughput(own, replace(samples, seconds=seconds).median_s) for seconds in every]
    return replace(samples, seconds=longest, section_s=section_s), {"replica_items_per_s": rates}


def all_reduce_share(program: Program, samples: Samples, settings: Settings) -> Dict[str, Any]:
    """The share of a step that replicas spend on the all-reduce of their gradients, from a few steps without it; zero
    if those were no faster."""
    group = program.group
    if group.count == 1:
        return {}
    few = replace(settings, steps=max(3, min(20, len(samples.seconds))))
    alone = measure(program.run_without_all_reduce, few, group=group)
    longest = [max(step_s) for step_s in zip(*group.all_gather(alone.seconds))]
    share = 1 - replace(alone, seconds=longest).median_s / samples.median_s
    return {"all_reduce_percent": 100 * max(0.0, share)}

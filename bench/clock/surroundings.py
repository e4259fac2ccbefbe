"""What is done around the clock: canaries before and after, peak memory, the load; and replicas that time together."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from typing import Any, Callable, Dict, List, Optional, Tuple

from bench.cases.case import Settings
from bench.clock import canary, memory
from bench.clock.sampling import Samples, measure
from bench.group import Group
from bench.program import Program, Step, throughput

# Before a canary: the threads of a framework, and of numpy's products, spin on after their last work.
SETTLE_S = 0.1


def beside_canaries(
    settings: Settings, canary_s: Any, timed: Callable[[], Tuple[Samples, Dict[str, Any]]]
) -> Tuple[Samples, Dict[str, Any]]:
    load = os.getloadavg()[0]
    before = _canary(settings, canary_s)
    started_s = time.time()
    resets = memory.forget_peak()
    samples, seen = timed()
    seen = {**seen, "memory_peak_bytes": memory.peak_bytes() if resets else None}
    ended_s = time.time()
    after = _canary(settings, canary_s)
    disturbed = max(before or 0, after or 0) > canary.DISTURBED
    seen = {**seen, "canary_slowdown_before": before, "canary_slowdown_after": after, "load_average_1min": load}
    return samples, {**seen, "disturbed": disturbed, "started_s": started_s, "ended_s": ended_s}


def _canary(settings: Settings, known_s: Optional[float]) -> Optional[float]:
    """The slowdown of the canary; None where no time of it is known."""
    if known_s is None:
        return None
    time.sleep(SETTLE_S)
    return canary.slowdown(settings.threads, known_s)


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
    """The share of a step that replicas spend on the all-reduce of their gradients, from a few steps without it."""
    group = program.group
    if group.count == 1:
        return {}
    few = replace(settings, steps=max(3, min(20, len(samples.seconds))))
    alone = measure(program.run_without_all_reduce, few, group=group)
    longest = [max(step_s) for step_s in zip(*group.all_gather(alone.seconds))]
    share = 1 - replace(alone, seconds=longest).median_s / samples.median_s
    return {"all_reduce_percent": 100 * share}

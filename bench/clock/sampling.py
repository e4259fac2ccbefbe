"""The clock: warm-up until steady, then samples until the noise or the time budget says stop.

Sample   seconds of one step, by perf_counter in the process that works; below 20 us several steps share
         a sample, and it is their mean
Steady   the median of a window of steps is no more than 5 % below that of the window before, which has
         half as many; at least two steps, at most two seconds or ten steps, whichever ends later
Noise    half the range of the medians of six consecutive blocks of samples, in percent of the median.
         If blocks were independent, that range would hold the true median in 31 of 32 cases. Rounds
         inside one process are not quite independent, and processes differ: read it as a lower bound
"""

from __future__ import annotations

import gc
import math
import statistics
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Callable, List

from bench.cases.case import Settings
from bench.clock.protocol import PROGRAMS
from bench.group import ALONE, Group

SAMPLE_S = 20e-6
STEADY = 0.05
WARMUP_S = 2.0
WARMUP_STEPS = 10
BLOCKS = 6
# With this noise, and a quarter of the time budget spent, more samples would not change what is read.
QUIET_PERCENT = 0.5


@dataclass(frozen=True)
class Samples:
    """Seconds of single steps, in order, and how they came about.

    section_s   what all of them took together, with what lies between two; 0: not known
    """

    seconds: List[float]
    steps_per_sample: int
    warmup_steps: int
    warmup_s: float
    steady: bool
    section_s: float = 0.0

    @property
    def median_s(self) -> float:
        return statistics.median(self.seconds)


def measure(
    run: Callable[[], None], settings: Settings, clock: Callable[[], float] = perf_counter, group: Group = ALONE
) -> Samples:
    """Time `run`, warmed up: exactly `settings.steps` samples where that is given, else adaptively.

    The members of a group take the same steps: each decision is that of all of them. They start together.
    Raises ValueError when the clock did not move.
    """
    program = PROGRAMS.get(settings.protocol)
    warm = _calls(run, program.warmup_calls, clock) if program else _warm_up(run, settings, clock, group)
    if warm.steps and not warm.step_s > 0:
        raise ValueError(f"a step took {warm.step_s} s; the clock did not move")
    alone = settings.steps or program
    inner = 1 if alone else max(group.all_gather(max(1, math.ceil(SAMPLE_S / max(warm.step_s, 1e-9)))))
    least = max(settings.min_rounds, program.dropped + 1 if program else 1)
    seconds: List[float] = []
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    group.all_gather("start")
    try:
        if settings.steps:
            section_s = _sample(run, inner, settings.steps, seconds, clock)
        else:
            settings = replace(settings, min_rounds=least)
            section_s = _sample_until_quiet(run, inner, warm.step_s, settings, seconds, clock, group)
    finally:
        if collecting:
            gc.enable()
    if not min(seconds) > 0:
        raise ValueError(f"a step took {min(seconds)} s; the clock did not move")
    return Samples(seconds, inner, warm.steps, warm.seconds, warm.steady, section_s)


def noise_percent(seconds: List[float]) -> float:
    """Half the range of the medians of consecutive blocks, in percent of the median; 0 for one sample."""
    blocks = min(BLOCKS, len(seconds))
    edges = [len(seconds) * i // blocks for i in range(blocks + 1)]
    medians = [statistics.median(seconds[a:b]) for a, b in zip(edges, edges[1:])]
    return 50 * (max(medians) - min(medians)) / statistics.median(seconds)


@dataclass(frozen=True)
class _Warm:
    step_s: float
    steps: int
    seconds: float
    steady: bool


def _calls(run: Callable[[], None], count: int, clock: Callable[[], float]) -> _Warm:
    """The warm-up of a program that makes so many calls before the first that it times."""
    window: List[float] = []
    _sample(run, 1, count, window, clock)
    return _Warm(window[-1] if window else 0.0, count, math.fsum(window), True)


def _warm_up(run: Callable[[], None], settings: Settings, clock: Callable[[], float], group: Group) -> _Warm:
    start = clock()
    steps, size, before = 0, 1, math.inf
    while True:
        window: List[float] = []
        _sample(run, 1, size, window, clock)
        steps += size
        now = statistics.median(window)
        steady = steps > 1 and now >= before * (1 - STEADY)
        elapsed = clock() - start
        spent = elapsed > WARMUP_S and steps >= WARMUP_STEPS
        if all(group.all_gather((steady or spent) and elapsed >= settings.min_warmup_s)):
            return _Warm(now, steps, elapsed, steady)
        before = now
        # Windows double, but none is to take more than a quarter of the time allowed.
        size = min(group.all_gather(max(1, min(2 * size, int(WARMUP_S / 4 / max(now, 1e-9)), 10000))))


def _sample(run: Callable[[], None], inner: int, count: int, seconds: List[float], clock: Callable[[], float]) -> float:
    """Append `count` samples. Returns the seconds that they took together, with what lies between two."""
    append = seconds.append
    began = clock()
    if inner == 1:
        for _ in range(count):
            start = clock()
            run()
            append(clock() - start)
        return clock() - began
    for _ in range(count):
        start = clock()
        for _ in range(inner):
            run()
        append((clock() - start) / inner)
    return clock() - began


def _sample_until_quiet(
    run: Callable[[], None],
    inner: int,
    step_s: float,
    settings: Settings,
    seconds: List[float],
    clock: Callable[[], float],
    group: Group,
) -> float:
    """Returns the seconds that all samples took together.

    step_s   what a step took in the warm-up; 0: there was none, and the first sample tells
    """
    start = clock()
    section_s, chunk = 0.0, 0
    while True:
        if step_s and not chunk:
            chunk = min(group.all_gather(max(1, min(1000, int(settings.max_time_s / 20 / max(step_s * inner, 1e-9))))))
        section_s += _sample(run, inner, chunk or 1, seconds, clock)
        step_s = step_s or seconds[0]
        elapsed = clock() - start
        if len(seconds) < settings.min_rounds:
            continue
        quiet = len(seconds) >= 10 * BLOCKS and noise_percent(seconds) <= QUIET_PERCENT
        if all(group.all_gather(elapsed >= settings.max_time_s or (quiet and elapsed >= settings.max_time_s / 4))):
            return section_s

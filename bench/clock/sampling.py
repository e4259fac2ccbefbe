"""The clock: warm-up until steady, then samples until the noise or the time budget says stop.

Sample   seconds of one step, by perf_counter in the process that works; below 20 us several steps share
         a sample, and it is their mean
Steady   the median of a window of steps is no more than 5 % below that of the window before, which has
         half as many; at least two steps, at most two seconds or ten steps, whichever ends later
Resumed  the members of a group have met after the warm-up; steps that are not counted follow, for 10 ms or one step
Noise    half the range of the medians of six consecutive blocks of samples, in percent of the median.
         If blocks were independent, that range would hold the true median in 31 of 32 cases. Rounds
         inside one process are not quite independent, and processes differ: read it as a lower bound
"""

from __future__ import annotations

import contextlib
import gc
import math
import statistics
import time
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter
from typing import Callable, Iterator, List, Optional, Tuple

from bench.cases.case import Settings
from bench.cases.errors import Invalid
from bench.clock import neighbours
from bench.clock.protocol import PROGRAMS
from bench.group import ALONE, Group
from bench.job import Pace

# The clock that no time server corrects.
_RAW: Optional[int] = getattr(time, "CLOCK_MONOTONIC_RAW", None)
second_clock: Callable[[], float] = time.monotonic if _RAW is None else partial(time.clock_gettime, _RAW)

SAMPLE_S = 20e-6
# Steps that are not counted, for at least so long, follow whatever comes between the warm-up and the first sample.
RESUME_S = 0.01
STEADY = 0.05
WARMUP_S = 2.0
WARMUP_STEPS = 10
BLOCKS = 6
# Fewer samples show no noise: two that happen to agree would look like a quiet case.
FEWEST = 5
# With this noise, and a quarter of the time budget spent, more samples would not change what is read.
QUIET_PERCENT = 0.5


@dataclass(frozen=True)
class Samples:
    """Seconds of single steps, in order, and how they came about.

    section_s   what all of them took together, with what lies between two; 0: not known
    by_clocks_s the time from the first to the last, or of all blocks, by the clock and by a second one; 0: not known
    use         of the cores, from the first block to the last; None: they were not timed in blocks, or it is not known
    """

    seconds: List[float]
    steps_per_sample: int
    warmup_steps: int
    warmup_s: float
    steady: bool
    section_s: float = 0.0
    by_clocks_s: Tuple[float, float] = (0.0, 0.0)
    use: Optional[neighbours.Use] = None

    @property
    def median_s(self) -> float:
        return statistics.median(self.seconds)


def measure(
    run: Callable[[], None],
    settings: Settings,
    clock: Callable[[], float] = perf_counter,
    group: Group = ALONE,
    uncounted: Optional[Callable[[], None]] = None,
    warmed_up: Callable[[], None] = lambda: None,
) -> Samples:
    """Time `run`, warmed up: exactly `settings.steps` samples where that is given, else adaptively.

    The members of a group take the same steps: each decision is that of all of them. They start together.
    `uncounted`, called after a pause, is `run` without what it notes; `warmed_up` is called between the warm-up and the
    first sample. Raises Invalid when the clock did not move.
    """
    program = PROGRAMS.get(settings.protocol)
    seconds: List[float] = []
    with _no_collection():
        warm = _calls(run, program.warmup_calls, clock) if program else _warm_up(run, settings, clock, group)
        if warm.steps and not warm.step_s > 0:
            raise Invalid(f"a step took {warm.step_s} s; the clock did not move")
        alone = settings.steps or program
        inner = 1 if alone else max(group.all_gather(_steps_per_sample(warm.step_s)))
        # A program that the suite re-creates made no other steps than its own.
        longest_s = 0.0 if program else max(group.all_gather(warm.step_s))
        resume = _Resume(uncounted or run, longest_s, clock)
        warmed_up()
        group.all_gather("start")
        resume.after_pause()
        began_s = second_clock(), clock()
        if settings.steps:
            section_s = _sample(run, inner, settings.steps, seconds, clock)
        else:
            least = max(settings.min_rounds, program.dropped + 1 if program else 1)
            section_s = _sample_until_quiet(
                run, inner, replace(settings, min_rounds=least), seconds, clock, group, resume
            )
        by_clocks_s = clock() - began_s[1], second_clock() - began_s[0]
    if not min(seconds) > 0:
        raise Invalid(f"a step took {min(seconds)} s; the clock did not move")
    before = warm.steps + resume.steps, warm.seconds + resume.seconds
    return Samples(seconds, inner, *before, warm.steady, section_s, by_clocks_s)


def measure_blocks(
    run: Callable[[], None],
    settings: Settings,
    pace: Pace,
    clock: Callable[[], float] = perf_counter,
    group: Group = ALONE,
    uncounted: Optional[Callable[[], None]] = None,
    warmed_up: Callable[[], None] = lambda: None,
) -> Samples:
    """Time `run`, warmed up, in blocks: one side of a pair. `pace` waits for the turn of this side.

    A step of a group takes as long as that of its slowest member. `uncounted` and `warmed_up` as in `measure`.
    """
    seconds: List[float] = []
    section_s, second_s, watch, use = 0.0, 0.0, None, None
    with _no_collection():
        warm = _warm_up(run, settings, clock, group)
        inner = max(group.all_gather(_steps_per_sample(warm.step_s)))
        resume = _Resume(uncounted or run, max(group.all_gather(warm.step_s)), clock)
        block = [inner * warm.step_s]
        warmed_up()
        while True:
            wanted = pace(block) if group.rank == 0 else 0
            count = group.all_gather(wanted, no_timeout=True)[0]
            if not count:
                break
            watch = watch or neighbours.watch(settings.cores)
            resume.after_pause()
            block = []
            began_s = second_clock()
            section_s += _sample(run, inner, count, block, clock)
            second_s += second_clock() - began_s
            block = [max(step_s) for step_s in zip(*group.all_gather(block))]
            seconds += block
            # Now, since the other side of the pair uses the cores once more when it ends.
            use = watch()
    if not min(seconds, default=0.0) > 0:
        raise Invalid(f"a step took {min(seconds, default=0.0)} s; the clock did not move")
    steps, warmup_s = warm.steps + resume.steps, warm.seconds + resume.seconds
    return Samples(seconds, inner, steps, warmup_s, warm.steady, section_s, (section_s, second_s), use)


def _steps_per_sample(step_s: float) -> int:
    return max(1, math.ceil(SAMPLE_S / max(step_s, 1e-9)))


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Collect garbage now, and then not before the end of the block."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def known_noise_percent(seconds: List[float]) -> Optional[float]:
    """The noise; None for so few samples that they do not show it."""
    return noise_percent(seconds) if len(seconds) >= FEWEST else None


def noise_percent(seconds: List[float]) -> float:
    """Half the range of the medians of consecutive blocks, in percent of the median; 0 for one sample."""
    medians = _medians(seconds, min(BLOCKS, len(seconds)))
    return 50 * (max(medians) - min(medians)) / statistics.median(seconds)


def _medians(seconds: List[float], blocks: int) -> List[float]:
    """The medians of consecutive blocks of about equal length."""
    edges = [len(seconds) * i // blocks for i in range(blocks + 1)]
    return [statistics.median(seconds[a:b]) for a, b in zip(edges, edges[1:])]


def drift_percent(seconds: List[float]) -> Optional[float]:
    """How much slower the last third of the samples is than the first, by their medians; None below FEWEST samples."""
    if len(seconds) < FEWEST:
        return None
    third = len(seconds) // 3
    return 100 * (statistics.median(seconds[-third:]) / statistics.median(seconds[:third]) - 1)


def goes_one_way(seconds: List[float]) -> bool:
    """Whether the medians of consecutive blocks only rise, or only fall: independent ones do so once in 360 cases."""
    medians = _medians(seconds, BLOCKS)
    pairs = list(zip(medians, medians[1:]))
    return all(a < b for a, b in pairs) or all(a > b for a, b in pairs)


def autocorrelation(seconds: List[float]) -> Optional[float]:
    """The correlation of the ranks of consecutive samples: 0 if they are independent, 1 if each is as the one before.
    None below FEWEST samples, and if all are equal."""
    if len(seconds) < FEWEST or min(seconds) == max(seconds):
        return None
    ranks = [0.0] * len(seconds)
    for rank, index in enumerate(sorted(range(len(seconds)), key=lambda index: seconds[index])):
        ranks[index] = rank - (len(seconds) - 1) / 2
    return math.fsum(a * b for a, b in zip(ranks, ranks[1:])) / math.fsum(rank * rank for rank in ranks)


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


class _Resume:
    """Steps that are not counted, after a pause in which caches and threads may have cooled down.

    step_s   seconds of a step, the same for all members of a group: they run equally many; 0: none is run
    """

    def __init__(self, run: Callable[[], None], step_s: float, clock: Callable[[], float]) -> None:
        self.run, self.clock = run, clock
        self.first = math.ceil(RESUME_S / max(step_s, 1e-6)) if step_s else 0
        self.later = int(RESUME_S / 10 / max(step_s, 1e-6)) if step_s else 0
        self.steps, self.seconds = 0, 0.0

    def after_pause(self) -> None:
        self._run(self.first)

    def between_chunks(self) -> None:
        self._run(self.later)

    def _run(self, steps: int) -> None:
        seconds: List[float] = []
        _sample(self.run, 1, steps, seconds, self.clock)
        self.steps += steps
        self.seconds += math.fsum(seconds)


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
    settings: Settings,
    seconds: List[float],
    clock: Callable[[], float],
    group: Group,
    resume: _Resume,
) -> float:
    """Sample in chunks that grow to a twentieth of the time budget, with a decision after each.

    Returns the seconds that all chunks took together.
    """
    start, chunk, section_s = clock(), 1, 0.0
    while True:
        begin = clock()
        section_s += _sample(run, inner, chunk, seconds, clock)
        now = clock()
        done = now - start >= settings.max_time_s
        if not done and now - start >= settings.max_time_s / 4 and len(seconds) >= 10 * BLOCKS:
            done = noise_percent(seconds) <= QUIET_PERCENT
        done = done and len(seconds) >= settings.min_rounds
        votes = group.all_gather((done, now - begin < settings.max_time_s / 40))
        if all(done for done, _ in votes):
            return section_s
        if all(short for _, short in votes):
            chunk = min(2 * chunk, 1000)
        resume.between_chunks()

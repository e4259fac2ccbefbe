"""Kernels of known time, run before and after a case: is the machine as fast as it was?

Each kind shows one way in which a neighbour slows a case down. They run on as many threads as the case has, on the
same cores. On a quiet machine each ends after a few rounds, of less than a millisecond:

    arithmetic   exponentials of numbers in the first cache, in vector units
    level2       negatives of numbers, from one quarter of a core's second cache to another
    level3       the largest of numbers in four times the second cache
    memory       the same in twice the last cache, a part for each thread
    latency      reads of single numbers anywhere in that memory
    threads      handing work to each thread and waiting for all

A case depends on the kinds up to the level that its data fit in. numpy releases the GIL in all of them; it is loaded
where they run.
"""

from __future__ import annotations

import itertools
import math
import os
import re
import statistics
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from time import perf_counter
from typing import Any, Callable, Dict, Iterable, Iterator, List, Mapping, Optional, Tuple

# Seconds of a round, by kind.
Times = Dict[str, float]

# What each kind is called in the table.
KINDS = {
    "arithmetic": "arithmetic",
    "level2": "the second cache",
    "level3": "the third cache",
    "memory": "the memory",
    "latency": "the latency of memory",
    "threads": "the start of threads",
}
# Rounds run a few at a time, until the median of a few is nearly as fast as is known: a neighbour that stays slows them
# all down. The shortest of single rounds says nothing: one start of threads in a hundred takes two thirds of the rest.
ROUNDS = 100
FEW = 5
NEARLY = 1.05
# A canary this much slower than the best that is known says that the machine is disturbed; more where UNSTEADY says so,
# of kinds that vary most on a quiet machine.
DISTURBED = 1.25
# The latency depends on the size of the pages that a process gets: in workers it read 1.5 to 1.8 on a quiet machine.
UNSTEADY = {"memory": 1.2, "threads": 1.2, "latency": 1.6}

# The numbers in the first cache, and how often a round reads them.
ROW_BYTES = 1 << 14
PAGE_BYTES = 1 << 12
ROWS = 32
# What a round writes to the second cache, and reads of the third. Rounds that only read the second cache take 34 or
# 64 us on an AMD EPYC (family 26, model 2), with nobody else there.
WRITTEN_BYTES = 1 << 22
READ_BYTES = 1 << 23
READS = 1 << 14
# What a round does: the times of another amount of work say nothing of it.
WORK = (ROW_BYTES, ROWS, WRITTEN_BYTES, READ_BYTES, READS)
# Sizes of the second and the last cache where the kernel does not tell, and what is measured of a very large one.
UNKNOWN_CACHES = (1 << 20, 1 << 25)
LARGEST_BYTES = 1 << 28


def kinds(threads: int, working_set: float) -> List[str]:
    """The kinds that a case depends on, by its threads and the bytes of its data."""
    second, last = caches()
    reached = ["level3"] if working_set > second else []
    reached += ["memory", "latency"] if working_set > last else []
    return ["arithmetic", "level2", *reached, *(["threads"] if threads > 1 else [])]


def seconds(threads: int, wanted: Iterable[str] = tuple(KINDS), known: Optional[Mapping[str, float]] = None) -> Times:
    """The time of a round, by kind: the shortest median of a few.

    known   the seconds of a round on the quiet machine, by kind: a few that take about as long are the last
    """
    cores = itertools.cycle(sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_setaffinity") else [-1])
    kernels = _kernels(threads, wanted)
    with ThreadPoolExecutor(threads, initializer=_bind, initargs=(cores,)) as pool:
        found = {}
        for kind in wanted:
            rounds = _starts(pool, threads) if kind == "threads" else _rounds(pool, *kernels[kind])
            found[kind] = _shortest(rounds, NEARLY * (known or {}).get(kind, 0.0))
        return found


def limit(kind: str) -> float:
    """The slowdown above which a kind says that the machine is disturbed."""
    return DISTURBED * UNSTEADY.get(kind, 1.0)


def slowdown(now: Mapping[str, float], known: Mapping[str, float]) -> Tuple[Optional[float], str]:
    """How many times slower than known the kind is that says most of a disturbance, and that kind; None and empty where
    none is known."""
    ratios = {kind: now_s / known[kind] for kind, now_s in now.items() if kind in known}
    kind = max(ratios, key=lambda kind: ratios[kind] / limit(kind), default="")
    return ratios.get(kind), kind


def fields(before: Times, after: Times, known: Times) -> Dict[str, Any]:
    """The fields of a record that say what the canaries saw before and after a case."""
    sides = [slowdown(before, known), slowdown(after, known)]
    worst, kind = max(sides, key=lambda side: (side[0] or 0.0) / limit(side[1]))
    return {
        "canary_slowdown_before": sides[0][0],
        "canary_slowdown_after": sides[1][0],
        "canary_kind": kind or None,
        "disturbed": (worst or 0.0) > limit(kind),
    }


def best(*occasions: Mapping[str, float]) -> Times:
    """The shortest time of each kind over several occasions."""
    seen = {kind: [times[kind] for times in occasions if kind in times] for kind in KINDS}
    return {kind: min(times) for kind, times in seen.items() if times}


def caches() -> Tuple[int, int]:
    """Bytes of a core's second cache and of the last cache."""
    sizes: Dict[int, int] = {}
    for folder in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        try:
            size = re.fullmatch(r"(\d+)K", (folder / "size").read_text().strip())
            if size and (folder / "type").read_text().strip() != "Instruction":
                sizes[int((folder / "level").read_text())] = int(size.group(1)) << 10
        except (OSError, ValueError):
            continue
    second, last = UNKNOWN_CACHES
    return sizes.get(2, second), max(sizes.values()) if set(sizes) & {2, 3, 4} else last


def _kernels(threads: int, wanted: Iterable[str]) -> Dict[str, Tuple[Callable[[Any], Any], List[Any]]]:
    """The function of each kind but threads, and its argument for each thread."""
    import numpy as np

    second, last = caches()
    whole = {"memory", "latency"} & set(wanted)
    memory = _ones(min(2 * last, LARGEST_BYTES) if whole else 4 * threads)
    copies = WRITTEN_BYTES // (second // 4)
    chance = np.random.default_rng(0)

    def rows(size: int, times: int) -> List[Any]:
        return [_repeated(_ones(size), times) for _ in range(threads)]

    return {
        "arithmetic": (
            lambda row_and_result: np.exp(row_and_result[0], out=row_and_result[1]),
            list(zip(rows(ROW_BYTES, ROWS), rows(ROW_BYTES, ROWS))),
        ),
        "level2": (
            lambda row_and_result: np.negative(row_and_result[0], out=row_and_result[1]),
            list(zip(rows(second // 4, copies), rows(second // 4, copies))),
        ),
        "level3": (np.max, rows(4 * second, READ_BYTES // (4 * second))),
        "memory": (np.max, np.array_split(memory, threads)),
        "latency": (memory.take, [chance.integers(0, memory.size, READS) for _ in range(threads)]),
    }


def _ones(size: int) -> Any:
    """Ones in `size` bytes that start at a page: to read a vector across two lines of the cache takes twice as long."""
    import numpy as np

    room: Any = np.ones(size // 4 + PAGE_BYTES // 4, np.float32)
    first = -room.ctypes.data % PAGE_BYTES // 4
    return room[first : first + size // 4]


def _repeated(row: Any, times: int) -> Any:
    """A matrix whose rows are all the same memory."""
    import numpy as np

    return np.lib.stride_tricks.as_strided(row, (max(1, times), row.size), (0, row.itemsize))


def _shortest(rounds: Iterator[List[float]], enough_s: float) -> float:
    """The shortest median of a few rounds until one is no longer than `enough_s`, or until ROUNDS have run."""
    shortest = math.inf
    for few in itertools.islice(rounds, ROUNDS // FEW):
        shortest = min(shortest, statistics.median(few))
        if shortest <= enough_s:
            break
    return shortest


def _rounds(pool: Executor, run: Callable[[Any], Any], arguments: List[Any]) -> Iterator[List[float]]:
    """Seconds of each round, a few at a time, on the slowest thread. Each thread times its own, so that its start does
    not count."""

    def timed(argument: Any) -> List[float]:
        times = []
        for _ in range(FEW):
            start = perf_counter()
            run(argument)
            times.append(perf_counter() - start)
        return times

    list(pool.map(run, arguments))
    while True:
        yield [max(times) for times in zip(*pool.map(timed, arguments))]


def _starts(pool: Executor, threads: int) -> Iterator[List[float]]:
    """Seconds to hand work to every thread and to wait for all, a few at a time."""
    list(pool.map(int, threads * [0]))
    while True:
        times = []
        for _ in range(FEW):
            start = perf_counter()
            list(pool.map(int, threads * [0]))
            times.append(perf_counter() - start)
        yield times


def _bind(cores: Iterator[int]) -> None:
    """Bind this thread to the next core: new threads start on one core together, and look twice as slow
    until the kernel has spread them."""
    core = next(cores)
    if core >= 0:
        os.sched_setaffinity(0, [core])

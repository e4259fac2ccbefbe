"""A kernel of known time, run before and after every case: is the machine as fast as it was?

A whole matrix was once measured four times too slow with nothing to show it. The canary hashes a fixed
buffer on as many threads as the case has (hashlib releases the GIL), on the same cores, so that a busy
neighbour on any of them shows. It needs no framework.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import statistics
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import Iterator, List

BUFFER = bytes(1 << 20)
ROUNDS = 9
# A canary this much slower than the best one known says that the machine is disturbed.
DISTURBED = 1.5


def seconds(threads: int) -> List[float]:
    """Seconds of each of a few rounds; a round hashes one buffer a thread, side by side."""
    rounds = []
    cores = itertools.cycle(sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_setaffinity") else [-1])
    with ThreadPoolExecutor(threads, initializer=_settle, initargs=(cores,)) as pool:
        list(pool.map(_hash, range(threads)))
        for _ in range(ROUNDS):
            start = perf_counter()
            list(pool.map(_hash, range(threads)))
            rounds.append(perf_counter() - start)
    return rounds


def slowdown(threads: int, known_s: float) -> float:
    """How many times slower than known the canary is now, by its median."""
    return statistics.median(seconds(threads)) / known_s


def _settle(cores: Iterator[int]) -> None:
    """Bind this thread to the next core: new threads start on one core together, and look twice as slow
    until the kernel has spread them."""
    core = next(cores)
    if core >= 0:
        os.sched_setaffinity(0, [core])


def _hash(_: int) -> bytes:
    return hashlib.sha256(BUFFER).digest()

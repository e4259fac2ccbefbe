"""What the harness costs: its rate against a bare perf_counter loop, and lowered layers against idioms.

    python scripts/harness_cost.py [--repeats 10] [--only cost|idioms]

Both sides of every ratio run in one process, in turn (A B B A), and the median over the repeats is shown
with its range. `cost` times a spin of known length through bench.clock.sampling and through a bare loop. `idioms`
times what the suite makes of a layer against what a user of the framework would write by hand; each
framework has a process of its own.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from pathlib import Path
from time import perf_counter
from typing import Any, Callable, List

ROOT = Path(__file__).resolve().parent.parent
SPINS_S = (50e-6, 1e-3, 20e-3)
BACKENDS = ("torch", "tensorflow", "onnxruntime", "openvino")
BATCH = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--only", choices=("cost", "idioms"))
    parser.add_argument("--backend", help=argparse.SUPPRESS)
    given = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    if given.backend:
        idioms(given.backend, given.repeats)
        return
    if given.only != "idioms":
        cost(given.repeats)
    if given.only != "cost":
        for backend in BACKENDS:
            command = [sys.executable, __file__, "--backend", backend, "--repeats", str(given.repeats)]
            subprocess.run(
                command, check=False, env={**os.environ, "OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "2"}
            )


def bare(run: Callable[[], Any], seconds: float) -> float:
    """The median step of a loop as one would write it, in seconds."""
    samples: List[float] = []
    end = perf_counter() + seconds
    while perf_counter() < end:
        start = perf_counter()
        run()
        samples.append(perf_counter() - start)
    return statistics.median(samples)


def harness(run: Callable[[], Any], seconds: float) -> float:
    """The median step as the suite measures it, in seconds."""
    from bench.cases.case import Settings
    from bench.clock.sampling import measure

    return measure(run, Settings(max_time_s=seconds)).median_s


def cost(repeats: int) -> None:
    print("harness / bare loop, rate of a spin of known length (1 = no cost)")
    for spin_s in SPINS_S:
        run = spin(spin_s)
        seconds = max(0.2, 20 * spin_s)
        ratios = paired(lambda r=run, s=seconds: bare(r, s), lambda r=run, s=seconds: harness(r, s), repeats)
        show(f"{spin_s * 1e6:.0f} us", ratios)


def spin(seconds: float) -> Callable[[], None]:
    """A step of fixed work that takes about so long: sums, so that no clock is read inside."""
    numbers = range(max(1, int(seconds / per_number())))
    return lambda: sum(numbers) and None  # type: ignore[func-returns-value]


def per_number() -> float:
    numbers = range(100_000)
    times = []
    for _ in range(20):
        start = perf_counter()
        sum(numbers)
        times.append(perf_counter() - start)
    return min(times) / len(numbers)


def paired(theirs: Callable[[], float], ours: Callable[[], float], repeats: int) -> List[float]:
    """Ratios theirs / ours of median steps, so ours / theirs of rates, in alternating order."""
    ratios = []
    for turn in range(repeats):
        if turn % 2:
            a, b = theirs(), ours()
        else:
            b, a = ours(), theirs()
        ratios.append(a / b)
    return ratios


def show(name: str, ratios: List[float]) -> None:
    print(f"  {name:44} {statistics.median(ratios):.3f}   ({min(ratios):.3f} to {max(ratios):.3f})", flush=True)


def idioms(backend: str, repeats: int) -> None:
    from scripts import idioms as written

    print(f"lowered / hand-written idiom, rate, {backend} (batch {BATCH})", flush=True)
    for name, lowered, by_hand in written.pairs(backend, BATCH):
        for run in (lowered, by_hand, lowered, by_hand):
            bare(run, 0.1)
        show(name, paired(lambda r=by_hand: bare(r, 0.3), lambda r=lowered: bare(r, 0.3), repeats))


if __name__ == "__main__":
    main()

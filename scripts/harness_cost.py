"""Measures the cost of the harness against a plain loop, and lowered layers against hand-written code.

    python scripts/harness_cost.py [--repeats 10] [--only cost|idioms]

Both sides of each ratio run in one process, in turn (A B B A). The output is the median and range over the repeats.
`cost` times a spin loop of known length with bench.clock.sampling and with a plain loop. `idioms` times the suite's
program of a layer against hand-written code. Each framework has its own process.
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
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    if options.backend:
        idioms(options.backend, options.repeats)
        return
    if options.only != "idioms":
        cost(options.repeats)
    if options.only != "cost":
        for backend in BACKENDS:
            command = [sys.executable, __file__, "--backend", backend, "--repeats", str(options.repeats)]
            subprocess.run(
                command, check=False, env={**os.environ, "OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "2"}
            )


def bare(run: Callable[[], Any], seconds: float) -> float:
    """The median step of a plain loop, in seconds."""
    samples: List[float] = []
    end = perf_counter() + seconds
    while perf_counter() < end:
        start = perf_counter()
        run()
        samples.append(perf_counter() - start)
    return statistics.median(samples)


def harness(run: Callable[[], Any], seconds: float) -> float:
    """The median step that the suite measures, in seconds."""
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
    """A step of fixed work that takes about this time. It adds numbers and reads no clock."""
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


def paired(first: Callable[[], float], second: Callable[[], float], repeats: int) -> List[float]:
    """The ratios first / second of median steps, measured in alternating order. They are second / first of rates."""
    ratios = []
    for turn in range(repeats):
        if turn % 2:
            a, b = first(), second()
        else:
            b, a = second(), first()
        ratios.append(a / b)
    return ratios


def show(name: str, ratios: List[float]) -> None:
    print(f"  {name:44} {statistics.median(ratios):.3f}   ({min(ratios):.3f} to {max(ratios):.3f})", flush=True)


def idioms(backend: str, repeats: int) -> None:
    from scripts import idioms as idioms_of_layers

    print(f"lowered / hand-written idiom, rate, {backend} (batch {BATCH})", flush=True)
    for name, lowered, by_hand in idioms_of_layers.pairs(backend, BATCH):
        for run in (lowered, by_hand, lowered, by_hand):
            bare(run, 0.1)
        show(name, paired(lambda r=by_hand: bare(r, 0.3), lambda r=lowered: bare(r, 0.3), repeats))


if __name__ == "__main__":
    main()

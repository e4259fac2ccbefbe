"""Simulate how often flat series have a change point, and how soon a step is found.

python -m scripts.change_point_rates                 the rates, as docs/history.md has them
python -m scripts.change_point_rates --of PATH       those of series that are resampled from real runs
python -m scripts.change_point_rates --thresholds    the thresholds of bench/results/change_points.py
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any, Callable, Dict, List

import numpy as np

from bench.report import history
from bench.results import change_points as search
from bench.results import pair_file
from bench.results.pair import BASE, COUNTED, RATE

RUNS = 100
# A step comes after so many runs.
BEFORE = 50
STEP = math.log(0.95)
# Consecutive runs that are resampled together, since they are alike.
BLOCK = 5
Draw = Callable[[np.random.Generator, int], Any]


def normal(random: np.random.Generator, count: int) -> Any:
    return random.normal(0, 1, count)


def heavy_tailed(random: np.random.Generator, count: int) -> Any:
    """Student's t with three degrees of freedom, with a standard deviation of 1."""
    return random.standard_t(3, count) / math.sqrt(3)


def correlated(random: np.random.Generator, count: int) -> Any:
    """AR(1) with a correlation of 0.3 and a standard deviation of 1."""
    values = random.normal(0, 1, count)
    for index in range(1, count):
        values[index] = 0.3 * values[index - 1] + math.sqrt(1 - 0.3**2) * values[index]
    return values


def two_modes(random: np.random.Generator, count: int) -> Any:
    """Three runs in ten are eight standard deviations slower, by chance."""
    return random.normal(0, 1, count) - 8 * (random.random(count) < 0.3)


KINDS: Dict[str, Draw] = {
    "normal": normal,
    "heavy-tailed (t, 3 degrees)": heavy_tailed,
    "correlated (AR(1), 0.3)": correlated,
    "two modes (30 % of runs 8 sd slower)": two_modes,
}


def false_alarms(draw: Draw, series: int, noise: float = 0.01, random: Any = None) -> float:
    """Return the share of flat series that have a change point, in one look at all runs."""
    random = random or np.random.default_rng(0)
    return sum(bool(search.change_points(noise * draw(random, RUNS))) for _ in range(series)) / series


def false_alarms_in_looks(draw: Draw, series: int, noise: float = 0.01) -> float:
    """Return the share of flat series that had a change point in any look: one after each run from the 20th."""
    random = np.random.default_rng(1)
    found = 0
    for _ in range(series):
        values = noise * draw(random, RUNS)
        found += any(search.change_points(values[:count]) for count in range(20, RUNS + 1))
    return found / series


def found_within(draw: Draw, noise: float, runs: int, series: int) -> float:
    """Return the share of series in which a step of 5 % is found, at most two runs off, `runs` runs after it."""
    random = np.random.default_rng(2)
    found = 0
    for _ in range(series):
        values = noise * draw(random, BEFORE + runs)
        values[BEFORE:] += STEP
        points = search.change_points(values)
        found += any(abs(point.index - BEFORE) <= 2 and point.size < 0 for point in points)
    return found / series


def of_autosaves(folder: Path) -> List[Any]:
    """Return the logarithms of the rates of each case, by run, from a folder of autosaves."""
    return [np.log(series.points["rate"][series.counted]) for series in history.read([folder]).series]


def of_pairs(path: Path) -> List[Any]:
    """Return the logarithms of the rates of each case, by process, from a file of pairs: those of the other side, which
    a self-check does not slow down."""
    found: Dict[str, List[float]] = {}
    for pair in pair_file.load(path):
        if pair.outcome == COUNTED:
            blocks = [value for unit in pair.units for value in unit["blocks"][BASE][RATE]]
            found.setdefault(pair.case, []).append(-float(np.mean(np.log(blocks))))
    return [np.array(values) for values in found.values()]


def resampled(path: Path, first: int) -> Draw:
    """Return a draw of series from the first runs of real cases: blocks of consecutive runs of one case, by chance.

    The series are flat, since each block has its chance of every place. They are logarithms, not scaled by a noise.
    """
    every = of_autosaves(path) if path.is_dir() else of_pairs(path)
    real = [values[:first] for values in every if len(values) >= first]
    print(f"{len(real)} cases with {first} runs, steps in {sum(bool(search.change_points(each)) for each in real)}:")
    print("  standard deviations " + ", ".join(f"{100 * search.noise_of(each).deviation:.2g} %" for each in real))

    def draw(random: np.random.Generator, count: int) -> Any:
        values = real[random.integers(len(real))]
        starts = random.integers(0, len(values) - BLOCK + 1, -(-count // BLOCK))
        return np.concatenate([values[start : start + BLOCK] for start in starts])[:count]

    return draw


def largest(values: Any) -> float:
    """Return the largest statistic of a series over all intervals and splits."""
    noise = search.noise_of(values)
    return max(
        float(search._best_splits(values[starts[:, None] + np.arange(length)], noise)[1].max())
        for starts, length in search._seeded(len(values))
    )


def print_thresholds(series: int) -> None:
    random = np.random.default_rng(3)
    for count in search.THRESHOLDS:
        # Long series take longer, and vary less.
        number = max(200, series // max(1, count // 200))
        statistics = [largest(random.normal(0, 0.01, count)) for _ in range(number)]
        quantile = np.quantile(statistics, 1 - search.FALSE_ALARM)
        print(f"{count} values: {quantile:.2f} ({number} series; in use: {search.THRESHOLDS[count]})", flush=True)


def print_resampled(path: Path, first: int, series: int) -> None:
    draw = resampled(path, first)
    print(f"{series} series of {RUNS} runs, made of blocks of {BLOCK} consecutive runs:")
    print(f"  with a change point: {100 * false_alarms(draw, series, 1.0):.3g} %")
    shares = [f"{100 * found_within(draw, 1.0, runs, series):.3g} %" for runs in (3, 5, 10)]
    print(f"  a step of 5 % found within 3, 5 and 10 runs: {', '.join(shares)}")


def print_rates(series: int) -> None:
    print(f"flat series of {RUNS} runs with a change point, one look at {series} and a look a run at {series // 10}:")
    for name, draw in KINDS.items():
        rates = false_alarms(draw, series), false_alarms_in_looks(draw, series // 10)
        print(f"  {name}: {100 * rates[0]:.2g} %, {100 * rates[1]:.2g} %", flush=True)
    print(f"a step of 5 % after {BEFORE} runs, found within 3, 5 and 10 runs, of {series}:")
    for name, draw in KINDS.items():
        for noise in (0.01, 0.02) if draw is not two_modes else (0.01,):
            shares = [f"{100 * found_within(draw, noise, runs, series):.3g} %" for runs in (3, 5, 10)]
            print(f"  {name}, noise {100 * noise:g} %: {', '.join(shares)}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--thresholds", action="store_true")
    parser.add_argument("--series", type=int, default=1000, help="series of each kind (default: 1000)")
    parser.add_argument(
        "--of", type=Path, metavar="PATH", help="a folder of autosaves, or the file of pairs of a self-check"
    )
    parser.add_argument("--first", type=int, default=30, help="the runs of each case that count (default: 30)")
    given = parser.parse_args()
    if given.of:
        print_resampled(given.of, given.first, given.series)
    else:
        (print_thresholds if given.thresholds else print_rates)(given.series)

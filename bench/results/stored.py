"""The verdict of fresh processes against a stored set of processes, by their order alone.

Rule        slower if every fresh process lies below every stored one, and the median change is at least half the budget
Same        if the stored processes, moved to either end of the budget, would all lie beyond every fresh one
False alarm 1 / C(K + k, k) for K stored and k fresh processes, whatever the noise: 0.35 % for 10 and 3. The processes
            must be exchangeable: processes of a single occasion are not, since occasions drift
Source      the order of two samples: F. Wilcoxon, Individual comparisons by ranking methods, Biometrics Bull. 1 (1945),
            at its most extreme rank sum; the interval inverts it
"""

from __future__ import annotations

import math
import statistics
from statistics import NormalDist
from typing import List, Sequence, Tuple

from bench.results.pairs import all_below
from bench.results.verdict import FASTER, SAME, SLOWER, UNDECIDED, Verdict, margin

STORED_LEAST = 10
FRESH_LEAST = 3
OCCASIONS_LEAST = 3
# A process belongs to a new occasion if it started so long after the one before.
OCCASION_GAP_S = 2 * 3600.0


def judge_stored(
    stored: Sequence[Tuple[float, float]],
    fresh: Sequence[float],
    budget_percent: float = 5.0,
    higher_is_better: bool = True,
) -> Verdict:
    """Return the verdict of the medians of fresh processes against those of stored processes.

    stored   the start of each process, in seconds of one clock, and its median of the metric
    fresh    the median of each fresh process

    Raises ValueError if a median is not a positive number.
    """
    sign = 1 if higher_is_better else -1
    base = [sign * value for value in _logarithms("stored", [value for _, value in stored])]
    now = [sign * value for value in _logarithms("fresh", fresh)]
    budget = margin(budget_percent, higher_is_better)
    reason = lack([when_s for when_s, _ in stored]) or (
        f"{len(now)} fresh processes, it takes {FRESH_LEAST}" if len(now) < FRESH_LEAST else ""
    )
    if not base or not now:
        return Verdict(UNDECIDED, len(now), "fresh processes", budget_percent, 0.0, reason)
    error = all_below(len(base), len(now))
    low, high = min(now) - max(base), max(now) - min(base)
    estimate = statistics.median(new - old for new in now for old in base)
    kind = UNDECIDED if reason else _kind(low, high, estimate, budget)
    spread = statistics.stdev(base) if len(base) > 1 else None
    return Verdict(
        kind,
        len(now),
        "fresh processes",
        budget_percent,
        0.0 if reason else error,
        reason or ("the processes spread too far" if kind == UNDECIDED else ""),
        estimate=sign * estimate,
        interval=(low, high) if higher_is_better else (-high, -low),
        confidence=1 - 2 * error,
        spread=spread,
        smallest=None if spread is None else -sign * max(budget, _seen(len(base), len(now)) * spread),
    )


def occasions(starts_s: Sequence[float]) -> int:
    """Return on how many occasions processes were measured: their starts are at least two hours apart."""
    ordered = sorted(starts_s)
    return len(ordered[:1]) + sum(after - before >= OCCASION_GAP_S for before, after in zip(ordered, ordered[1:]))


def _kind(low: float, high: float, estimate: float, budget: float) -> str:
    """What an interval of log ratios says, higher is better. Within the budget is same, even if it is not zero."""
    if -budget < low and high < budget:
        return SAME
    if high < 0 and estimate <= -budget / 2:
        return SLOWER
    return FASTER if low > 0 and estimate >= budget / 2 else UNDECIDED


def lack(starts_s: Sequence[float]) -> str:
    """Why the rule may not decide with stored processes of these starts; empty: it may."""
    if len(starts_s) < STORED_LEAST:
        return f"{len(starts_s)} processes are stored, it takes {STORED_LEAST}"
    if occasions(starts_s) < OCCASIONS_LEAST:
        return f"the stored processes are of {occasions(starts_s)} occasions, it takes {OCCASIONS_LEAST}, hours apart"
    return ""


def _seen(stored: int, fresh: int) -> float:
    """Return the change that is seen 9 times in 10 with normal noise, in standard deviations of a process.

    The lowest of K and the highest of k are expected at Blom's scores. Their distance has a standard deviation of 0.94.
    """
    normal = NormalDist()
    expected = sum(normal.inv_cdf((count - 0.375) / (count + 0.25)) for count in (stored, fresh))
    return expected + 0.94 * normal.inv_cdf(0.9)


def _logarithms(name: str, values: Sequence[float]) -> List[float]:
    for value in values:
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"the median of a {name} process is {value}; it must be a positive number")
    return [math.log(value) for value in values]

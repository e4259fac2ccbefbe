"""What a self-check found: how often this machine's comparisons are wrong without a change, and what they see of one.

Comparison   one verdict over the pairs of one case, as a run with --against reaches it
False        slower or faster although nothing was changed
Detected     slower, and the step of this side was slowed down
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from bench.results.comparison import Comparisons, Store
from bench.results.pair import COUNTED, Pair
from bench.results.pairs import PLANS, STORE_LEAST
from bench.results.verdict import FASTER, SLOWER, UNDECIDED, percent

# Percent by which the step of this side is slowed down.
SLOWDOWNS = (2.0, 5.0, 10.0, 20.0)
# A comparison of each slow-down comes after the first comparison without one, and after every twelfth from there.
EVERY = 12
CONFIDENCE = 0.95


class Part(NamedTuple):
    """One comparison of each case, with this slow-down in percent. `number` counts those with the same."""

    slowdown: float
    number: int

    @property
    def before(self) -> int:
        """The number of comparisons without a change that come before this one."""
        return self.number * EVERY + 1 if self.slowdown else self.number


class Counts(NamedTuple):
    """The comparisons of one case with one slow-down.

    seconds   of the pairs of one, the median; None: there was none
    """

    comparisons: int
    slower: int
    faster: int
    undecided: int
    seconds: Optional[float]


@dataclass(frozen=True)
class Findings:
    """What was found of one case.

    counts     by slow-down, in percent
    spread     standard deviation of the log ratios of the pairs without a change; None for fewer than two
    smallest   percent of the smallest loss that is seen 9 times in 10 with this spread; not below the budget
    """

    counts: Mapping[float, Counts]
    spread: Optional[float]
    smallest: Optional[float]


def parts(count: int) -> List[Part]:
    """The comparisons of a self-check, in order: `count` without a change."""
    found = []
    for index in range(count):
        found.append(Part(0.0, index))
        if index % EVERY == 0:
            found += [Part(slowdown, index // EVERY) for slowdown in SLOWDOWNS]
    return found


def of_part(pairs: Iterable[Pair], part: Part) -> List[Pair]:
    return [pair for pair in pairs if (pair.slowdown, pair.comparison) == part]


def store(pairs: Iterable[Pair], before: int) -> Dict[str, Store]:
    """The pairs without a change of the comparisons before one, by case: what its early look is held against."""
    unchanged = [pair for pair in pairs if not pair.slowdown and pair.comparison < before and pair.outcome == COUNTED]
    cases = {pair.case for pair in unchanged}
    stores = {case: Store.of([pair for pair in unchanged if pair.case == case]) for case in cases}
    return {case: found for case, found in stores.items() if len(found.ratios) >= STORE_LEAST}


def findings(judged: Sequence[Tuple[Part, Comparisons]], last: int) -> Dict[str, Findings]:
    """What was found of each case, from the comparisons that have ended."""
    found = {}
    for case in {case for _, comparisons in judged for case in comparisons.budgets}:
        counts = {
            slowdown: _counts([each for part, each in judged if part.slowdown == slowdown], case)
            for slowdown in (0.0, *SLOWDOWNS)
        }
        unchanged = [
            pair.log_ratios["rate"]
            for part, comparisons in judged
            for pair in comparisons.counted(case)
            if not part.slowdown
        ]
        spread = statistics.stdev(unchanged) if len(unchanged) > 1 else None
        budget = next(each.budgets[case]["rate"] for _, each in judged if case in each.budgets)
        smallest = None if spread is None else max(budget, -percent(-PLANS[last].slower * spread))
        found[case] = Findings(counts, spread, smallest)
    return found


def false_runs(judged: Sequence[Tuple[Part, Comparisons]]) -> Tuple[int, int]:
    """The runs without a change, each a comparison of all cases, in which any was slower or faster; and all of them."""
    runs = [comparisons.verdicts().values() for part, comparisons in judged if not part.slowdown]
    return sum(any(verdict.kind in (SLOWER, FASTER) for verdict in verdicts) for verdicts in runs), len(runs)


def highest_rate(events: int, trials: int) -> float:
    """The highest rate of events that is compatible with so few of them, with 95 % confidence (Clopper and Pearson).

    Source   C. J. Clopper and E. S. Pearson, The use of confidence or fiducial limits, Biometrika 26 (1934)
    """
    if events >= trials:
        return 1.0

    def at_most(rate: float) -> float:
        terms = (math.comb(trials, k) * rate**k * (1 - rate) ** (trials - k) for k in range(events + 1))
        return math.fsum(terms)

    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if at_most(middle) > 1 - CONFIDENCE else (low, middle)
    return high


def plain(found: Mapping[str, Findings], runs: Tuple[int, int], when_s: float) -> Dict[str, Any]:
    """The findings as plain data, for the cache and for a file."""
    unchanged = [each.counts[0.0] for each in found.values()]
    return {
        "when_s": when_s,
        "comparisons": sum(counts.comparisons for counts in unchanged),
        "false": sum(counts.slower + counts.faster for counts in unchanged),
        "runs": runs[1],
        "false_runs": runs[0],
        "cases": {
            case: {
                "counts": {f"{slowdown:g}": counts._asdict() for slowdown, counts in each.counts.items()},
                "spread": each.spread,
                "smallest_percent": each.smallest,
            }
            for case, each in found.items()
        },
    }


def _counts(comparisons: Sequence[Comparisons], case: str) -> Counts:
    kinds, seconds = [], []
    for each in comparisons:
        if case in each.budgets and each.pairs[case]:
            kinds.append(each.verdicts()[case].kind)
            seconds.append(sum(pair.seconds for pair in each.pairs[case]))
    median_s = statistics.median(seconds) if seconds else None
    return Counts(len(kinds), kinds.count(SLOWER), kinds.count(FASTER), kinds.count(UNDECIDED), median_s)

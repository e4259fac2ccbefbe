"""One case in one pair: what both sides took, as plain data, and the log ratios of its metrics.

Block       the steps that one side takes in a row, while the other is stopped
Unit        four blocks, base candidate candidate base or the reverse: a drift over the unit cancels out
Log ratio   ln(candidate / base). That of a unit comes from the mean of the logarithms of each side's two blocks, that
            of the pair is the median over its units
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence

from bench.results.fields import nearest_rank

BASE, CANDIDATE = "base", "candidate"
SIDES = (BASE, CANDIDATE)
# The letter of a side in the order of a unit's blocks.
LETTERS = {"A": BASE, "B": CANDIDATE}
# What is stored of a block: the seconds of a step, by each statistic.
STATISTICS: Dict[str, Callable[[Sequence[float]], float]] = {
    "lower_quartile": lambda seconds: nearest_rank(sorted(seconds), 0.25),
    "median": statistics.median,
    "minimum": min,
    "mean": statistics.fmean,
    "p90": lambda seconds: nearest_rank(sorted(seconds), 0.9),
}
# The one by which a rate is compared: that of the steps which nothing delayed.
RATE = "lower_quartile"
COUNTED, DISTURBED, FAILED = "counted", "disturbed", "failed"


class Metric(NamedTuple):
    """What is compared.

    higher_is_better   true for a rate
    statistic          that of a block's steps; empty: it is a field of the records
    field              of the records; empty: it comes from the blocks
    """

    higher_is_better: bool
    statistic: str = ""
    field: str = ""


METRICS = {
    "rate": Metric(True, statistic=RATE),
    "mean_rate": Metric(True, statistic="mean"),
    "p99": Metric(False, field="latency_p99_s"),
    "memory": Metric(False, field="memory_case_bytes"),
    "compile": Metric(False, field="compile_s"),
    "first_step": Metric(False, field="first_step_s"),
}


@dataclass(frozen=True)
class Unit:
    """Four blocks. `blocks` has, by side and statistic, the values of its two blocks in order."""

    order: str
    blocks: Mapping[str, Mapping[str, List[float]]]

    def log_ratio(self, statistic: str) -> float:
        """ln(candidate / base) of the rate, by a statistic of the blocks' steps."""
        base, candidate = (statistics.fmean(map(math.log, self.blocks[side][statistic])) for side in SIDES)
        return base - candidate


@dataclass(frozen=True)
class Pair:
    """One case in one pair.

    case, pair, attempt   the case's id, the index of the pair, and how often it was repeated before
    outcome    counted, disturbed or failed; `reason`: why it does not count
    side       the side that failed; `kind`: the kind of its reply
    log_ratios ln(candidate / base) by metric; those without a value on both sides are missing
    records    by side; empty if it failed
    started_s, seconds   when it started, and how long it took with both compilations
    slowdown, comparison   of a self-check: percent by which the candidate was slowed down, and index of the comparison
    """

    case: str
    pair: int
    attempt: int
    outcome: str
    reason: str = ""
    side: str = ""
    kind: str = ""
    log_ratios: Mapping[str, float] = field(default_factory=dict)
    units: Sequence[Mapping[str, Any]] = field(default_factory=list)
    records: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    started_s: float = 0.0
    seconds: float = 0.0
    slowdown: float = 0.0
    comparison: int = 0

    def plain(self) -> Dict[str, Any]:
        return dict(vars(self))


def spread_of_units(pair: Pair) -> float:
    """Standard deviation of the log ratios of the units of a pair: how noisy it was in itself."""
    ratios = [Unit(each["order"], each["blocks"]).log_ratio(RATE) for each in pair.units]
    return statistics.stdev(ratios) if len(ratios) > 1 else 0.0


def unit(order: str, seconds: Sequence[Sequence[float]]) -> Unit:
    """A unit from the seconds of its four blocks, in the order in which they were timed."""
    by_side: Dict[str, List[Sequence[float]]] = {side: [] for side in SIDES}
    for letter, block in zip(order, seconds):
        by_side[LETTERS[letter]].append(block)
    values = {
        side: {name: [of(block) for block in blocks] for name, of in STATISTICS.items()}
        for side, blocks in by_side.items()
    }
    return Unit(order, values)


def log_ratios(units: Sequence[Unit], records: Mapping[str, Mapping[str, Any]]) -> Dict[str, float]:
    """The log ratio of each metric; without those that a side has no positive value for."""
    ratios = {}
    for name, metric in METRICS.items():
        ratio = _of_units(units, metric.statistic) if metric.statistic else _of_records(records, metric.field)
        if ratio is not None:
            ratios[name] = ratio
    return ratios


def _of_units(units: Sequence[Unit], statistic: str) -> float:
    return statistics.median(each.log_ratio(statistic) for each in units)


def _of_records(records: Mapping[str, Mapping[str, Any]], name: str) -> Optional[float]:
    base, candidate = (records[side].get(name) for side in SIDES)
    return math.log(candidate / base) if base and candidate and base > 0 and candidate > 0 else None

"""The comparison of two sides over the cases of a run: which cases need another pair, and what became of each.

Its state is the pairs alone, so that a run that was interrupted goes on from the pairs that it has stored.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import Dict, List, Mapping, Optional, Sequence, Tuple

from bench.results import pairs
from bench.results.pair import COUNTED, DISTURBED, METRICS, Pair, spread_of_units
from bench.results.pairs import STORE_LOOK, Comparison
from bench.results.verdict import FASTER, SAME, SLOWER, UNDECIDED, Verdict

BROKEN = "broken"
# Pairs that are noisier than those of the store by this factor are not held against it.
NOISIER = 1.5
# A disturbed pair is repeated so often, and one in which a process died.
DISTURBED_REPEATS, DIED_REPEATS = 3, 1
# Replies after which a repetition may succeed.
PASSING = ("died", "lost")
# A change of the tail of the steps alone does not move the rate. It is slower if this one is, and decides nothing else.
TAIL = "mean_rate"


@dataclass(frozen=True)
class Store:
    """Pairs of a case that were measured on this machine without a change.

    ratios   the log ratios of the rate
    spread   the median spread of the units of a pair
    """

    ratios: Sequence[float]
    spread: float

    @classmethod
    def of(cls, unchanged: Sequence[Pair]) -> Store:
        return cls([pair.log_ratios["rate"] for pair in unchanged], statistics.median(map(spread_of_units, unchanged)))


@dataclass(frozen=True)
class CaseVerdict:
    """What became of a case.

    kind      slower, same, faster, undecided or broken
    text      one line
    metrics   the verdict of each metric, by name; empty: broken
    """

    kind: str
    text: str
    metrics: Mapping[str, Verdict] = field(default_factory=dict)


class Comparisons:
    """All cases of a run.

    budgets   by case id, the accepted loss in percent of each metric that is judged; `rate` is always one
    last      the number of pairs at the last look
    stores    pairs of each case without a change, by case id, for the look at three pairs
    """

    def __init__(
        self,
        budgets: Mapping[str, Mapping[str, float]],
        last: int = pairs.LAST,
        stores: Optional[Mapping[str, Store]] = None,
    ) -> None:
        self.budgets, self.last, self.stores = budgets, last, stores or {}
        self.pairs: Dict[str, List[Pair]] = {case: [] for case in budgets}
        self.stopped = ""

    def add(self, pair: Pair) -> None:
        self.pairs[pair.case].append(pair)

    def attempt(self, case: str, index: int) -> int:
        """How often a pair of a case was tried already."""
        return sum(pair.pair == index for pair in self.pairs[case])

    def counted(self, case: str) -> List[Pair]:
        return [pair for pair in self.pairs[case] if pair.outcome == COUNTED]

    def wanting(self) -> List[str]:
        """The cases that need another pair: those with the fewest pairs. None: every case has its verdict."""
        verdicts = self._judged()
        short = {
            case: len(self.counted(case))
            for case in self.budgets
            if not self._ended(case) and self._undecided(case, verdicts)
        }
        return [case for case, count in short.items() if count == min(short.values())]

    def verdicts(self) -> Dict[str, CaseVerdict]:
        judged = self._judged()
        return {case: self._verdict(case, judged) for case in self.budgets}

    def _judged(self) -> Dict[str, Dict[str, Verdict]]:
        """The verdict of each metric of each case, over the pairs so far."""
        ratios = {
            (case, metric): [pair.log_ratios[metric] for pair in self.counted(case)]
            for case, budgets in self.budgets.items()
            for metric in budgets
            if all(metric in pair.log_ratios for pair in self.counted(case))
        }
        comparisons = {
            f"{case} {metric}": Comparison(
                values,
                self.budgets[case][metric],
                METRICS[metric].higher_is_better,
                self._store(case) if metric == "rate" else (),
            )
            for (case, metric), values in ratios.items()
        }
        judged = pairs.judge(comparisons, self.last) if comparisons else {}
        found: Dict[str, Dict[str, Verdict]] = {case: {} for case in self.budgets}
        for case, metric in ratios:
            found[case][metric] = judged[f"{case} {metric}"]
        return found

    def _store(self, case: str) -> Sequence[float]:
        """The stored log ratios of a case; none if its first pairs were noisier than those of the store."""
        store, first = self.stores.get(case), self.counted(case)[:STORE_LOOK]
        if store is None or not first:
            return ()
        noisy = statistics.median(map(spread_of_units, first)) > NOISIER * store.spread
        return () if noisy else store.ratios

    def _undecided(self, case: str, verdicts: Mapping[str, Mapping[str, Verdict]]) -> bool:
        """Whether a case waits for its next look."""
        return any(
            verdict.kind == UNDECIDED and len(self.counted(case)) < self.last
            for metric, verdict in verdicts[case].items()
            if metric != TAIL
        ) and not any(verdict.kind == SLOWER for verdict in verdicts[case].values())

    def _ended(self, case: str) -> str:
        """Why a case gets no further pair although it has no verdict; empty: it may get one."""
        # A pair that was disturbed, and died when it was repeated, died once.
        repeats: Dict[Tuple[int, str], int] = {}
        for pair in self.pairs[case]:
            if pair.outcome == COUNTED:
                continue
            if pair.outcome != DISTURBED and pair.kind not in PASSING:
                return f"{pair.side}: {pair.reason}"
            key = pair.pair, pair.outcome
            repeats[key] = repeats.get(key, 0) + 1
            allowed = DISTURBED_REPEATS if pair.outcome == DISTURBED else DIED_REPEATS
            if repeats[key] > allowed:
                if pair.outcome == DISTURBED:
                    return f"pair {pair.pair + 1} was disturbed {repeats[key]} times: {pair.reason}"
                # A lost host is that of both sides.
                return f"{pair.side}, twice: {pair.reason}" if pair.side else f"twice: {pair.reason}"
        return ""

    def _verdict(self, case: str, judged: Mapping[str, Mapping[str, Verdict]]) -> CaseVerdict:
        metrics, ended = judged[case], self._ended(case)
        if ended and self.pairs[case][-1].outcome != DISTURBED:
            return CaseVerdict(BROKEN, f"{case}: broken: {ended}")
        kinds = {metric: verdict.kind for metric, verdict in metrics.items()}
        required = [kind for metric, kind in kinds.items() if metric != TAIL]
        kind = next(
            (kind for kind in (SLOWER, UNDECIDED) if kind in (kinds.values() if kind == SLOWER else required)), ""
        ) or (FASTER if FASTER in required else SAME)
        lines = [
            verdict.line() if metric == "rate" else f"{metric} {verdict.line()}"
            for metric, verdict in metrics.items()
            if metric == "rate" or verdict.kind == SLOWER or (metric != TAIL and verdict.kind == UNDECIDED)
        ]
        why = ended or (self.stopped if kind == UNDECIDED else "")
        if why:
            lines = [line for line in lines if self.counted(case)] or [UNDECIDED]
        return CaseVerdict(kind, f"{case}: {'; '.join([*lines, *([why] if why else [])])}", metrics)

"""The verdict over pairs of fresh processes, by exact sign flips at planned numbers of pairs.

The roles in a pair are given by a coin. If the two sides are alike, the log ratio of a pair is therefore as likely as
its negative, whatever the noise, and flipping signs is an exact test.

Flips       H0: the centre of the log ratios is at least m. p is the share of the 2^n sign vectors S for which
            S.(x - m) <= sum(x - m). That is (1 + the number of subsets of the pairs with a mean of at least m) / 2^n
Looks       3 pairs, only with a store of A/A log ratios; 6, only for same; 9; 12 or another last look
Errors      one comparison: slower or faster without a change, together at most 0.5 % over all looks;
            same with a change as large as the budget, at most 5 %
            a run: any case slower without a change at most 5 %, any faster at most 5 % (maxT)
Source      J. A. Hartigan, Using subsample values as typical values, JASA 64 (1969): flips and interval by subset means
            P. H. Westfall and S. S. Young, Resampling-based multiple testing (1993): maxT
            J. L. Hodges and E. L. Lehmann, Estimates of location based on rank tests, Ann. Math. Stat. 34 (1963)
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, replace
from typing import Any, Dict, List, Mapping, NamedTuple, Sequence, Tuple

from bench.results.verdict import FASTER, SAME, SLOWER, UNDECIDED, Verdict, margin

STORE_LOOK = 3
LAST = 12


class Plan(NamedTuple):
    """What a plan resolves, in standard deviations of the log ratios over pairs, with normal noise.

    slower   the smallest change that is called slower 9 times in 10
    same     the smallest budget within which no change is called same 9 times in 10
    """

    slower: float
    same: float


# By the number of pairs at the last look; simulated. Exact flips of more than 20 pairs would take too long.
PLANS = {9: Plan(2.3, 1.6), 12: Plan(2.0, 1.3), 16: Plan(1.5, 1.1), 20: Plan(1.25, 0.9)}
CONFIDENCE = 0.995
# Differences below this are rounding.
ROUNDING = 1e-12
STORE_LEAST = 40
STORE_DAYS = 30
DAY_S = 86400.0


@dataclass(frozen=True)
class Comparison:
    """One metric of one case, over the pairs of a run.

    log_ratios        ln(candidate / base) of each pair that counts, in order. A pair that was repeated is in the place
                      of the one that was discarded, so that all cases of a pair have the same index.
    higher_is_better  true for a rate; false for memory, compile time or latency
    store             A/A log ratios of the metric on this machine, from `recent`; empty if the canary was disturbed or
                      the units of the pairs spread more than 1.5 times as far as the store's
    """

    log_ratios: Sequence[float]
    budget_percent: float = 5.0
    higher_is_better: bool = True
    store: Sequence[float] = ()


def judge(comparisons: Mapping[str, Comparison], last: int = LAST) -> Dict[str, Verdict]:
    """Return the verdict of each comparison of a run: that of the first look that decides.

    Call it when every comparison that is still undecided has reached the next look. The verdict depends on the log
    ratios alone, so that it is the same after a resume.

    Raises ValueError if a log ratio is not a finite number, or there is no plan with this last look.
    """
    if last not in PLANS:
        raise ValueError(f"no plan for {last} pairs; there are plans for {', '.join(map(str, PLANS))}")
    ratios = {key: _oriented(key, each, each.log_ratios[:last]) for key, each in comparisons.items()}
    stores = {key: _oriented(f"{key}: store", each, each.store) for key, each in comparisons.items()}
    margins = {key: margin(each.budget_percent, each.higher_is_better) for key, each in comparisons.items()}
    kinds = dict.fromkeys(comparisons, UNDECIDED)
    for look in looks(last):
        ready = [key for key, kind in kinds.items() if kind == UNDECIDED and len(ratios[key]) >= look]
        if look == STORE_LOOK:
            decisions = [_early(ratios[key][:look], stores[key], margins[key]) for key in ready]
        else:
            decisions = _at_look(look, ready, ratios, margins, last)
        for key, kind in zip(ready, decisions):
            kinds[key] = kind
            if kind != UNDECIDED:
                ratios[key] = ratios[key][:look]
    return {key: _verdict(comparisons[key], len(ratios[key]), kind, last) for key, kind in kinds.items()}


def _at_look(
    look: int, ready: List[str], ratios: Mapping[str, List[float]], margins: Mapping[str, float], last: int
) -> List[str]:
    """Return the kinds of the comparisons that are ready for a look. All comparisons of the run are their family."""
    import numpy as np

    if not ready:
        return []
    family = dict(zip(ratios, family_p([values[:look] for values in ratios.values()])))
    x, budgets, p = (
        np.array([of[key] for key in ready]) for of in ({key: ratios[key][:look] for key in ready}, margins, family)
    )
    return [str(kind) for kind in decide(x, budgets, p, last)]


def looks(last: int) -> Tuple[int, ...]:
    """Return the numbers of pairs at which a run that may take `last` pairs decides."""
    return tuple(sorted({STORE_LOOK, 6, 9, last}))


def decide(x: Any, margins: Any, family: Any, last: int = LAST) -> Any:
    """Return the kind of verdict of each row of log ratios, at the look that their number says.

    x         (comparisons, pairs), higher is better
    margins   (comparisons,) the budgets, as distances between log ratios
    family    (comparisons, 2) p over the cases of the run, of slower and of faster: `family_p`
    """
    import numpy as np

    pairs = x.shape[-1]
    means, centre = subset_means(x), np.median(x, axis=-1)
    error, family_error, same_error = _errors(pairs, last)
    slower = (flip_p(means) <= error) & (centre <= -margins / 2) & (family[:, 0] <= family_error)
    faster = (flip_p(-means) <= error) & (centre >= margins / 2) & (family[:, 1] <= family_error)
    same = (flip_p(means, margins) <= same_error) & (flip_p(-means, margins) <= same_error)
    return np.select([slower, faster, same], [SLOWER, FASTER, SAME], UNDECIDED)


def _errors(pairs: int, last: int) -> Tuple[float, float, float]:
    """Return the errors that a look spends, one side each: a slower, a slower of the run, a same."""
    if pairs == 6:
        return 0.0, 0.0, 0.02
    return (0.00196, 0.03, 0.015) if pairs == 9 else (0.0005, 0.02, 0.015)


def subset_means(x: Any) -> Any:
    """Return the means of all 2^n - 1 subsets of n log ratios that are not empty; shape (..., n) to (..., 2^n - 1)."""
    import numpy as np

    sums = np.zeros((*x.shape[:-1], 1))
    sizes = np.zeros(1)
    for i in range(x.shape[-1]):
        sums = np.concatenate([sums, sums + x[..., i : i + 1]], axis=-1)
        sizes = np.concatenate([sizes, sizes + 1])
    return sums[..., 1:] / sizes[1:]


def flip_p(means: Any, centre: Any = 0.0) -> Any:
    """Return p of H0: the centre is at least `centre`. A small p says that the log ratios lie below it.

    means   of the subsets, (..., 2^n - 1). With those of -x, H0 is: the centre of x is at most -`centre`
    """
    import numpy as np

    reached = means >= np.asarray(centre)[..., None] - ROUNDING
    return (1 + np.count_nonzero(reached, axis=-1)) / (means.shape[-1] + 1)


def family_p(rows: Sequence[Sequence[float]]) -> List[Tuple[float, float]]:
    """Return p of slower and of faster of each comparison, over all comparisons of a run (maxT).

    The sign vector is the same for all comparisons. p is the share of the sign vectors for which any comparison is at
    least as far below (above) as this one. The statistic is sum / root of the sum of squares, which grows with
    Student's t and with nothing else that a flip changes. A comparison that was decided earlier has fewer pairs.
    """
    import numpy as np

    pairs = max(map(len, rows))
    lowest = np.full(2**pairs, np.inf)
    distances = []
    for row in rows:
        norm = math.sqrt(sum(value * value for value in row)) or 1.0
        sums = np.zeros(1)
        for value in [*row, *[0.0] * (pairs - len(row))]:
            sums = np.concatenate([sums + value / norm, sums - value / norm])
        lowest = np.minimum(lowest, sums)
        distances.append(sums[0])
    lowest.sort()
    below, above = (
        np.searchsorted(lowest, sign * np.array(distances) + 1e-9, side="right") / lowest.size for sign in (1, -1)
    )
    return list(zip(below.tolist(), above.tolist()))


def hodges_lehmann(x: Sequence[float]) -> float:
    """Return the median of the means of all two log ratios, each with itself as well."""
    import numpy as np

    first, second = np.triu_indices(len(x))
    values = np.asarray(x, dtype=float)
    return float(np.median((values[first] + values[second]) / 2))


def interval(x: Sequence[float], confidence: float = CONFIDENCE) -> Tuple[Tuple[float, float], float]:
    """Return the centres that the flips do not reject, and the confidence of this interval.

    Fewer than 9 pairs cannot reach 99.5 %: the interval is then from the lowest to the highest, with 1 - 2 / 2^n.
    """
    import numpy as np

    means = np.sort(subset_means(np.asarray(x, dtype=float)))
    vectors = means.size + 1
    rank = max(1, math.floor((1 - confidence) / 2 * vectors + 1e-9))
    return (float(means[rank - 1]), float(means[-rank])), 1 - 2 * rank / vectors


def recent(store: Sequence[Tuple[float, float]], now_s: float) -> List[float]:
    """Return the A/A log ratios of the last 30 days, or none if there are fewer than 40.

    store   the time of each, in seconds of the same clock as `now_s`, and the log ratio
    """
    ratios = [ratio for when_s, ratio in store if 0 <= now_s - when_s <= STORE_DAYS * DAY_S]
    return ratios if len(ratios) >= STORE_LEAST else []


def false_alarm(last: int = LAST, stored: int = 0) -> float:
    """Return the chance that an unchanged comparison is called slower, at most, with a store of so many log ratios."""
    at_looks = sum(math.floor(_errors(look, last)[0] * 2**look) / 2**look for look in looks(last)[1:])
    early = all_below(stored, STORE_LOOK) if stored >= STORE_LEAST else 0.0
    return float(at_looks + early)


def all_below(stored: int, fresh: int) -> float:
    """Return the chance that `fresh` values all lie below `stored` values of the same distribution: 1 / C(K + k, k)."""
    return 1 / math.comb(stored + fresh, fresh)


def _oriented(key: str, comparison: Comparison, ratios: Sequence[float]) -> List[float]:
    """Return log ratios with the sign that makes a higher one better."""
    for index, ratio in enumerate(ratios):
        if not math.isfinite(ratio):
            raise ValueError(f"{key}: log ratio {index} is {ratio}; a pair without a value must be repeated")
    return [ratio if comparison.higher_is_better else -ratio for ratio in ratios]


def _early(ratios: Sequence[float], store: Sequence[float], budget: float) -> str:
    """Slower if three pairs lie below all of the store. Faster has no early look: 0.5 % of errors leaves no room."""
    far = len(store) >= STORE_LEAST and max(ratios) < min(store) and sorted(ratios)[1] <= -budget
    return SLOWER if far else UNDECIDED


def _verdict(comparison: Comparison, pairs: int, kind: str, last: int) -> Verdict:
    """Return the verdict with what the report says of the pairs up to the look that decided."""
    ratios = list(comparison.log_ratios[:pairs])
    stored = len(comparison.store) if len(comparison.store) >= STORE_LEAST else 0
    following = [look for look in looks(last) if look > pairs and (stored or look != STORE_LOOK)]
    verdict = Verdict(
        kind,
        count=pairs,
        unit="pairs",
        budget_percent=comparison.budget_percent,
        false_alarm=false_alarm(last, stored),
        next_look=following[0] if kind == UNDECIDED and following else None,
    )
    if not ratios:
        return replace(verdict, reason="no pair was measured")
    bounds, confidence = interval(ratios)
    verdict = replace(verdict, estimate=hodges_lehmann(ratios), interval=bounds, confidence=confidence)
    if pairs > 1:
        verdict = replace(verdict, **_resolution(comparison, statistics.stdev(ratios), verdict.estimate or 0.0, last))
    if kind != UNDECIDED:
        return replace(verdict, needed=None)
    if following:
        return replace(verdict, needed=None, reason=f"stopped before the look at {verdict.next_look} pairs")
    return replace(verdict, reason="the pairs spread too far")


def _resolution(comparison: Comparison, spread: float, estimate: float, last: int) -> Dict[str, Any]:
    """Return the spread, the smallest change seen 9 times in 10, and the pairs that would decide.

    A change of less than the budget is called same if the spread is small, so the smallest is never below it. What is
    needed is the first plan, with more pairs than this one, that would see the estimate, or else its distance from the
    budget. Behind the last plan the pairs grow with the square of the spread.
    """
    budget = margin(comparison.budget_percent, comparison.higher_is_better)
    distance, room = abs(estimate), max(0.0, budget - abs(estimate))
    needed = [
        pairs
        for pairs, plan in PLANS.items()
        if pairs > last
        and ((distance >= budget / 2 and plan.slower * spread <= distance) or plan.same * spread <= room)
    ]
    if not needed:
        most, plan = max(PLANS.items())
        ratios = [plan.slower * spread / distance] if distance >= budget / 2 else []
        ratios += [plan.same * spread / room] if room else []
        needed = [max(most + 1, math.ceil(most * min(ratios) ** 2))]
    worse = max(budget, PLANS[last].slower * spread)
    return {"spread": spread, "smallest": -worse if comparison.higher_is_better else worse, "needed": needed[0]}

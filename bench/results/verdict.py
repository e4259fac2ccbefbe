"""A verdict over one metric of one case: slower, same, faster or undecided, and what its line in a report needs.

Log ratio   ln(candidate / base) of a metric's value. An interval or a spread in percent is 100 * (exp(log ratio) - 1).
Slower      worse by more than chance explains; of memory, compile time or latency that is a higher value
Same        within the budget, on either side
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Optional, Tuple

SLOWER, SAME, FASTER, UNDECIDED = "slower", "same", "faster", "undecided"
# Not compared: measured in another way or elsewhere, or there is nothing to compare with.
CHANGED, NEW = "changed", "new"


@dataclass(frozen=True)
class Verdict:
    """What was decided, from how many measurements, and how sure it is. All ratios are ln(candidate / base).

    kind            slower, same, faster or undecided; or changed or new, which are not compared
    count, unit     the measurements that the verdict comes from: pairs, or fresh processes. Later ones are ignored.
    budget_percent  the loss that is accepted
    false_alarm     the chance that an unchanged case is called slower by this rule, at most
    reason          why it is undecided or not compared; empty: it is decided
    next_look       the number of pairs at which it is decided again; None: the verdict is final
    estimate        log ratio; None: nothing was measured
    interval        log ratios, the lowest and the highest that the measurements allow; None: nothing was measured
    confidence      the share of intervals like this one that hold the true log ratio, at least
    spread          standard deviation of the log ratios of the pairs; or of the logarithms of the stored processes
    smallest        log ratio of the smallest loss that is seen 9 times in 10 with this spread
    needed          the pairs that would decide 9 times in 10; None: it is decided, or not known
    confounded      what else differs between the two sides, so that a change can come from it as well
    """

    kind: str
    count: int
    unit: str
    budget_percent: float
    false_alarm: float
    reason: str = ""
    next_look: Optional[int] = None
    estimate: Optional[float] = None
    interval: Optional[Tuple[float, float]] = None
    confidence: float = 0.0
    spread: Optional[float] = None
    smallest: Optional[float] = None
    needed: Optional[int] = None
    confounded: Tuple[str, ...] = ()

    @property
    def change_percent(self) -> Optional[float]:
        return None if self.estimate is None else percent(self.estimate)

    def line(self) -> str:
        """Return one line for a person: estimate, interval, measurements, what would have been seen or would decide."""
        if self.estimate is None or self.interval is None:
            return f"{self.kind}: {self.reason}{self._also()}"
        low, high = map(percent, self.interval)
        interval = f"{100 * self.confidence:.3g} % interval {low:+.1f} to {high:+.1f} %, " if self.confidence else ""
        parts = [f"{self.kind}: {percent(self.estimate):+.1f} %", f"({interval}{self.count} {self.unit})"]
        text = " ".join(parts)
        if self.smallest is not None:
            text += f"; smallest change seen {percent(self.smallest):+.1f} %"
        if self.reason:
            text += f"; {self.reason}"
        return (f"{text}; {self.needed} pairs would decide" if self.needed else text) + self._also()

    def _also(self) -> str:
        return f"; a change can come from {', '.join(self.confounded)} as well" if self.confounded else ""


def margin(budget_percent: float, higher_is_better: bool = True) -> float:
    """Return a budget as a distance between log ratios: a rate may fall to 95 %, a latency may rise to 105 %.

    Raises ValueError if the budget is not above 0, or not below 100.
    """
    if not 0 < budget_percent < 100:
        raise ValueError(f"a budget of {budget_percent:g} %; it must be above 0 and below 100 %")
    share = budget_percent / 100
    return -math.log1p(-share) if higher_is_better else math.log1p(share)


def percent(log_ratio: float) -> float:
    """Return a log ratio as a change in percent."""
    return 100 * math.expm1(log_ratio)

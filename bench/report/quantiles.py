"""Percentiles of samples, and the intervals that hold the true ones.

The number of samples below the true percentile is binomial, whatever the distribution is. So two of the ordered samples
are the ends of an exact interval. It holds for independent samples; consecutive steps seldom are, so that the true
interval is wider.

Source   W. R. Thompson, On confidence ranges for the median, Ann. Math. Stat. 7 (1936)
         H. A. David and H. N. Nagaraja, Order statistics (2003), section 7.1
"""

from __future__ import annotations

import functools
import math
from typing import Optional, Sequence, Tuple

CONFIDENCE = 0.95


@functools.lru_cache(maxsize=None)
def ranks(count: int, share: float, confidence: float = CONFIDENCE) -> Tuple[Optional[int], Optional[int]]:
    """The ranks, from 1, of the ordered samples that are the ends of the interval of a percentile.

    Each end is wrong in at most half of 1 - `confidence`. None: there are too few samples for this end.
    """
    error = (1 - confidence) / 2
    low = _largest_below(count, share, error)
    high = _largest_below(count, 1 - share, error)
    return low or None, count + 1 - high if high else None


def _largest_below(count: int, share: float, error: float) -> int:
    """The largest k for which fewer than k of `count` samples are below the percentile in at most `error`; 0: none.

    Terms of the binomial distribution that are too small to count are left out, to be quick with many samples.
    """
    spread = math.sqrt(count * share * (1 - share))
    term_of = max(0, math.floor(count * share - 12 * spread - 40))
    log_term = math.lgamma(count + 1) - math.lgamma(term_of + 1) - math.lgamma(count - term_of + 1)
    log_term += term_of * math.log(share) + (count - term_of) * math.log1p(-share)
    term, total, k = math.exp(log_term), 0.0, term_of
    while k < count:
        total += term
        if total > error:
            break
        term *= (count - k) / (k + 1) * share / (1 - share)
        k += 1
    return k


def interval(
    ordered: Sequence[float], share: float, confidence: float = CONFIDENCE
) -> Tuple[Optional[float], Optional[float]]:
    """The ends of the interval of a percentile of ordered samples. None: there are too few samples for this end."""
    low, high = ranks(len(ordered), share, confidence)
    return (None if low is None else ordered[low - 1]), (None if high is None else ordered[high - 1])

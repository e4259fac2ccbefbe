"""Intervals of percentiles are exact."""

from __future__ import annotations

import math
import random

import pytest

from bench.report import quantiles


@pytest.fixture
def stats():
    """Not imported where the tests are collected: that takes most of a second in every process."""
    return pytest.importorskip("scipy.stats")


def probability(stats, count, share, low, high):
    """The chance that the true percentile lies between the ordered samples of these ranks."""
    return stats.binom.cdf(high - 1, count, share) - stats.binom.cdf(low - 1, count, share)


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99, 0.999])
@pytest.mark.parametrize("count", [1, 2, 5, 6, 37, 100, 299, 1000, 3689, 50_000])
def test_each_end_is_the_last_one_that_is_wrong_in_at_most_half_of_five_percent(stats, count, share):
    low, high = quantiles.ranks(count, share)

    if low is None:
        assert stats.binom.cdf(0, count, share) > 0.025
    else:
        assert stats.binom.cdf(low - 1, count, share) <= 0.025 + 1e-12
        assert stats.binom.cdf(low, count, share) > 0.025 - 1e-12
    if high is None:
        assert stats.binom.sf(count - 1, count, share) > 0.025
    else:
        assert stats.binom.sf(high - 1, count, share) <= 0.025 + 1e-12
        assert stats.binom.sf(high - 2, count, share) > 0.025 - 1e-12
    if low is not None and high is not None:
        assert probability(stats, count, share, low, high) >= 0.95 - 1e-9


@pytest.mark.parametrize(("share", "fewest"), [(0.5, 6), (0.9, 36), (0.99, 368), (0.999, 3688)])
def test_the_upper_end_needs_so_many_samples(share, fewest):
    """share^n <= 0.025: below, the largest sample is too often below the true percentile."""
    assert quantiles.ranks(fewest - 1, share)[1] is None
    assert quantiles.ranks(fewest, share)[1] == fewest


def test_the_interval_of_a_median_by_hand():
    """Of 10 samples, B(10, 1/2) is below 2 in 1.07 % and below 3 in 5.5 %: the second and the ninth."""
    assert quantiles.interval([float(value) for value in range(1, 11)], 0.5) == (2.0, 9.0)


def test_intervals_hold_the_true_percentile_as_often_as_they_say():
    draw = random.Random(7)
    true = -math.log(0.1)
    held = 0
    for _ in range(400):
        low, high = quantiles.interval(sorted(draw.expovariate(1.0) for _ in range(100)), 0.9)
        held += low <= true <= high

    assert held >= 0.92 * 400

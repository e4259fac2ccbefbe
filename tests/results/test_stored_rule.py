"""The verdict against a stored set of processes."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bench.results import stored
from bench.results.stored import judge_stored

HOUR_S = 3600.0
TEN = [100.0, 101.0, 99.0, 100.5, 99.5, 100.2, 99.8, 101.5, 98.5, 100.0]


def on_three_occasions(values):
    return [(index % 3 * 5 * HOUR_S, value) for index, value in enumerate(values)]


def test_three_fresh_processes_below_all_ten_are_slower():
    result = judge_stored(on_three_occasions(TEN), [90.0, 91.0, 92.0])

    assert (result.kind, result.count, result.unit) == ("slower", 3, "fresh processes")
    assert result.false_alarm == 1 / 286
    assert result.confidence == 1 - 2 / 286
    assert result.interval == (pytest.approx(math.log(90 / 101.5)), pytest.approx(math.log(92 / 98.5)))
    assert result.estimate == pytest.approx(math.log(91 / 100), abs=1e-6)
    assert result.line().startswith("slower: -9.0 % (99.3 % interval -11.3 to -6.6 %, 3 fresh processes)")


def test_one_fresh_process_among_the_stored_ones_decides_nothing():
    result = judge_stored(on_three_occasions(TEN), [90.0, 91.0, 98.5])

    assert (result.kind, result.reason) == ("undecided", "the processes spread too far")


def test_the_mirror_image_is_faster():
    assert judge_stored(on_three_occasions(TEN), [110.0, 111.0, 112.0]).kind == "faster"


def test_the_same_if_no_fresh_process_is_the_budget_away_from_any_stored_one():
    assert judge_stored(on_three_occasions(TEN), [100.0, 99.0, 101.0]).kind == "same"
    assert judge_stored(on_three_occasions(TEN), [100.0, 99.0, 96.0]).kind == "undecided"
    assert judge_stored(on_three_occasions([100.0] * 10), [100.0] * 3).kind == "same"


def test_a_loss_within_the_budget_is_not_slower():
    quiet = on_three_occasions([100.0 + 0.01 * index for index in range(10)])

    assert judge_stored(quiet, [99.0, 99.1, 99.2]).kind == "same"
    assert judge_stored(quiet, [99.0, 99.1, 99.2], budget_percent=0.5).kind == "slower"


def test_of_a_latency_higher_is_slower():
    result = judge_stored(on_three_occasions(TEN), [110.0, 111.0, 112.0], higher_is_better=False)

    assert result.kind == "slower"
    assert result.interval == (pytest.approx(math.log(110 / 101.5)), pytest.approx(math.log(112 / 98.5)))
    assert result.smallest > 0


@pytest.mark.parametrize(
    "base, fresh, reason",
    [
        (on_three_occasions(TEN[:9]), [90.0] * 3, "9 processes are stored, it takes 10"),
        (on_three_occasions(TEN), [90.0] * 2, "2 fresh processes, it takes 3"),
        ([(index * 60.0, value) for index, value in enumerate(TEN)], [90.0] * 3, "of 1 occasions, it takes 3, hours"),
        ([], [90.0] * 3, "0 processes are stored, it takes 10"),
        (on_three_occasions(TEN), [], "0 fresh processes, it takes 3"),
    ],
)
def test_too_little_is_undecided_with_the_reason(base, fresh, reason):
    result = judge_stored(base, fresh)

    assert result.kind == "undecided"
    assert reason in result.reason
    assert reason in result.line()
    assert result.false_alarm == 0


def test_an_occasion_begins_two_hours_after_the_process_before():
    assert stored.occasions([]) == 0
    assert stored.occasions([5 * HOUR_S, 0.0, 1.9 * HOUR_S]) == 2
    assert stored.occasions([0.0, 1.9 * HOUR_S, 3.8 * HOUR_S]) == 1
    assert stored.occasions([0.0, 2 * HOUR_S, 4 * HOUR_S]) == 3


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_a_median_that_is_no_rate_is_refused_in_one_line(value):
    with pytest.raises(ValueError, match=r"^the median of a fresh process is .*; it must be a positive number$"):
        judge_stored(on_three_occasions(TEN), [90.0, 90.0, value])
    with pytest.raises(ValueError, match=r"^the median of a stored process is "):
        judge_stored(on_three_occasions([*TEN, value]), [90.0] * 3)


@pytest.mark.parametrize("count, rate", [(10, 1 / 286), (20, 1 / 1771)])
@pytest.mark.parametrize("noise", ["normal", "standard_cauchy"])
def test_the_rule_is_wrong_as_often_as_it_says(count, rate, noise):
    """The order alone, in 200,000 trials, whatever the noise."""
    trials = 200_000
    x = getattr(np.random.default_rng(7), noise)(size=(trials, count + 3))

    wrong = (x[:, :3].max(axis=1) < x[:, 3:].min(axis=1)).sum()

    assert stored.all_below(count, 3) == pytest.approx(rate)
    assert abs(wrong - trials * rate) < 4 * math.sqrt(trials * rate)


def test_unchanged_processes_are_rarely_called_slower_and_faster():
    """The product, with a spread far beyond the budget: the order decides, and each side is wrong in 0.35 %."""
    trials = 6000
    x = np.exp(np.random.default_rng(8).normal(0, 0.2, (trials, 13)))

    kinds = [judge_stored(on_three_occasions(row[3:]), row[:3]).kind for row in x.tolist()]

    for kind in ("slower", "faster"):
        assert abs(kinds.count(kind) - trials / 286) < 4 * math.sqrt(trials / 286)


@pytest.mark.parametrize("count, fresh", [(10, 3), (20, 3), (20, 5)])
def test_the_smallest_change_is_seen_9_times_in_10(count, fresh):
    x = np.random.default_rng(9).normal(size=(50_000, count + fresh))

    shift = stored._seen(count, fresh)

    assert 0.87 < (x[:, :fresh].max(axis=1) - shift < x[:, fresh:].min(axis=1)).mean() < 0.93


def test_a_change_of_the_budget_is_called_same_as_rarely_as_the_rule_says():
    trials = 6000
    x = np.exp(np.random.default_rng(10).normal(0, 0.005, (trials, 13)))

    kinds = [judge_stored(on_three_occasions(row[3:]), [0.95 * value for value in row[:3]]).kind for row in x.tolist()]

    assert kinds.count("same") < trials / 286 + 4 * math.sqrt(trials / 286)

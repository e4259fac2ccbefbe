"""Change points: steps by hand, and how often flat series have one."""

from __future__ import annotations

import math

import numpy as np
import pytest
from pairs_by_hand import pair

from bench.results import pair_file
from bench.results.change_points import (
    FALSE_ALARM,
    FEWEST,
    THRESHOLDS,
    Noise,
    change_points,
    noise_of,
    threshold_of,
)
from bench.results.pair import DISTURBED
from scripts.change_point_rates import KINDS, correlated, false_alarms, found_within, normal, of_pairs


def wave(count, size=0.01):
    """A flat series without chance: it goes up and down by `size`."""
    return [size if index % 2 else -size for index in range(count)]


def test_a_step_by_hand_is_found_where_it_is():
    values = wave(20) + [value - 0.1 for value in wave(12)]

    (point,) = change_points(values)

    assert (point.index, point.earliest, point.latest) == (20, 20, 20)
    assert point.size == pytest.approx(-0.1)
    assert point.low < -0.1 < point.high


def test_two_steps_by_hand_are_both_found():
    values = wave(20) + [value + 0.2 for value in wave(20)] + [value + 0.05 for value in wave(20)]

    found = change_points(values)

    assert [point.index for point in found] == [20, 40]
    assert [point.size for point in found] == pytest.approx([0.2, -0.15])


def test_a_step_of_constant_values_is_found():
    assert [point.index for point in change_points([0.0] * 10 + [0.1] * 10)] == [10]


def test_constant_values_have_no_step():
    assert change_points([3.0] * 500) == []


@pytest.mark.parametrize("count", [0, 1, FEWEST - 1])
def test_few_runs_have_no_step(count):
    assert change_points([0.0, 0.0, 0.0, 9.0, 9.0, 9.0, 9.0][:count]) == []


def test_one_or_two_bad_runs_are_no_step():
    values = wave(40)
    values[20] -= 1.0
    values[30] -= 1.0
    values[31] -= 1.0

    assert change_points(values) == []


def test_three_slow_runs_at_the_end_are_a_step():
    assert [point.index for point in change_points(wave(40) + [-0.1, -0.11, -0.09])] == [40]


def test_a_far_outlier_does_not_hide_a_step():
    values = wave(30) + [value - 0.1 for value in wave(30)]
    values[10] += 3.0

    assert [point.index for point in change_points(values)] == [30]


def test_the_mirrored_series_has_the_mirrored_steps():
    values = wave(25) + [value - 0.08 for value in wave(15)]

    forth = [point.index for point in change_points(values)]
    back = [len(values) - point.index for point in change_points(values[::-1])]

    assert forth == back == [25]


@pytest.mark.parametrize("factor, offset", [(1.0, 1000.0), (-1.0, 0.0), (3.0, -7.0)])
def test_level_and_scale_change_no_position(factor, offset):
    values = np.random.default_rng(5).normal(0, 0.01, 60)
    values[30:] += 0.05

    assert [point.index for point in change_points(offset + factor * values)] == [
        point.index for point in change_points(values)
    ]


def test_a_value_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="not finite"):
        change_points([0.0] * 20 + [math.nan])


def test_noise_of_independent_values_is_their_standard_deviation():
    noise = noise_of(np.random.default_rng(1).normal(5, 0.02, 5000))

    assert noise.deviation == pytest.approx(0.02, rel=0.05)
    assert noise.correlation < 0.05


def test_noise_of_correlated_values_has_their_correlation():
    noise = noise_of(0.02 * correlated(np.random.default_rng(1), 5000))

    assert noise.deviation == pytest.approx(0.02, rel=0.05)
    assert noise.correlation == pytest.approx(0.3, abs=0.05)
    # By hand: the variance of a mean of many AR(1) values is (1 + r) / (1 - r) times that of independent ones.
    assert Noise(1.0, 0.3).inflation == pytest.approx(math.sqrt(1.3 / 0.7))


def test_a_step_adds_little_to_the_noise_that_is_left_without_it():
    values = np.random.default_rng(1).normal(0, 0.01, 200)
    values[100:] += 1.0

    assert noise_of(values, [100]).deviation == pytest.approx(0.01, rel=0.1)


def test_the_threshold_grows_with_the_number_of_values():
    counts = [8, 9, 30, 75, 200, 4000, 10000]

    thresholds = [threshold_of(count) for count in counts]

    assert thresholds == sorted(thresholds)
    assert threshold_of(50) == THRESHOLDS[50]


@pytest.mark.parametrize("kind", KINDS)
def test_few_flat_series_have_a_step(kind):
    """The script has the shares of many series. Of 60, more than three would be improbable at 1 %."""
    assert false_alarms(KINDS[kind], 60) <= 3 / 60


def test_a_step_of_five_percent_is_found_within_three_runs_at_a_noise_of_one_percent():
    assert found_within(normal, 0.01, 3, 40) >= 0.9


def test_the_position_and_the_size_are_within_their_intervals_as_often_as_stated():
    random = np.random.default_rng(7)
    inside, sizes, series = 0, 0, 60
    for _ in range(series):
        values = random.normal(0, 0.02, 80)
        values[50:] -= 0.05
        points = change_points(values)
        assert points
        point = min(points, key=lambda each: abs(each.index - 50))
        inside += point.earliest <= 50 <= point.latest
        sizes += point.low <= -0.05 <= point.high

    # 95 % of 60, less three standard deviations.
    assert inside >= 52
    assert sizes >= 52


def test_the_share_of_false_alarms_is_that_of_the_suite_s_other_verdicts():
    assert FALSE_ALARM == 0.005


def test_the_series_of_a_file_of_pairs_are_the_rates_of_the_side_that_is_not_slowed_down(tmp_path):
    """Blocks of 1 and 4 s a step have the geometric mean 2 s; the disturbed pair does not count."""
    units = [
        {"order": "ABBA", "blocks": {"base": {"lower_quartile": [1.0, 4.0]}, "candidate": {"lower_quartile": [9.0]}}}
    ]
    path = tmp_path / "pairs.jsonl"
    pair_file.create(path, {"seed": 1})
    for each in (pair("a", 0, units=units), pair("a", 1, outcome=DISTURBED), pair("a", 1, units=units, slowdown=5.0)):
        pair_file.append(path, each)

    (values,) = of_pairs(path)

    assert values == pytest.approx([-math.log(2), -math.log(2)])

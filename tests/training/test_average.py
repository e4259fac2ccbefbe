"""Averages of weights over checkpoints, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from bench.training import averaging


def checkpoints(*values, dtype=np.float32):
    """Checkpoints of a weight `w` of two equal numbers and its negative `v`, the oldest first."""
    return [{"w": np.full(2, value, dtype), "v": np.full((1, 3), -value, dtype)} for value in values]


def test_the_mean_is_of_all_checkpoints():
    got = averaging.mean(checkpoints(1, 2, 6))

    np.testing.assert_array_equal(got["w"], [3, 3])
    np.testing.assert_array_equal(got["v"], [[-3, -3, -3]])


@pytest.mark.parametrize("last, value", [(1, 6), (2, 4), (3, 3), (4, 3)])
def test_the_mean_is_of_the_last_ones_as_far_as_there_are_any(last, value):
    np.testing.assert_allclose(averaging.mean(checkpoints(1, 2, 6), last)["w"], [value, value])


def test_an_exponential_mean_starts_with_the_oldest_checkpoint():
    """0.75 x 16 + 0.25 x 4 = 13; 0.75 x 13 + 0.25 x 1 = 10."""
    got = averaging.exponential(checkpoints(16, 4, 1), decay=0.75)

    np.testing.assert_array_equal(got["w"], [10, 10])
    np.testing.assert_array_equal(got["v"], [[-10, -10, -10]])


def test_an_exponential_mean_of_the_last_two_starts_with_the_older():
    """0.75 x 4 + 0.25 x 1."""
    np.testing.assert_array_equal(averaging.exponential(checkpoints(16, 4, 1), 0.75, last=2)["w"], [3.25, 3.25])


def test_an_exponential_mean_decays_by_a_hundredth_unless_told():
    np.testing.assert_allclose(averaging.exponential(checkpoints(100, 200))["w"], [101, 101], rtol=1e-6)


@pytest.mark.parametrize("decay, value", [(0, 1), (1, 16)])
def test_no_decay_is_the_newest_and_full_decay_the_oldest(decay, value):
    np.testing.assert_array_equal(averaging.exponential(checkpoints(16, 4, 1), decay)["w"], [value, value])


def test_one_checkpoint_is_its_own_average():
    np.testing.assert_array_equal(averaging.mean(checkpoints(0.1))["w"], np.full(2, 0.1, np.float32))
    np.testing.assert_array_equal(averaging.exponential(checkpoints(0.1))["w"], np.full(2, 0.1, np.float32))


def test_sums_do_not_overflow_the_type_of_the_weights():
    got = averaging.mean(checkpoints(40960, 57344, dtype=np.float16))["w"]

    assert got.dtype == np.float16
    np.testing.assert_array_equal(got, [49152, 49152])


def test_integers_are_those_of_the_newest_checkpoint():
    got = averaging.mean([{"steps": np.array(3)}, {"steps": np.array(8)}])["steps"]

    assert got == 8
    assert got.dtype.kind == "i"


def test_the_checkpoints_stay_as_they_were():
    given = checkpoints(1, 3)

    averaging.mean(given)["w"][:] = 0
    averaging.exponential(given)["w"][:] = 0

    np.testing.assert_array_equal(given[0]["w"], [1, 1])
    np.testing.assert_array_equal(given[1]["w"], [3, 3])


@pytest.mark.parametrize("take", [averaging.mean, averaging.exponential])
@pytest.mark.parametrize(
    "given, last, said",
    [
        ([], None, "no checkpoints to average"),
        (checkpoints(1), 0, "the last 0 checkpoints: at least one is needed"),
        ([{"w": np.ones(2)}, {"u": np.ones(2)}], None, "checkpoint 0 and the newest do not both have: u, w"),
        ([{"w": np.ones(2)}, {"w": np.ones(3)}], None, r"w is \(2,\) in checkpoint 0, \(3,\) in the newest"),
    ],
)
def test_checkpoints_that_have_no_average_are_refused(take, given, last, said):
    with pytest.raises(ValueError, match=f"^{said}$"):
        take(given, last=last)


@pytest.mark.parametrize("decay", [-0.1, 1.1, float("nan")])
def test_a_decay_is_a_part(decay):
    with pytest.raises(ValueError, match=f"^decay {decay} is not within 0 to 1$"):
        averaging.exponential(checkpoints(1), decay)

"""Boxes that cutmix cuts: where they lie, and what they keep."""

from __future__ import annotations

import numpy as np
import pytest

from bench.training.mixing import Box, Mixing, clipped_box, inner_box, mixed


class Scripted:
    """A generator whose uniform numbers are given."""

    def __init__(self, *numbers):
        self.numbers = list(numbers)

    def uniform(self):
        return self.numbers.pop(0)


@pytest.mark.parametrize(
    "across, down, box",
    [
        (0.5, 0.5, Box(2, 6, 2, 6)),
        (0.0, 0.5, Box(2, 6, 0, 2)),
        (0.0, 0.0, Box(0, 2, 0, 2)),
        (0.5, 0.9375, Box(6, 8, 2, 6)),
    ],
)
def test_a_clipped_box_loses_what_lies_beyond_the_border(across, down, box):
    """Half of 8 pixels: 4, from 2 before the centre. The last centre is 7.5: rows 5.5, to even 6, to 8."""
    assert clipped_box(Scripted(across, down), 8, 8, kept=0.75) == box


def test_a_clipped_box_has_the_proportions_of_the_image():
    assert clipped_box(Scripted(0.5, 0.5), 8, 16, kept=0.75) == Box(2, 6, 4, 12)


def test_a_clipped_box_weighs_what_is_left_of_it():
    """Eight of 64 pixels where sixteen were meant."""
    mix = mixed((2, 1, 8, 8), box=clipped_box(Scripted(0.0, 0.5), 8, 8, kept=0.75))

    np.testing.assert_array_equal(mix.weights, 2 * [[0.875, 0.125]])


@pytest.mark.parametrize(
    "across, down, box", [(0.0, 0.0, Box(0, 4, 0, 8)), (0.5, 0.5, Box(2, 6, 4, 12)), (0.999, 0.0, Box(0, 4, 8, 16))]
)
def test_an_inner_box_is_whole_wherever_it_lies(across, down, box):
    assert inner_box(Scripted(across, down), 8, 16, kept=0.75) == box


@pytest.mark.parametrize("kept, area", [(1.0, 0), (0.0, 8 * 16)])
def test_an_inner_box_can_be_nothing_or_everything(kept, area):
    top, bottom, left, right = inner_box(np.random.default_rng(0), 8, 16, kept)

    assert (bottom - top) * (right - left) == area


def kept_areas(mixing, draws=3000):
    generator = np.random.default_rng(2)
    return np.array([mixing.draw(generator, (3, 1, 64, 64)).weights[0, 0] for _ in range(draws)])


def test_tensorflow_keeps_more_than_its_fixed_part():
    """A side s loses s * s / 4 to the border on average: 1 - (s - s * s / 4) ** 2 = 0.878 at s = sqrt(0.15)."""
    areas = kept_areas(Mixing("tensorflow", low=0.85, high=0.85))

    # A side is 24.79 pixels, rounded to 24 to 26.
    assert areas.min() >= 1 - 26 * 26 / 64**2
    assert areas.mean() == pytest.approx(0.878, abs=0.005)


def test_torch_keeps_a_uniform_part():
    areas = kept_areas(Mixing("torch", low=0.65, high=1.0))

    assert areas.mean() == pytest.approx(0.825, abs=0.01)
    # A uniform distribution's deviation is its width over the root of 12.
    assert areas.std() == pytest.approx(0.35 / 12**0.5, rel=0.05)


def test_torch_leaves_some_batches_uncut_and_the_shapes_as_they_are():
    mixing = Mixing("torch", low=0.5, high=0.5, disable=0.35)

    assert (kept_areas(mixing) == 1).mean() == pytest.approx(0.35, abs=0.03)
    assert Mixing("torch", low=0.5, high=0.5, disable=1.0).draw(np.random.default_rng(0), (3, 1, 2, 4)).rolls == (0, 2)

"""Smoothing, mixup and cutmix, worked out by hand; losses are in bits, of predictions that are powers of two."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bench.training.mixing import Box, Mixing, draw_coefficients, mixed, smoothing

# -log2 of what is predicted for three images and three classes: 1/2, 1/4, 1/4 and so on.
BITS = np.array([[1.0, 2, 2], [2, 2, 1], [2, 1, 2]])
# Two of eight pixels.
SHAPE, BOX = (3, 1, 2, 4), Box(top=1, bottom=2, left=0, right=2)


def apply(images, mix):
    """`images`, (batch, channels, height, width), mixed."""
    if mix.coefficient is not None:
        images = mix.coefficient * images + (1 - mix.coefficient) * np.roll(images, 1, axis=0)
    if mix.mask is not None:
        images = np.where(mix.mask == 1, images, np.roll(images, mix.rolls[len(mix.rolls) // 2], axis=0))
    return images


def targets(labels, classes, mix, on, off):
    """The distribution over classes, (batch, classes), that the mixed images are of: `on` for a label's own class."""
    plain = np.where(np.arange(classes) == np.asarray(labels)[:, None], float(on), float(off))
    return np.sum([np.roll(plain, roll, axis=0) * mix.weights[:, [k]] for k, roll in enumerate(mix.rolls)], axis=0)


def losses(labels, mix, on=1.0, off=0.0):
    return (targets(labels, 3, mix, on, off) * BITS[: len(labels)]).sum(axis=1)


def constant(values, shape):
    """Images of one value each."""
    return np.broadcast_to(np.reshape(values, (-1, 1, 1, 1)), shape)


@pytest.mark.parametrize("definition, on, off", [("tensorflow", 0.7, 0.15), ("torch", 0.8, 0.1)])
def test_smoothing_gives_to_the_others_or_to_all(definition, on, off):
    assert smoothing(0.3, 3, definition) == pytest.approx((on, off))


@pytest.mark.parametrize("definition", ["tensorflow", "torch"])
@pytest.mark.parametrize("amount, classes", [(0.0, 2), (0.1, 10), (0.1, 1000), (0.9, 2)])
def test_a_smoothed_label_is_a_distribution(definition, amount, classes):
    on, off = smoothing(amount, classes, definition)

    assert on + (classes - 1) * off == pytest.approx(1)


def test_smoothed_losses_of_the_two_definitions_differ():
    """Labels 0 and 1, whose own classes cost 1 and 2 bits and the others 4 and 3.

    tensorflow  0.7 x 1 + 0.15 x 4 = 1.3    0.7 x 2 + 0.15 x 3 = 1.85
    torch       0.8 x 1 + 0.1 x 4 = 1.2     0.8 x 2 + 0.1 x 3 = 1.9
    """
    plain = mixed((2, 1, 2, 4))

    assert losses([0, 1], plain, *smoothing(0.3, 3, "tensorflow")) == pytest.approx([1.3, 1.85])
    assert losses([0, 1], plain, *smoothing(0.3, 3, "torch")) == pytest.approx([1.2, 1.9])


def test_torch_smoothing_is_a_mean_over_all_classes_beside_the_loss():
    """0.7 x own + 0.3 x mean: 0.7 x 1 + 0.3 x 5 / 3 = 1.2 and 0.7 x 2 + 0.3 x 5 / 3 = 1.9."""
    own, mean = np.array([1, 2]), BITS[:2].mean(axis=1)

    got = losses([0, 1], mixed((2, 1, 2, 4)), *smoothing(0.3, 3, "torch"))

    assert got == pytest.approx(0.7 * own + 0.3 * mean)


def test_an_unmixed_batch_has_one_label_an_image():
    mix = Mixing().draw(np.random.default_rng(0), SHAPE)
    images = np.arange(24.0).reshape(SHAPE)

    assert mix.rolls == (0,)
    assert losses([0, 1, 2], mix) == pytest.approx([1, 2, 2])
    np.testing.assert_array_equal(apply(images, mix), images)


def test_mixup_mixes_each_image_with_the_one_before():
    """Image 0 has 0.75 of label 0 at 1 bit and 0.25 of label 1 at 2; image 1 half of both at 2 bits."""
    mix = mixed((2, 1, 2, 4), coefficients=[0.75, 0.5])

    np.testing.assert_array_equal(mix.weights, [[0.75, 0.25], [0.5, 0.5]])
    assert mix.rolls == (0, 1)
    assert losses([0, 1], mix) == pytest.approx([1.25, 2])
    np.testing.assert_array_equal(apply(constant([4.0, 8.0], (2, 1, 2, 4)), mix)[:, 0, 0, 0], [5, 6])


def test_cutmix_takes_a_box_from_the_image_before_the_one_before():
    """A quarter is cut. Image 0 meets 1, 1 meets 2 and 2 meets 0.

    0.75 x 1 + 0.25 x 2 = 1.25    0.75 x 2 + 0.25 x 1 = 1.75    0.75 x 2 + 0.25 x 2 = 2
    """
    mix = mixed(SHAPE, box=BOX)

    np.testing.assert_array_equal(mix.mask, [[[[1, 1, 1, 1], [0, 0, 1, 1]]]])
    np.testing.assert_array_equal(mix.weights, 3 * [[0.75, 0.25]])
    assert mix.rolls == (0, 2)
    assert losses([0, 1, 2], mix) == pytest.approx([1.25, 1.75, 2])
    np.testing.assert_array_equal(apply(constant([1.0, 10, 100], SHAPE), mix)[0, 0], [[1, 1, 1, 1], [10, 10, 1, 1]])


def test_cutmix_of_two_images_takes_the_other_one():
    mix = mixed((2, 1, 2, 4), box=BOX)

    assert mix.rolls == (0, 1)
    np.testing.assert_array_equal(apply(constant([1.0, 10], (2, 1, 2, 4)), mix)[:, 0, 1, 0], [10, 1])


def test_mixup_comes_before_cutmix_and_leaves_four_labels():
    """Mixed: 0.75 x 1 + 0.25 x 100 = 25.75, 0.5 x 10 + 0.5 x 1 = 5.5 and 100. Then a quarter is cut.

    image  own     mixed in  cut in  mixed in there  labels 0, 1, 2        loss
    0      0.5625  0.1875    0.125   0.125           0.6875 0.125  0.1875  0.6875 + 0.25 + 0.375 = 1.3125
    1      0.375   0.375     0.25    0               0.375  0.375  0.25    0.75 + 0.75 + 0.25 = 1.75
    2      0.75    0         0.1875  0.0625          0.1875 0      0.8125  0.375 + 1.625 = 2
    """
    mix = mixed(SHAPE, coefficients=[0.75, 0.5, 1], box=BOX)
    images = apply(constant([1.0, 10, 100], SHAPE), mix)

    np.testing.assert_array_equal(
        mix.weights, [[0.5625, 0.1875, 0.125, 0.125], [0.375, 0.375, 0.25, 0], [0.75, 0, 0.1875, 0.0625]]
    )
    assert mix.rolls == (0, 1, 2, 3)
    assert losses([0, 1, 2], mix) == pytest.approx([1.3125, 1.75, 2])
    np.testing.assert_array_equal(images[:, 0, 0, 0], [25.75, 5.5, 100])
    np.testing.assert_array_equal(images[:, 0, 1, 0], [5.5, 100, 25.75])


def test_smoothing_and_mixing_are_done_together():
    """Image 0's label is 0.6875, 0.125, 0.1875; each x 0.7, and 0.1 to all: 0.7 x 1.3125 + 0.1 x 5 = 1.41875."""
    mix = mixed(SHAPE, coefficients=[0.75, 0.5, 1], box=BOX)

    got = losses([0, 1, 2], mix, *smoothing(0.3, 3, "torch"))

    assert got == pytest.approx([1.41875, 0.7 * 1.75 + 0.5, 1.9])


@pytest.mark.parametrize(
    "mixing",
    [
        Mixing("tensorflow", alpha=0.2),
        Mixing("tensorflow", low=0.85, high=0.85),
        Mixing("tensorflow", alpha=0.2, low=0.85, high=0.85),
        Mixing("torch", alpha=0.1),
        Mixing("torch", low=0.65, high=1.0, disable=0.35),
        Mixing("torch", alpha=0.2, low=0.65, high=1.0, disable=0.35),
    ],
)
@pytest.mark.parametrize("seed", range(5))
def test_labels_weigh_what_their_images_are_of_the_mix(mixing, seed):
    """Images of one value each: the mean of a mixed image is the mean of the values, weighed as the labels are."""
    shape, values = (6, 3, 13, 20), np.array([1.0, 2, 4, 8, 16, 32])

    mix = mixing.draw(np.random.default_rng(seed), shape)

    rolled = np.stack([np.roll(values, roll) for roll in mix.rolls], axis=1)
    np.testing.assert_allclose(mix.weights.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(
        apply(constant(values, shape), mix).mean(axis=(1, 2, 3)), (mix.weights * rolled).sum(axis=1), rtol=1e-5
    )


def test_what_is_drawn_has_the_shapes_and_types_promised():
    mix = Mixing("torch", 0.2, 0.65, 1.0).draw(np.random.default_rng(0), (6, 3, 13, 20))

    shapes = [array.shape for array in (mix.weights, mix.coefficient, mix.mask)]
    assert shapes == [(6, 4), (6, 1, 1, 1), (1, 1, 13, 20)]
    assert {array.dtype.name for array in (mix.weights, mix.coefficient, mix.mask)} == {"float32"}


def test_the_same_seed_draws_the_same():
    mixing = Mixing("torch", 0.2, 0.65, 1.0, 0.35)
    first, second = (mixing.draw(np.random.default_rng(7), (6, 3, 13, 20)) for _ in range(2))

    np.testing.assert_array_equal(first.weights, second.weights)
    np.testing.assert_array_equal(first.mask, second.mask)


@pytest.mark.parametrize("alpha", [0.1, 0.2, 1.0, 8.0])
def test_coefficients_are_of_a_folded_beta_distribution(alpha):
    """The variance of Beta(a, a) is 1 / (4 (2a + 1)), which folding about 1/2 turns into a mean square."""
    drawn = draw_coefficients(np.random.default_rng(1), 20000, alpha).astype(float)

    assert drawn.min() >= 0.5
    assert drawn.max() <= 1
    assert np.mean((drawn - 0.5) ** 2) == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.03)


@pytest.mark.parametrize("alpha, mean", [(1.0, 0.75), (0.5, 0.5 + 1 / math.pi)])
def test_the_mean_coefficient_of_two_known_distributions(alpha, mean):
    assert draw_coefficients(np.random.default_rng(1), 20000, alpha).mean() == pytest.approx(mean, rel=0.01)


@pytest.mark.parametrize(
    "mixing, least",
    [
        (Mixing("tensorflow"), 1),
        (Mixing("tensorflow", alpha=0.2, low=0.85, high=0.85), 2),
        (Mixing("torch", low=0.0, high=0.0), 1),
        (Mixing("torch", alpha=0.2), 2),
        (Mixing("torch", low=0.5, high=1.0), 3),
        (Mixing("torch", alpha=0.2, low=0.5, high=1.0), 4),
    ],
)
def test_a_batch_has_enough_images_to_mix(mixing, least):
    mixing.draw(np.random.default_rng(0), (least, 1, 8, 8))

    with pytest.raises(ValueError, match=rf"^a batch of {least - 1} is too small for .*: {least} are needed$"):
        mixing.draw(np.random.default_rng(0), (least - 1, 1, 8, 8))


@pytest.mark.parametrize(
    "fields, said",
    [
        ({"definition": "keras"}, "no definition 'keras'; there are tensorflow, torch"),
        ({"alpha": -0.1}, "mixup's alpha -0.1 is neither zero nor a positive number"),
        ({"alpha": float("nan")}, "mixup's alpha nan is neither"),
        ({"low": 0.9, "high": 0.8}, "cutmix's part kept, 0.9 to 0.8, is not a range within 0 to 1"),
        ({"low": 0.5, "high": 1.1}, "cutmix's part kept, 0.5 to 1.1, is not a range"),
        ({"definition": "torch", "disable": 2}, "cutmix's probability of no cut 2 is not within 0 to 1"),
        ({"low": 0.5}, "cutmix in tensorflow keeps a fixed part and cuts every batch, unlike Mixing"),
        ({"disable": 0.5}, "cutmix in tensorflow keeps a fixed part and cuts every batch, unlike Mixing"),
    ],
)
def test_impossible_mixing_is_refused(fields, said):
    with pytest.raises(ValueError, match=f"^{said}"):
        Mixing(**fields)


@pytest.mark.parametrize(
    "arguments, said",
    [
        ((1.0, 3, "torch"), "label smoothing 1.0 is not within 0 to below 1"),
        ((-0.1, 3, "torch"), "label smoothing -0.1 is not within 0 to below 1"),
        ((0.1, 1, "torch"), "1 classes: labels of fewer than two cannot be smoothed"),
        ((0.1, 3, "pytorch"), "no definition 'pytorch'; there are tensorflow, torch"),
    ],
)
def test_impossible_smoothing_is_refused(arguments, said):
    with pytest.raises(ValueError, match=f"^{said}$"):
        smoothing(*arguments)

"""Label smoothing, mixup and cutmix: the random numbers that the host draws for a batch, and the formulas.

    mixup   x <- c x + (1 - c) x', c = max(b, 1 - b), b ~ Beta(alpha, alpha) for every image
    cutmix  x <- mask x + (1 - mask) x', one box for the batch; the weight of a label is its share of the area
    both    mixup first, then cutmix of the mixed images: four images and four labels

x' is the batch rolled along its first axis: image i meets image i - 1 in mixup, and i - 2 in cutmix. So with both no
image is mixed and cut with the same one. In a batch of two, which only TensorFlow allowed, cutmix rolls by 1.

Cutmix has two definitions. The box has the proportions of the image, and its edges are rounded to whole pixels.

    tensorflow  the kept area is fixed. The centre is uniform over the image, and the box is clipped at the border, so
                that more may be kept. (After 2.0 the box was moved inside instead.)
    torch       the kept area is uniform in [low, high). The position is uniform within the image. With a probability
                a batch is not cut: its box is empty, so that shapes and the number of labels are the same.

Source   Zhang et al. 2017 (mixup), Yun et al. 2019 (cutmix), as Graphcore's CNN harnesses had them: TensorFlow in
         SDK 2.0 (--mixup-alpha, --cutmix-lambda) and PyTorch in SDK 2.4 (--mixup-alpha, --cutmix-lambda-low and -high,
         --cutmix-disable-prob). Both drew mixup's c on the host, and drew the box and mixed on the device.
         TensorFlow did all on the host with --hostside-image-mixing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Optional, Tuple

Array = Any
Shape = Tuple[int, int, int, int]
DEFINITIONS = ("tensorflow", "torch")


class Box(NamedTuple):
    """Rows `top` to `bottom` and columns `left` to `right` are cut out, without `bottom` and `right`."""

    top: int
    bottom: int
    left: int
    right: int


@dataclass(frozen=True)
class Mix:
    """How the images of a batch are mixed. Each is a mix of K images, the first of which is the image itself.

    weights      (batch, K) float32: the weights of the labels; each row sums to 1
    rolls        K integers: the number of rows by which the batch is rolled for each label
    coefficient  (batch, 1, 1, 1) float32: mixup's c; None: no mixup
    mask         (1, 1, height, width) float32: 1 where the image stays, 0 in the box; None: no cutmix
    """

    weights: Array
    rolls: Tuple[int, ...]
    coefficient: Optional[Array] = None
    mask: Optional[Array] = None


@dataclass(frozen=True)
class Mixing:
    """The distribution of mixes. Without mixup `alpha` is 0; without cutmix `low` and `high` are 1.

    low, high    the share of the image's area that cutmix keeps: lambda. In `tensorflow` they are equal.
    disable      the probability that cutmix does not cut a batch; 0 in `tensorflow`

    In `torch` low = high = 0 also means no cutmix, as in the PyTorch harness, where it was the default.
    Raises ValueError for values that the definition does not allow.
    """

    definition: str = "tensorflow"
    alpha: float = 0.0
    low: float = 1.0
    high: float = 1.0
    disable: float = 0.0

    def __post_init__(self) -> None:
        _require_definition(self.definition)
        if not 0 <= self.alpha < float("inf"):
            raise ValueError(f"mixup's alpha {self.alpha} is neither zero nor a positive number")
        if not 0 <= self.low <= self.high <= 1:
            raise ValueError(f"cutmix's part kept, {self.low} to {self.high}, is not a range within 0 to 1")
        if not 0 <= self.disable <= 1:
            raise ValueError(f"cutmix's probability of no cut {self.disable} is not within 0 to 1")
        if self.definition == "tensorflow" and (self.low != self.high or self.disable):
            raise ValueError(f"cutmix in tensorflow keeps a fixed part and cuts every batch, unlike {self}")

    @property
    def mixup(self) -> bool:
        return self.alpha > 0

    @property
    def cutmix(self) -> bool:
        return (self.low, self.high) not in ([(1, 1)] if self.definition == "tensorflow" else [(0, 0), (1, 1)])

    @property
    def least_batch(self) -> int:
        """The smallest batch that the original harness allowed. TensorFlow's smallest ones mix an image with itself."""
        if self.definition == "tensorflow":
            return 2 if self.mixup or self.cutmix else 1
        return 1 + self.mixup + 2 * self.cutmix

    def draw(self, generator: Any, shape: Shape) -> Mix:
        """Return a random mix of a batch of `shape` (batch, channels, height, width).

        generator   a numpy Generator, of which mixup takes the first numbers
        Raises ValueError if the batch is smaller than `least_batch`.
        """
        batch, _, height, width = shape
        if batch < self.least_batch:
            raise ValueError(f"a batch of {batch} is too small for {self}: {self.least_batch} are needed")
        coefficients = draw_coefficients(generator, batch, self.alpha) if self.mixup else None
        if not self.cutmix:
            return mixed(shape, coefficients)
        if self.definition == "tensorflow":
            return mixed(shape, coefficients, clipped_box(generator, height, width, self.low))
        kept = generator.uniform(self.low, self.high)
        if generator.uniform() < self.disable:
            kept = 1.0
        return mixed(shape, coefficients, inner_box(generator, height, width, kept))


def draw_coefficients(generator: Any, batch: int, alpha: float) -> Array:
    """Return mixup's c of `batch` images, (batch,) float32 within 0.5 to 1."""
    import numpy as np

    drawn = generator.beta(alpha, alpha, batch).astype(np.float32)
    return np.maximum(drawn, np.float32(1) - drawn)


def clipped_box(generator: Any, height: int, width: int, kept: float) -> Box:
    """Return TensorFlow's box of (1 - `kept`) of the area, clipped at the border."""
    side = (1 - kept) ** 0.5
    left, right = _clipped(width * generator.uniform(), width * side, width)
    top, bottom = _clipped(height * generator.uniform(), height * side, height)
    return Box(top, bottom, left, right)


def inner_box(generator: Any, height: int, width: int, kept: float) -> Box:
    """Return PyTorch's box of (1 - `kept`) of the area, within the image."""
    side = (1 - kept) ** 0.5
    left = width * (1 - side) * generator.uniform()
    top = height * (1 - side) * generator.uniform()
    return Box(round(top), round(top + height * side), round(left), round(left + width * side))


def mixed(shape: Shape, coefficients: Optional[Array] = None, box: Optional[Box] = None) -> Mix:
    """Return the mix of a batch of `shape` with mixup's `coefficients`, (batch,), and cutmix's `box`.

    With both, the weights of the labels are c a, (1 - c) a, c' (1 - a) and (1 - c') (1 - a), and the rolls 0, 1, 2
    and 3. Here a is the share of the area that is kept, and c' the coefficient of the image that is cut in.
    """
    import numpy as np

    batch, _, height, width = shape
    first = np.ones(batch, np.float32) if coefficients is None else np.asarray(coefficients, np.float32)
    weights, rolls = [first], [0]
    if coefficients is not None:
        weights, rolls = [first, 1 - first], [0, 1]
    mask: Optional[Array] = None
    if box is not None:
        mask = np.ones((1, 1, height, width), np.float32)
        mask[:, :, box.top : box.bottom, box.left : box.right] = 0
        kept, roll = float(mask.mean(dtype=np.float64)), 2 if batch > 2 else 1
        weights = [kept * weight for weight in weights] + [(1 - kept) * np.roll(weight, roll) for weight in weights]
        rolls = rolls + [roll + mixup_roll for mixup_roll in rolls]
    coefficient = None if coefficients is None else first.reshape(batch, 1, 1, 1)
    return Mix(np.stack(weights, axis=1), tuple(rolls), coefficient, mask)


def smoothing(amount: float, classes: int, definition: str) -> Tuple[float, float]:
    """Return the target of the labelled class and of each other class; over all classes they sum to 1.

    tensorflow   1 - amount, and amount / (classes - 1): the amount is spread over the other classes
    torch        1 - amount + amount / classes, and amount / classes: it is spread over all classes
    Source       --label-smoothing of the two harnesses; torch's is Szegedy et al. 2015 and CrossEntropyLoss
    """
    _require_definition(definition)
    if not 0 <= amount < 1:
        raise ValueError(f"label smoothing {amount} is not within 0 to below 1")
    if classes < 2:
        raise ValueError(f"{classes} classes: labels of fewer than two cannot be smoothed")
    if definition == "tensorflow":
        return 1 - amount, amount / (classes - 1)
    return 1 - amount + amount / classes, amount / classes


def _clipped(centre: float, side: float, limit: int) -> Tuple[int, int]:
    return round(max(centre - side / 2, 0)), round(min(centre + side / 2, limit))


def _require_definition(name: str) -> None:
    if name not in DEFINITIONS:
        raise ValueError(f"no definition {name!r}; there are {', '.join(DEFINITIONS)}")

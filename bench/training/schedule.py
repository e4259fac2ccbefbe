"""The learning rate of a weight update, as a pure function of the update's number.

    constant     base_rate
    stepped      base_rate * drop_factor ** (number of drop_epochs reached)
    cosine       base_rate * (1 + cos(pi * update / total)) / 2
    exponential  base_rate * decay_factor ** floor(epochs / decay_epochs), or, with `drops`,
                 base_rate * decay_factor ** floor(drops * update / total)
    polynomial   end + (base_rate - end) * ((total - update) / (total - warm-up)) ** power, end = end_factor * base_rate

During the warm-up the rate above is multiplied by update / (updates of the warm-up), which rises from zero. The decay
runs meanwhile; only that of the polynomial starts after the warm-up.

Source   Graphcore's CNN harnesses: TensorFlow in SDK 2.0 (stepped, cosine, exponential, polynomial) and PyTorch
         in SDK 2.4 (step, cosine, exponential; its default, a step without drops, is `constant` here)

    field          here   TensorFlow 2.0                                 PyTorch 2.4
    base_rate      -      --base-learning-rate, --abs-learning-rate      --lr 0.01
    warmup_epochs  0      --warmup-epochs 5                              --warmup-epoch 0
    drop_epochs    ()     --learning-rate-schedule, shares of the run    --lr-epoch-decay, none
    drop_factor    0.1    --learning-rate-decay 0.1                      --lr-decay 0.5
    decay_factor   0.97   --lr-decay-rate, 0.97 in EfficientNet          --lr-decay 0.5
    decay_epochs   2.4    (no option)                                    1 / --lr-scheduler-freq, every update
    drops          0      --lr-drops, 146 in EfficientNet however long   (no option)
    end_factor     1e-5   --poly-lr-end-ratio 1e-5                       (no polynomial)
    power          2      --poly-lr-decay-power 2                        (no polynomial)

0.97 every 2.4 epochs is EfficientNet's schedule (Tan and Le 2019). Here each update has its rate. TensorFlow's harness
had one rate for all updates of a host call, and dropped one update later. PyTorch's changed the rate of the cosine
--lr-scheduler-freq times an epoch, or at every update.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Optional, Tuple

KINDS = ("constant", "stepped", "cosine", "exponential", "polynomial")
POSITIVE = ("base_rate", "drop_factor", "decay_factor", "decay_epochs", "power")
AT_LEAST_ZERO = ("warmup_epochs", "end_factor")
AT_MOST_ONE = ("drop_factor", "decay_factor", "end_factor")

# Epochs times updates per epoch are rounded: 3 * 0.1 epochs of 10 updates are 3.0000000000000004 updates. A drop less
# than this share of an update away is reached.
SLACK = 1e-6


def base_rate(learning_rate: Optional[float], exponent: Optional[float], global_batch: int) -> float:
    """Return the absolute rate: `learning_rate`, or, if it is None, 2 ** `exponent` * `global_batch`.

    The exponent is TensorFlow's --base-learning-rate, a rate per image of the global batch (batch size x gradient
    accumulation x replicas x instances). As there, an absolute rate overrides an exponent, so that a command line can
    override a preset. Raises ValueError if both are None.
    """
    _require(global_batch >= 1, f"a global batch of {global_batch}: at least one image is needed")
    if learning_rate is not None:
        _require(_is_positive(learning_rate), f"learning rate {learning_rate} is not a positive number")
        return learning_rate
    if exponent is None:
        raise ValueError("no learning rate: neither an absolute one nor an exponent of 2")
    _require(abs(exponent) <= 64, f"learning rate 2 ** {exponent}: the exponent is not within -64 to 64")
    return float(2.0**exponent * global_batch)


@dataclass(frozen=True)
class Schedule:
    """A schedule, whose lengths are in epochs. The docstring of this module explains the fields.

    Raises ValueError for an invalid kind or value, also of a field that the kind does not use.
    """

    kind: str
    base_rate: float
    warmup_epochs: float = 0.0
    drop_epochs: Tuple[float, ...] = ()
    drop_factor: float = 0.1
    decay_factor: float = 0.97
    decay_epochs: float = 2.4
    drops: int = 0
    end_factor: float = 1e-5
    power: float = 2.0

    def __post_init__(self) -> None:
        _require(self.kind in KINDS, f"no learning-rate schedule {self.kind!r}; there are {', '.join(KINDS)}")
        for name in POSITIVE:
            _require(_is_positive(getattr(self, name)), f"{name}={getattr(self, name)} is not a positive number")
        for name in AT_LEAST_ZERO:
            value = getattr(self, name)
            _require(value == 0 or _is_positive(value), f"{name}={value} is neither zero nor a positive number")
        for name in AT_MOST_ONE:
            _require(getattr(self, name) <= 1, f"{name}={getattr(self, name)} is above 1")
        _require(self.drops >= 0, f"drops={self.drops} is negative")
        rising = all(first < second for first, second in zip((0.0, *self.drop_epochs), self.drop_epochs))
        _require(rising, f"drop_epochs={self.drop_epochs} do not rise from above 0")

    def at(self, update: int, updates_per_epoch: float, total_updates: int) -> float:
        """Return the learning rate of weight update `update`, counted from 0, of a run of `total_updates`.

        `updates_per_epoch` may be a fraction: 1281167 images in batches of 16384 make 78.2. `update` may be
        `total_updates`, the end of the schedule. Raises ValueError for an update outside the run.
        """
        _require(_is_positive(updates_per_epoch), f"updates_per_epoch={updates_per_epoch} is not a positive number")
        _require(total_updates >= 1, f"a run of {total_updates} updates: at least one is needed")
        _require(0 <= update <= total_updates, f"update {update} is not within 0 to {total_updates}")
        warmup = self.warmup_epochs * updates_per_epoch
        ramp = update / warmup if update < warmup else 1.0
        return self.base_rate * ramp * self._factor(update, updates_per_epoch, total_updates, warmup)

    def _factor(self, update: int, updates_per_epoch: float, total_updates: int, warmup: float) -> float:
        """The rate of `update` without the warm-up's ramp, divided by the base rate."""
        if self.kind == "stepped":
            reached = sum(update + SLACK >= epoch * updates_per_epoch for epoch in self.drop_epochs)
            return float(self.drop_factor**reached)
        if self.kind == "cosine":
            return (1 + math.cos(math.pi * update / total_updates)) / 2
        if self.kind == "exponential" and self.drops:
            return float(self.decay_factor ** math.floor((update + SLACK) * self.drops / total_updates))
        if self.kind == "exponential":
            return float(self.decay_factor ** math.floor((update + SLACK) / (self.decay_epochs * updates_per_epoch)))
        if self.kind == "polynomial" and update > warmup:
            left = (total_updates - update) / (total_updates - warmup)
            return float(self.end_factor + (1 - self.end_factor) * left**self.power)
        return 1.0


def _is_positive(value: float) -> bool:
    return math.isfinite(value) and value > 0


def _require(condition: bool, text: str) -> None:
    if not condition:
        raise ValueError(text)

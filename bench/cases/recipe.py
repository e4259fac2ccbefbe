"""The recipe of training: all that makes one weight update. Plain data, part of the settings of a run."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace
from typing import Any, Dict, Optional, Tuple

from bench.training.mixing import Mixing, smoothing
from bench.training.schedule import Schedule, base_rate

# The optimisers, and the initial values of what each keeps for every number of a weight.
STATES: Dict[str, Dict[str, float]] = {
    "sgd": {},
    "momentum": {"velocity": 0.0},
    "rmsprop": {"square": 0.0, "velocity": 0.0},
    "rmsprop_tf": {"square": 1.0, "velocity": 0.0},
    "adam": {"mean": 0.0, "square": 0.0},
    "adamw": {"mean": 0.0, "square": 0.0},
    "lars": {"velocity": 0.0},
}
OPTIMISERS = tuple(STATES)
RECOMPUTE = ("none", "auto", "manual")
# The default epsilon of each optimiser.
EPSILONS = {"rmsprop": 1e-8, "rmsprop_tf": 1e-3, "adam": 1e-8, "adamw": 1e-8, "lars": 1e-9}
# The trust coefficient of LARS.
LARS_TRUST = 1e-3


@dataclass(frozen=True)
class Recipe:
    """One weight update, and the schedule of the learning rate.

    optimiser          one of OPTIMISERS; momentum, rmsprop_decay and optimiser_epsilon are its constants
    weight_decay       of weights of more than one dimension: not of biases and norms
    gradient_accumulation   the number of batches whose gradients are averaged into one update
    recompute          none; auto: all blocks are computed again in the backward pass, to save memory; manual: only
                       blocks whose names match `recompute_layers`
    label_smoothing    the share of the target that moves from the labelled class to those of
                       `label_smoothing_definition`
    mixup_alpha, cutmix_*   mixing of the images of a batch (`bench/training/mixing.py`)
    loss_scaling       the factor on the loss; None: depends on the precision
    learning_rate      the base rate; None: that of the workload
    base_learning_rate_exponent   the base rate is 2 to this power times the global batch
    """

    optimiser: str = "sgd"
    momentum: float = 0.9
    rmsprop_decay: float = 0.9
    optimiser_epsilon: Optional[float] = None
    weight_decay: float = 0.0
    gradient_accumulation: int = 1
    recompute: str = "none"
    recompute_layers: str = ""
    label_smoothing: float = 0.0
    label_smoothing_definition: str = "torch"
    mixup_alpha: float = 0.0
    cutmix_lambda: float = 1.0
    cutmix_lambda_low: float = 0.0
    cutmix_lambda_high: float = 0.0
    cutmix_disable_prob: float = 0.0
    loss_scaling: Optional[float] = None
    learning_rate: Optional[float] = None
    base_learning_rate_exponent: Optional[float] = None
    lr_schedule: str = "constant"
    warmup_epochs: float = 0.0
    lr_epoch_decay: Tuple[float, ...] = ()
    lr_decay: Optional[float] = None
    lr_drops: int = 0
    weight_avg_exp: float = 0.0
    weight_avg_n: int = 0
    epochs: float = 0.0

    def batches_per_update(self, mode: str) -> int:
        """The number of batches of one run: in training those of one weight update."""
        return self.gradient_accumulation if mode == "training" else 1

    @property
    def epsilon(self) -> float:
        if self.optimiser_epsilon is None:
            return EPSILONS.get(self.optimiser, 0.0)
        return self.optimiser_epsilon

    @property
    def linear(self) -> bool:
        """Whether an update is proportional to the gradient, so that the rate can undo a factor on the loss."""
        return self.optimiser in ("sgd", "momentum") and not self.weight_decay

    @property
    def mixup(self) -> bool:
        return self.mixup_alpha > 0

    @property
    def cutmix(self) -> bool:
        return self.cutmix_lambda < 1 or self.cutmix_lambda_high > 0

    @property
    def blends(self) -> Tuple[str, ...]:
        """The kinds of mixing, in order."""
        return tuple(name for name, on in (("mixup", self.mixup), ("cutmix", self.cutmix)) if on)

    def recomputes(self, block: str) -> bool:
        """Whether the block of this name is recomputed in the backward pass."""
        if self.recompute == "manual":
            return bool(block) and re.search(self.recompute_layers, block) is not None
        return bool(block) and self.recompute == "auto"

    def smoothed(self, classes: int) -> Tuple[float, float]:
        """The targets of the labelled class and of each other class: see `bench/training/mixing.py`."""
        return smoothing(self.label_smoothing, classes, self.label_smoothing_definition)

    def schedule(self, global_batch: int, default_rate: float) -> Schedule:
        """The schedule of the learning rate. `default_rate` is the workload's base rate."""
        base = default_rate
        if self.learning_rate is not None or self.base_learning_rate_exponent is not None:
            base = base_rate(self.learning_rate, self.base_learning_rate_exponent, global_batch)
        options: Dict[str, Any] = {}
        if self.lr_schedule == "stepped":
            options = {"drop_epochs": self.lr_epoch_decay, "drop_factor": self.lr_decay}
        if self.lr_schedule == "exponential":
            options = {"decay_epochs": next(iter(self.lr_epoch_decay), None), "decay_factor": self.lr_decay}
            options["drops"] = self.lr_drops
        options = {name: value for name, value in options.items() if value is not None}
        return Schedule(self.lr_schedule, base, warmup_epochs=self.warmup_epochs, **options)

    @property
    def mixing(self) -> Mixing:
        """The distribution of the mixing of a batch."""
        if self.cutmix_lambda_high:
            return Mixing(
                "torch", self.mixup_alpha, self.cutmix_lambda_low, self.cutmix_lambda_high, self.cutmix_disable_prob
            )
        return Mixing("tensorflow", self.mixup_alpha, self.cutmix_lambda, self.cutmix_lambda)

    @property
    def non_defaults(self) -> str:
        """The non-default fields, as `name=value`, in order."""
        defaults = {field.name: field.default for field in fields(self)}
        return ", ".join(
            f"{name}={getattr(self, name)}" for name, value in defaults.items() if getattr(self, name) != value
        )

    @property
    def checkable(self) -> Recipe:
        """The same recipe with plain SGD: its update is the gradient times the learning rate."""
        return replace(self, optimiser="sgd", weight_decay=0.0)

    def global_batch(self, batch_size: int, replicas: int) -> int:
        """The number of items of one weight update, over all replicas."""
        return batch_size * self.gradient_accumulation * replicas


DEFAULT_RECIPE = Recipe()

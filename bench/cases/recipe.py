"""How a network is trained: what makes one weight update. Plain data, part of the settings of a run."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace
from typing import Any, Dict, Optional, Tuple

from bench.training.mixing import Mixing, smoothing
from bench.training.schedule import Schedule, base_rate

OPTIMISERS = ("sgd", "momentum", "rmsprop", "rmsprop_tf", "adam", "adamw", "lars")
RECOMPUTE = ("none", "auto", "manual")
# What an optimiser adds to a root or a norm, unless told otherwise; LARS's trust in a layer's own rate.
EPSILONS = {"rmsprop": 1e-8, "rmsprop_tf": 1e-3, "adam": 1e-8, "adamw": 1e-8, "lars": 1e-9}
LARS_TRUST = 1e-3


@dataclass(frozen=True)
class Recipe:
    """One weight update, and how the rate changes from one to the next.

    optimiser          its rule; momentum, rmsprop_decay, optimiser_epsilon are its constants
    weight_decay       on weights of more than one dimension: not on biases and norms
    gradient_accumulation   batches whose gradients are averaged into one update
    recompute          none; auto: every block runs again in the backward pass instead of keeping its
                       results; manual: the blocks whose names match `recompute_layers`
    label_smoothing    the share that the labelled class loses, `label_smoothing_definition` says to whom
    mixup_alpha, cutmix_*   images blended with others of the batch (`bench/training/mixing.py`); 0 and 1 are off
    loss_scaling       the factor on the loss; None: as the precision needs
    learning_rate      of the base; None: the workload's. base_learning_rate_exponent: 2^x times the
                       global batch instead
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
        """Batches behind one run: in training those whose gradients are averaged into one update."""
        return self.gradient_accumulation if mode == "training" else 1

    @property
    def epsilon(self) -> float:
        if self.optimiser_epsilon is None:
            return EPSILONS.get(self.optimiser, 0.0)
        return self.optimiser_epsilon

    @property
    def linear(self) -> bool:
        """Whether an update is proportional to the gradient, so that a factor on the loss can be taken out
        of the rate."""
        return self.optimiser in ("sgd", "momentum") and not self.weight_decay

    @property
    def mixup(self) -> bool:
        return self.mixup_alpha > 0

    @property
    def cutmix(self) -> bool:
        return self.cutmix_lambda < 1 or self.cutmix_lambda_high > 0

    @property
    def blends(self) -> Tuple[str, ...]:
        """How images are blended, in order."""
        return tuple(name for name, on in (("mixup", self.mixup), ("cutmix", self.cutmix)) if on)

    def recomputes(self, block: str) -> bool:
        """Whether a block of that name runs again in the backward pass."""
        if self.recompute == "manual":
            return bool(block) and re.search(self.recompute_layers, block) is not None
        return bool(block) and self.recompute == "auto"

    def smoothed(self, classes: int) -> Tuple[float, float]:
        """The targets of the labelled class and of each other: see `bench/training/mixing.py`."""
        return smoothing(self.label_smoothing, classes, self.label_smoothing_definition)

    def schedule(self, global_batch: int, own_rate: float) -> Schedule:
        """The rate of each weight update; `own_rate`: the workload's, where the recipe has none."""
        base = own_rate
        if self.learning_rate is not None or self.base_learning_rate_exponent is not None:
            base = base_rate(self.learning_rate, self.base_learning_rate_exponent, global_batch)
        changed: Dict[str, Any] = {}
        if self.lr_schedule == "stepped":
            changed = {"drop_epochs": self.lr_epoch_decay, "drop_factor": self.lr_decay}
        if self.lr_schedule == "exponential":
            changed = {"decay_epochs": next(iter(self.lr_epoch_decay), None), "decay_factor": self.lr_decay}
            changed["drops"] = self.lr_drops
        given = {name: value for name, value in changed.items() if value is not None}
        return Schedule(self.lr_schedule, base, warmup_epochs=self.warmup_epochs, **given)

    @property
    def mixing(self) -> Mixing:
        """What to draw for each batch of images."""
        if self.cutmix_lambda_high:
            return Mixing(
                "torch", self.mixup_alpha, self.cutmix_lambda_low, self.cutmix_lambda_high, self.cutmix_disable_prob
            )
        return Mixing("tensorflow", self.mixup_alpha, self.cutmix_lambda, self.cutmix_lambda)

    @property
    def non_defaults(self) -> str:
        """What differs from the plain recipe, as `name=value`, in order."""
        plain = {field.name: field.default for field in fields(self)}
        return ", ".join(
            f"{name}={getattr(self, name)}" for name, value in plain.items() if getattr(self, name) != value
        )

    @property
    def checkable(self) -> Recipe:
        """The same with the one optimiser whose update tells the gradient."""
        return replace(self, optimiser="sgd", weight_decay=0.0)

    def global_batch(self, batch_size: int, replicas: int) -> int:
        """Items behind one weight update, over all replicas."""
        return batch_size * self.gradient_accumulation * replicas


# How layers and networks are trained unless told otherwise.
DEFAULT_RECIPE = Recipe()

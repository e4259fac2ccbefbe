"""PopTorch's optimisers by the names of a recipe. Their state is on the device."""

from __future__ import annotations

import copy
from typing import Any, Dict, Iterable

from bench.cases.recipe import Recipe

# The learning rate before it is set. Without an explicit rate, PopTorch would make it a constant.
NO_RATE = 0.0


def make(sdk: Any, recipe: Recipe, parameters: Iterable[Any], scale: float, combined: bool) -> Any:
    """An optimiser at learning rate 0. Weight decay is for weights of more than one dimension only. PopTorch multiplies
    the loss by `scale`, and divides the gradients by it.

    combined   momentum and accumulated gradients share a buffer, which holds them multiplied by `scale`
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    common = {"lr": NO_RATE, "loss_scaling": float(scale)}
    kind = recipe.optimiser
    if kind in ("sgd", "momentum"):
        momentum: Dict[str, Any] = {"momentum": recipe.momentum} if kind == "momentum" else {}
        if combined:
            momentum["velocity_scaling"] = float(scale)
        return sdk.optim.SGD(groups, use_combined_accum=combined, **common, **momentum)
    if kind in ("rmsprop", "rmsprop_tf"):
        options = {"alpha": recipe.rmsprop_decay, "eps": recipe.epsilon, "momentum": recipe.momentum}
        return sdk.optim.RMSprop(groups, use_tf_variant=kind == "rmsprop_tf", **common, **options)
    return {"adam": sdk.optim.Adam, "adamw": sdk.optim.AdamW}[kind](groups, eps=recipe.epsilon, **common)


class DeviceOptimiser:
    """The optimiser of a compiled program: its learning rate can be set, and its state reset."""

    def __init__(self, executor: Any, optimiser: Any, recipe: Recipe, streamed: bool) -> None:
        """`streamed`: the state can be read and written. Plain gradient descent has none."""
        self.executor, self.optimiser = executor, optimiser
        self.initial = copy.deepcopy(optimiser.state_dict()) if streamed and recipe.optimiser != "sgd" else None
        self.rate = NO_RATE

    def set_learning_rate(self, rate: float) -> None:
        self.rate = float(rate)
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate
        self.executor.setOptimizer(self.optimiser)

    def reset(self) -> None:
        if self.initial is not None:
            # The initial state includes the initial learning rate, so the present one is set again.
            self.optimiser.load_state_dict(copy.deepcopy(self.initial))
            self.executor.setOptimizer(self.optimiser)
            self.set_learning_rate(self.rate)

"""PopTorch's optimisers behind the names of a recipe. What they keep lies on the device."""

from __future__ import annotations

import copy
from typing import Any, Iterable

from bench.cases.recipe import Recipe

# Takes the place of a rate until there is one. Without any, PopTorch would take the rate for a constant.
NO_RATE = 0.0


def make(sdk: Any, recipe: Recipe, parameters: Iterable[Any], scale: float) -> Any:
    """An optimiser without a rate. Weight decay is on weights of more than one dimension only; the loss is scaled by
    `scale`, and the update back."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    common = {"lr": NO_RATE, "loss_scaling": float(scale)}
    kind = recipe.optimiser
    if kind in ("sgd", "momentum"):
        own = {"momentum": recipe.momentum} if kind == "momentum" else {}
        return sdk.optim.SGD(groups, use_combined_accum=False, **common, **own)
    if kind in ("rmsprop", "rmsprop_tf"):
        own = {"alpha": recipe.rmsprop_decay, "eps": recipe.epsilon, "momentum": recipe.momentum}
        return sdk.optim.RMSprop(groups, use_tf_variant=kind == "rmsprop_tf", **common, **own)
    return {"adam": sdk.optim.Adam, "adamw": sdk.optim.AdamW}[kind](groups, eps=recipe.epsilon, **common)


class Rated:
    """An optimiser of a compiled program: its rate can be set, and what it remembers forgotten."""

    def __init__(self, executor: Any, optimiser: Any, recipe: Recipe) -> None:
        self.executor, self.optimiser = executor, optimiser
        # Plain gradient descent remembers nothing, and asking a device for it takes time.
        self.fresh = copy.deepcopy(optimiser.state_dict()) if recipe.optimiser != "sgd" else None
        self.rate = NO_RATE

    def set_learning_rate(self, rate: float) -> None:
        self.rate = float(rate)
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate
        self.executor.setOptimizer(self.optimiser)

    def forget(self) -> None:
        if self.fresh is not None:
            # It goes to the device with the rate of that time: so it is sent, and then the rate again.
            self.optimiser.load_state_dict(copy.deepcopy(self.fresh))
            self.executor.setOptimizer(self.optimiser)
            self.set_learning_rate(self.rate)

"""The optimisers of a recipe: those of torch, and two that torch does not have."""

from __future__ import annotations

from typing import Any, Callable, Dict, Iterable, List

import torch

from bench.cases.recipe import LARS_TRUST, Recipe


def make(recipe: Recipe, parameters: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """An optimiser with learning rate 0. Only weights of more than one dimension decay."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
    ]
    return OPTIMISERS[recipe.optimiser]([group for group in groups if group["params"]], recipe)


class RMSpropTF(torch.optim.Optimizer):
    """TensorFlow's RMSprop: epsilon is inside the root, and the mean square starts at one."""

    def __init__(self, groups: Any, *, decay: float, momentum: float, epsilon: float) -> None:
        super().__init__(groups, {"lr": 0.0, "decay": decay, "momentum": momentum, "epsilon": epsilon})

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            weights = [p for p in group["params"] if p.grad is not None]
            gradients = decayed(weights, group["weight_decay"])
            for p in weights:
                if not self.state[p]:
                    self.state[p] = {"square": torch.ones_like(p), "velocity": torch.zeros_like(p)}
            squares = [self.state[p]["square"] for p in weights]
            velocities = [self.state[p]["velocity"] for p in weights]
            torch._foreach_mul_(squares, group["decay"])
            torch._foreach_addcmul_(squares, gradients, gradients, 1 - group["decay"])
            roots = torch._foreach_add(squares, group["epsilon"])
            torch._foreach_sqrt_(roots)
            torch._foreach_mul_(velocities, group["momentum"])
            torch._foreach_addcdiv_(velocities, gradients, roots, group["lr"])
            torch._foreach_sub_(weights, velocities)


class LARS(torch.optim.Optimizer):
    """Momentum with a learning rate per weight: the recipe's, times trust |w| / (|g| + decay |w|).

    Biases and norms use the recipe's learning rate.

    Source   You et al. 2017
    """

    def __init__(self, groups: Any, *, momentum: float, epsilon: float) -> None:
        super().__init__(groups, {"lr": 0.0, "momentum": momentum, "epsilon": epsilon})

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                gradient = p.grad + group["weight_decay"] * p if group["weight_decay"] else p.grad
                if p.dim() > 1:
                    size, slope = p.norm(), p.grad.norm()
                    trust = LARS_TRUST * size / (slope + group["weight_decay"] * size + group["epsilon"])
                    gradient = gradient * torch.where((size > 0) & (slope > 0), trust, torch.ones_like(trust))
                velocity = self.state[p].setdefault("velocity", torch.zeros_like(p))
                velocity.mul_(group["momentum"]).add_(gradient * group["lr"])
                p.sub_(velocity)


def decayed(weights: List[torch.Tensor], decay: float) -> List[torch.Tensor]:
    """The gradients, plus `decay` times the weights."""
    gradients = [p.grad for p in weights if p.grad is not None]
    return torch._foreach_add(gradients, weights, alpha=decay) if decay else gradients


def _sgd(momentum: bool) -> Callable[..., torch.optim.Optimizer]:
    return lambda groups, recipe: torch.optim.SGD(groups, lr=0.0, momentum=recipe.momentum if momentum else 0.0)


OPTIMISERS: Dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": _sgd(False),
    "momentum": _sgd(True),
    "rmsprop": lambda groups, recipe: torch.optim.RMSprop(
        groups, lr=0.0, alpha=recipe.rmsprop_decay, eps=recipe.epsilon, momentum=recipe.momentum
    ),
    "rmsprop_tf": lambda groups, recipe: RMSpropTF(
        groups, decay=recipe.rmsprop_decay, momentum=recipe.momentum, epsilon=recipe.epsilon
    ),
    "adam": lambda groups, recipe: torch.optim.Adam(groups, lr=0.0, eps=recipe.epsilon),
    "adamw": lambda groups, recipe: torch.optim.AdamW(groups, lr=0.0, eps=recipe.epsilon),
    "lars": lambda groups, recipe: LARS(groups, momentum=recipe.momentum, epsilon=recipe.epsilon),
}

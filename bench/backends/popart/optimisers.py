"""PopART's optimisers by the names of a recipe."""

from __future__ import annotations

from typing import Any, Callable, Dict, Mapping, Optional, Tuple

from bench.backends._onnx.model import Held
from bench.cases.recipe import Recipe

# A hyperparameter, and whether it is constant in a session.
Value = Tuple[float, bool]


def make(
    popart: Any, recipe: Recipe, rate: float, scale: float, held: Mapping[str, Held], combined: Optional[bool]
) -> Any:
    """An optimiser with a learning rate for a loss multiplied by `scale`, by which it divides the gradients itself.

    Weight decay is for weights of more than one dimension only. `held`: the weights in each initializer.

    combined   whether momentum and accumulated gradients share a buffer; None: PopART's default, which is to share it
    """
    values: Dict[str, Value] = {"defaultLearningRate": (rate, False), "lossScaling": (scale, True)}
    if recipe.weight_decay:
        values["defaultWeightDecay"] = (recipe.weight_decay, True)
    if recipe.optimiser == "momentum" and combined is not None:
        optimiser = _momentum_in(popart, recipe, values, combined)
    else:
        optimiser = MAKERS[recipe.optimiser](popart, recipe, values)
    if recipe.weight_decay:
        for name, parts in held.items():
            if all(weight.trained and len(weight.shape) == 1 for weight, _ in parts):
                optimiser.insertSpecific(name, {"weightDecay": (0.0, True)})
    return optimiser


def _sgd(popart: Any, recipe: Recipe, values: Dict[str, Value]) -> Any:
    return popart.SGD(values)


def _momentum(popart: Any, recipe: Recipe, values: Dict[str, Value]) -> Any:
    return popart.SGD({**values, "defaultMomentum": (recipe.momentum, True)})


def _momentum_in(popart: Any, recipe: Recipe, values: Dict[str, Value], combined: bool) -> Any:
    """Momentum in the buffer of the accumulated gradients, multiplied by the scale of the loss; or in its own."""
    kinds = popart.SGDAccumulatorAndMomentum
    scaling = {"defaultVelocityScaling": values["lossScaling"]} if combined else {}
    values = {**values, "defaultMomentum": (recipe.momentum, True), **scaling}
    return popart.SGD(values, accumulatorAndMomentum=kinds.Combined if combined else kinds.Separate)


def _adam(popart: Any, recipe: Recipe, values: Dict[str, Value]) -> Any:
    """Adam adds the weight decay to the gradient. AdamW applies it to the weights."""
    kinds = popart.WeightDecayMode
    kind = kinds.Decay if recipe.optimiser == "adamw" else kinds.L2Regularization
    rest = {"defaultBeta1": (0.9, True), "defaultBeta2": (0.999, True), "defaultEps": (recipe.epsilon, True)}
    return popart.Adam({**values, **rest}, weight_decay_mode=kind)


def _rmsprop(popart: Any, recipe: Recipe, values: Dict[str, Value]) -> Any:
    rest = {
        "defaultAlpha": (recipe.rmsprop_decay, True),
        "defaultMomentum": (recipe.momentum, True),
        "defaultEps": (recipe.epsilon, True),
    }
    return popart.Adaptive(
        {**values, **rest},
        mode=popart.AdaptiveMode.RMSProp,
        weight_decay_mode=popart.WeightDecayMode.L2Regularization,
        rmsprop_tf_variant=recipe.optimiser == "rmsprop_tf",
    )


MAKERS: Dict[str, Callable[[Any, Recipe, Dict[str, Value]], Any]] = {
    "sgd": _sgd,
    "momentum": _momentum,
    "rmsprop": _rmsprop,
    "rmsprop_tf": _rmsprop,
    "adam": _adam,
    "adamw": _adam,
}

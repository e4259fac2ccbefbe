"""The optimisers of a recipe, written as formulas. They compute in fp32 in every precision, and equal torch's.

A rule takes the weights, the gradient, the learning rate, the state and the number of updates. It returns what is
subtracted from the weights, and the new state.
"""

from __future__ import annotations

import math
from typing import Any, Callable, Dict, Tuple

import jax.numpy as jnp

from bench.cases.recipe import LARS_TRUST, OPTIMISERS, STATES, Recipe

Array = Any
State = Dict[str, Array]
FIRST, SECOND = 0.9, 0.999


def start(recipe: Recipe, weights: Dict[str, Array]) -> Dict[str, State]:
    """The state before the first update, in the types of the weights, as in torch."""
    starts = STATES[recipe.optimiser]
    return {name: {key: jnp.full_like(w, value) for key, value in starts.items()} for name, w in weights.items()}


def update(recipe: Recipe, w: Array, g: Array, rate: Array, state: State, count: Array) -> Tuple[Array, State]:
    """The new weights of one array and its new state. Only weights of more than one dimension decay."""
    rule = RULES[recipe.optimiser]
    wide = {key: value.astype(jnp.float32) for key, value in state.items()}
    exact = w.astype(jnp.float32)
    step, after = rule(recipe, exact, g, rate, wide, count)
    return (exact - step).astype(w.dtype), {key: value.astype(w.dtype) for key, value in after.items()}


def _decayed(recipe: Recipe, w: Array, g: Array) -> Array:
    return g + recipe.weight_decay * w if recipe.weight_decay and w.ndim > 1 else g


def _sgd(recipe: Recipe, w: Array, g: Array, rate: Array, state: State, count: Array) -> Tuple[Array, State]:
    return rate * _decayed(recipe, w, g), {}


def _momentum(recipe: Recipe, w: Array, g: Array, rate: Array, state: State, count: Array) -> Tuple[Array, State]:
    velocity = recipe.momentum * state["velocity"] + _decayed(recipe, w, g)
    return rate * velocity, {"velocity": velocity}


def _rmsprop(recipe: Recipe, w: Array, g: Array, rate: Array, state: State, count: Array) -> Tuple[Array, State]:
    g = _decayed(recipe, w, g)
    square = recipe.rmsprop_decay * state["square"] + (1 - recipe.rmsprop_decay) * g**2
    velocity = recipe.momentum * state["velocity"] + g / (jnp.sqrt(square) + recipe.epsilon)
    return rate * velocity, {"square": square, "velocity": velocity}


def _rmsprop_tf(recipe: Recipe, w: Array, g: Array, rate: Array, state: State, count: Array) -> Tuple[Array, State]:
    g = _decayed(recipe, w, g)
    square = recipe.rmsprop_decay * state["square"] + (1 - recipe.rmsprop_decay) * g**2
    velocity = recipe.momentum * state["velocity"] + rate * g / jnp.sqrt(square + recipe.epsilon)
    return velocity, {"square": square, "velocity": velocity}


def _adam(recipe: Recipe, w: Array, g: Array, rate: Array, state: State, count: Array) -> Tuple[Array, State]:
    return _moments(recipe, _decayed(recipe, w, g), rate, state, count)


def _adamw(recipe: Recipe, w: Array, g: Array, rate: Array, state: State, count: Array) -> Tuple[Array, State]:
    step, after = _moments(recipe, g, rate, state, count)
    return step + rate * _decayed(recipe, w, jnp.zeros_like(w)), after


def _moments(recipe: Recipe, g: Array, rate: Array, state: State, count: Array) -> Tuple[Array, State]:
    mean = FIRST * state["mean"] + (1 - FIRST) * g
    square = SECOND * state["square"] + (1 - SECOND) * g**2
    # In fp32, 1 - 0.999^t would lose four digits in the first updates.
    first, second = (-jnp.expm1(count * math.log(share)) for share in (FIRST, SECOND))
    step = rate / first * mean / (jnp.sqrt(square) / jnp.sqrt(second) + recipe.epsilon)
    return step, {"mean": mean, "square": square}


def _lars(recipe: Recipe, w: Array, g: Array, rate: Array, state: State, count: Array) -> Tuple[Array, State]:
    if w.ndim > 1:
        size, slope = (jnp.sqrt((array**2).sum()) for array in (w, g))
        trust = LARS_TRUST * size / (slope + recipe.weight_decay * size + recipe.epsilon)
        g = _decayed(recipe, w, g) * jnp.where((size > 0) & (slope > 0), trust, 1.0)
    velocity = recipe.momentum * state["velocity"] + rate * g
    return velocity, {"velocity": velocity}


Rule = Callable[[Recipe, Array, Array, Array, State, Array], Tuple[Array, State]]
RULES: Dict[str, Rule] = dict(zip(OPTIMISERS, (_sgd, _momentum, _rmsprop, _rmsprop_tf, _adam, _adamw, _lars)))

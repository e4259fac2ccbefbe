"""The optimisers of a recipe, written as formulas. They compute in fp32 in every precision, and equal torch's.

A rule takes the weights, the gradient, the learning rate, the state and the number of updates. It returns what is
subtracted from the weights, and the new state. Keras's optimisers differ: its RMSprop has epsilon inside the root, its
Adam scales epsilon by the correction of the second moment, and both decay every weight alike.
"""

from __future__ import annotations

import math
from typing import Any, Callable, Dict, List, Sequence, Tuple

import tensorflow as tf

from bench.cases.recipe import LARS_TRUST, OPTIMISERS, STATES, Recipe

State = Dict[str, Any]
FIRST, SECOND = 0.9, 0.999


class Optimiser:
    """Updates variables. The state of each is in the type of the variable, as in torch.

    matrices   for each variable, whether it has more than one dimension: only those decay
    """

    def __init__(self, recipe: Recipe, variables: Sequence[Any], matrices: Sequence[bool]) -> None:
        self.recipe, self.variables, self.matrices = recipe, variables, matrices
        self.rule, starts = RULES[recipe.optimiser], STATES[recipe.optimiser]
        self.count = tf.Variable(0.0, trainable=False)
        self.states = [
            {
                name: tf.Variable(tf.fill(v.shape, tf.cast(start, v.dtype)), trainable=False)
                for name, start in starts.items()
            }
            for v in variables
        ]

    def reset(self) -> None:
        """Set the state to that before the first update."""
        self.count.assign(0.0)
        for state in self.states:
            for name, start in STATES[self.recipe.optimiser].items():
                state[name].assign(tf.fill(state[name].shape, tf.cast(start, state[name].dtype)))

    def apply(self, gradients: Sequence[Any], rate: Any) -> List[Any]:
        """Update the variables. Returns the assignments, which a TensorFlow 1 graph must run."""
        count = self.count.assign_add(1.0)
        done = [count]
        recipe = self.recipe
        for variable, gradient, stored, matrix in zip(self.variables, gradients, self.states, self.matrices):
            before = {name: tf.cast(state, tf.float32) for name, state in stored.items()}
            weights, gradient = tf.cast(variable, tf.float32), tf.cast(gradient, tf.float32)
            step, after = self.rule(recipe, weights, gradient, rate, before, count, matrix)
            for name, state in after.items():
                done.append(stored[name].assign(tf.cast(state, variable.dtype)))
            done.append(variable.assign_sub(tf.cast(step, variable.dtype)))
        return done


def _decayed(recipe: Recipe, weights: Any, gradient: Any, matrix: bool) -> Any:
    return gradient + recipe.weight_decay * weights if recipe.weight_decay and matrix else gradient


def _sgd(recipe: Recipe, w: Any, g: Any, rate: Any, state: State, count: Any, matrix: bool) -> Tuple[Any, State]:
    return rate * _decayed(recipe, w, g, matrix), {}


def _momentum(recipe: Recipe, w: Any, g: Any, rate: Any, state: State, count: Any, matrix: bool) -> Tuple[Any, State]:
    velocity = recipe.momentum * state["velocity"] + _decayed(recipe, w, g, matrix)
    return rate * velocity, {"velocity": velocity}


def _rmsprop(recipe: Recipe, w: Any, g: Any, rate: Any, state: State, count: Any, matrix: bool) -> Tuple[Any, State]:
    g = _decayed(recipe, w, g, matrix)
    square = recipe.rmsprop_decay * state["square"] + (1 - recipe.rmsprop_decay) * tf.square(g)
    velocity = recipe.momentum * state["velocity"] + g / (tf.sqrt(square) + recipe.epsilon)
    return rate * velocity, {"square": square, "velocity": velocity}


def _rmsprop_tf(recipe: Recipe, w: Any, g: Any, rate: Any, state: State, count: Any, matrix: bool) -> Tuple[Any, State]:
    g = _decayed(recipe, w, g, matrix)
    square = recipe.rmsprop_decay * state["square"] + (1 - recipe.rmsprop_decay) * tf.square(g)
    velocity = recipe.momentum * state["velocity"] + rate * g / tf.sqrt(square + recipe.epsilon)
    return velocity, {"square": square, "velocity": velocity}


def _adam(recipe: Recipe, w: Any, g: Any, rate: Any, state: State, count: Any, matrix: bool) -> Tuple[Any, State]:
    return _moments(recipe, _decayed(recipe, w, g, matrix), rate, state, count)


def _adamw(recipe: Recipe, w: Any, g: Any, rate: Any, state: State, count: Any, matrix: bool) -> Tuple[Any, State]:
    step, after = _moments(recipe, g, rate, state, count)
    return (step + rate * recipe.weight_decay * w if recipe.weight_decay and matrix else step), after


def _moments(recipe: Recipe, g: Any, rate: Any, state: State, count: Any) -> Tuple[Any, State]:
    mean = FIRST * state["mean"] + (1 - FIRST) * g
    square = SECOND * state["square"] + (1 - SECOND) * tf.square(g)
    # In fp32, 1 - 0.999^t would lose four digits in the first updates.
    first, second = (-tf.math.expm1(count * math.log(share)) for share in (FIRST, SECOND))
    step = rate / first * mean / (tf.sqrt(square) / tf.sqrt(second) + recipe.epsilon)
    return step, {"mean": mean, "square": square}


def _lars(recipe: Recipe, w: Any, g: Any, rate: Any, state: State, count: Any, matrix: bool) -> Tuple[Any, State]:
    if matrix:
        size, slope = tf.norm(w), tf.norm(g)
        trust = LARS_TRUST * size / (slope + recipe.weight_decay * size + recipe.epsilon)
        g = _decayed(recipe, w, g, matrix) * tf.where((size > 0) & (slope > 0), trust, 1.0)
    velocity = recipe.momentum * state["velocity"] + rate * g
    return velocity, {"velocity": velocity}


Rule = Callable[[Recipe, Any, Any, Any, State, Any, bool], Tuple[Any, State]]
RULES: Dict[str, Rule] = dict(zip(OPTIMISERS, (_sgd, _momentum, _rmsprop, _rmsprop_tf, _adam, _adamw, _lars)))

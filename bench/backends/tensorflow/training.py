"""Weight updates in TensorFlow: gradients of one batch after another, averaged over replicas where there are some."""

from __future__ import annotations

import functools
from typing import Any, Callable, List

import tensorflow as tf

from bench.backends.tensorflow import optimisers, replicas
from bench.cases.case import Case
from bench.cases.precision import loss_scale
from bench.cases.recipe import Recipe


class Trainer:
    """One weight update: the gradients of one batch after another, then the optimiser."""

    def __init__(self, lowered: Any, case: Case, recipe: Recipe, elements: int) -> None:
        self.recipe = recipe
        trained = [(variable, weight) for variable, weight in lowered.variables() if weight.trained]
        self.variables = [variable for variable, _ in trained]
        matrices = [len(weight.shape) > 1 for _, weight in trained]
        self.optimiser = optimisers.Optimiser(recipe, self.variables, matrices)
        self.scale = recipe.loss_scaling or loss_scale(case.precision, elements)
        self.rate = tf.Variable(0.0, dtype=tf.float32, trainable=False)

    def set_learning_rate(self, rate: float) -> None:
        self.rate.assign(rate / self.scale if self.recipe.linear else rate)

    def steps(self, forward: Callable[..., Any], count: int, all_reducing: bool) -> List[Callable[..., Any]]:
        """What is done with all batches but the last, what with the last, where replicas all-reduce the mean of their
        gradients, and the same without that.

        Two functions and sums in variables: `count` copies of the network in one graph would be traced, optimised and
        kept `count` times, and a loop on the device would copy each batch out of a stack of them. A call costs less
        than a millisecond.
        """
        factor = self.scale / count
        sums = [tf.Variable(tf.zeros_like(v), trainable=False) for v in self.variables] if count > 1 else []

        def gradients(args: Any) -> Any:
            with tf.GradientTape() as tape:
                output, loss = forward(*args)
                scaled = loss * factor if factor != 1 else loss
            return output, loss, tape.gradient(scaled, self.variables)

        def add(*args: Any) -> None:
            for total, gradient in zip(sums, gradients(args)[2]):
                total.assign_add(gradient)

        def update(*args: Any, all_reduce: bool = False) -> Any:
            output, loss, found = gradients(args)
            if sums:
                found = [gradient + total for gradient, total in zip(found, sums)]
            if all_reduce:
                found = replicas.mean(found)
            if self.scale != 1 and not self.recipe.linear:
                found = [tf.cast(gradient, tf.float32) / self.scale for gradient in found]
            self.optimiser.apply(found, self.rate)
            for total in sums:
                total.assign(tf.zeros_like(total))
            return output, loss

        if not all_reducing:
            return [add, update, update]
        return [add, replicas.run_in_replicas(functools.partial(update, all_reduce=True)), update]

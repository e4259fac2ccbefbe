"""Weight updates in TensorFlow: gradient accumulation, and all-reduce over several replicas."""

from __future__ import annotations

import functools
from typing import Any, Callable, List

import tensorflow as tf

from bench.backends.tensorflow import optimisers, replicas
from bench.cases.case import Case
from bench.cases.precision import loss_scale
from bench.cases.recipe import Recipe


class Trainer:
    """Makes the functions of a weight update: the gradients of each batch, then the optimiser."""

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
        """Three functions: for all batches but the last, for the last batch, and for the last batch without all-reduce.

        The sums of the gradients are in variables. A single function for all batches would contain the network `count`
        times, and a loop on the device would copy each batch out of a stack. A call costs less than a millisecond.
        """
        factor = self.scale / count
        sums = [tf.Variable(tf.zeros_like(v), trainable=False) for v in self.variables] if count > 1 else []

        def differentiate(args: Any) -> Any:
            with tf.GradientTape() as tape:
                output, loss = forward(*args)
                scaled = loss * factor if factor != 1 else loss
            return output, loss, tape.gradient(scaled, self.variables)

        def add(*args: Any) -> None:
            for total, gradient in zip(sums, differentiate(args)[2]):
                total.assign_add(gradient)

        def update(*args: Any, all_reduce: bool = False) -> Any:
            output, loss, gradients = differentiate(args)
            if sums:
                gradients = [gradient + total for gradient, total in zip(gradients, sums)]
            if all_reduce:
                gradients = replicas.all_reduce(gradients)
            if self.scale != 1 and not self.recipe.linear:
                gradients = [tf.cast(gradient, tf.float32) / self.scale for gradient in gradients]
            self.optimiser.apply(gradients, self.rate)
            for total in sums:
                total.assign(tf.zeros_like(total))
            return output, loss

        if not all_reducing:
            return [add, update, update]
        return [add, replicas.run_in_replicas(functools.partial(update, all_reduce=True)), update]

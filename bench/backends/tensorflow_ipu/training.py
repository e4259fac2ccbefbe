"""Weight updates on IPUs: a recipe's optimiser in the SDK's wrappers, which accumulate and average gradients."""

from __future__ import annotations

from typing import Any, List, Sequence, Tuple

import tensorflow as tf

from bench.backends import _ipu
from bench.backends.tensorflow import optimisers
from bench.backends.tensorflow_ipu.layers import Network
from bench.cases.case import Case, Settings

Pairs = List[Tuple[Any, Any]]


class Trainer:
    """Updates weights and running statistics.

    variables   the variables with a gradient: weights, then running statistics
    scale       the factor on the loss, by which the gradients are divided again
    """

    def __init__(self, network: Network, case: Case, settings: Settings) -> None:
        self.settings, self.recipe = settings, settings.recipe
        trained = [(variable, weight) for variable, weight in network.variables() if weight.trained]
        self.weights = [variable for variable, _ in trained]
        self.running = [variable for variable, _ in network.running]
        self.variables = self.weights + self.running
        # One update of the statistics, by their mean, equals one after each of the accumulated batches.
        count = self.recipe.gradient_accumulation
        self.shares = [(1 - (1 - share) ** count) / share for _, share in network.running]
        matrices = [len(weight.shape) > 1 for _, weight in trained]
        self.optimiser = optimisers.Optimiser(self.recipe, self.weights, matrices)
        self.scale = _ipu.scale_of_loss(network.graph, case, settings)
        self.rate = tf.Variable(0.0, dtype=tf.float32, trainable=False)

    def set_learning_rate(self, rate: float) -> None:
        self.rate.assign(rate / self.scale if self.recipe.linear else rate)

    def in_loop(self) -> Any:
        """The optimiser of a loop over batches, which run one after another on each replica."""
        from tensorflow.python.ipu import gradient_accumulation
        from tensorflow.python.ipu.optimizers import gradient_accumulation_optimizer as accumulation

        poplar, optimiser = self.settings.poplar, self._optimiser()
        offloaded = poplar.variable_offloading or poplar.replicated_tensor_sharding
        if self.recipe.gradient_accumulation == 1 and not offloaded:
            return optimiser
        return accumulation.GradientAccumulationOptimizerV2(
            optimiser,
            self.recipe.gradient_accumulation,
            offload_weight_update_variables=poplar.variable_offloading,
            replicated_optimizer_state_sharding=poplar.replicated_tensor_sharding,
            reduction_method=gradient_accumulation.GradientAccumulationReductionMethod.MEAN,
        )

    def in_pipeline(self, loss: Any) -> Any:
        """The optimiser of a pipeline, which accumulates gradients itself, and the loss."""
        from tensorflow.python.ipu.ops import pipelining_ops

        return pipelining_ops.OptimizerFunctionOutput(
            self._optimiser(),
            self.scaled(loss),
            compute_gradients_kwargs={"var_list": self.variables},
        )

    def _optimiser(self) -> Any:
        """The recipe's optimiser, with an all-reduce over replicas unless the settings switch it off.

        It is wrapped in either case: a pipeline inspects `apply_gradients` with a function that fails on annotations.
        """
        from tensorflow.python.ipu.optimizers import cross_replica_optimizer, ipu_optimizer

        if self.settings.all_reduce:
            return cross_replica_optimizer.CrossReplicaOptimizer(_Optimiser(self))
        return ipu_optimizer.IpuOptimizer(_Optimiser(self), name="alone")

    def scaled(self, loss: Any) -> Any:
        return loss * self.scale if self.scale != 1 else loss

    def gradients(self, tape: Any, loss: Any) -> Pairs:
        return list(zip(tape.gradient(loss, self.variables), self.variables))

    def apply(self, gradients: Sequence[Any]) -> List[Any]:
        """Update weights and statistics by gradients in the order of `variables`. Returns the operations."""
        of_weights, of_running = gradients[: len(self.weights)], gradients[len(self.weights) :]
        if self.scale != 1 and not self.recipe.linear:
            of_weights = [tf.cast(gradient, tf.float32) / self.scale for gradient in of_weights]
        operations = self.optimiser.apply(of_weights, self.rate)
        for variable, gradient, share in zip(self.running, of_running, self.shares):
            operations.append(variable.assign_sub(tf.cast(gradient * tf.cast(share, gradient.dtype), variable.dtype)))
        return operations


class _Optimiser(tf.compat.v1.train.Optimizer):  # type: ignore[misc]
    """A trainer as an optimiser of the class that the SDK's wrappers and pipelines take."""

    def __init__(self, trainer: Trainer) -> None:
        super().__init__(use_locking=False, name="layerbench")
        self.trainer = trainer

    def compute_gradients(self, loss: Any, var_list: Any = None, **_: Any) -> Pairs:
        return list(zip(tf.gradients(loss, var_list), var_list))

    def apply_gradients(self, grads_and_vars: Any, global_step: Any = None, name: Any = None) -> Any:
        return tf.group(*self.trainer.apply([gradient for gradient, _ in grads_and_vars]))

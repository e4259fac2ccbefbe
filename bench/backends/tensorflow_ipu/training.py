"""Weight updates on IPUs: a recipe's optimiser behind the SDK's wrappers, which accumulate and average gradients."""

from __future__ import annotations

from typing import Any, List, Sequence, Tuple

import tensorflow as tf

from bench.backends import _ipu
from bench.backends.tensorflow import optimisers
from bench.backends.tensorflow_ipu.layers import Network
from bench.cases.case import Case, Settings

Pairs = List[Tuple[Any, Any]]


class Trainer:
    """What turns gradients into new weights.

    variables   those with a gradient: the weights, then the running statistics
    scale       the factor on the loss, which goes out of the gradients again
    """

    def __init__(self, network: Network, case: Case, settings: Settings) -> None:
        self.settings, self.recipe = settings, settings.recipe
        trained = [(variable, weight) for variable, weight in network.variables() if weight.trained]
        self.weights = [variable for variable, _ in trained]
        self.running = [variable for variable, _ in network.running]
        self.variables = self.weights + self.running
        # One move stands for those of all the batches behind an update.
        count = self.recipe.gradient_accumulation
        self.shares = [(1 - (1 - share) ** count) / share for _, share in network.running]
        matrices = [len(weight.shape) > 1 for _, weight in trained]
        self.optimiser = optimisers.Optimiser(self.recipe, self.weights, matrices)
        self.scale = _ipu.scale_of_loss(network.graph, case, settings)
        self.rate = tf.Variable(0.0, dtype=tf.float32, trainable=False)

    def set_learning_rate(self, rate: float) -> None:
        self.rate.assign(rate / self.scale if self.recipe.linear else rate)

    def in_loop(self) -> Any:
        """The optimiser of a loop over batches, one behind the other on each replica."""
        from tensorflow.python.ipu import gradient_accumulation
        from tensorflow.python.ipu.optimizers import gradient_accumulation_optimizer as accumulation

        chosen, own = self.settings.poplar, self._own()
        offloaded = chosen.variable_offloading or chosen.replicated_tensor_sharding
        if self.recipe.gradient_accumulation == 1 and not offloaded:
            return own
        return accumulation.GradientAccumulationOptimizerV2(
            own,
            self.recipe.gradient_accumulation,
            offload_weight_update_variables=chosen.variable_offloading,
            replicated_optimizer_state_sharding=chosen.replicated_tensor_sharding,
            reduction_method=gradient_accumulation.GradientAccumulationReductionMethod.MEAN,
        )

    def in_pipeline(self, loss: Any) -> Any:
        """What a pipeline, which accumulates by itself, is to do with a loss."""
        from tensorflow.python.ipu.ops import pipelining_ops

        return pipelining_ops.OptimizerFunctionOutput(
            self._own(),
            self.scaled(loss),
            compute_gradients_kwargs={"var_list": self.variables},
        )

    def _own(self) -> Any:
        """The recipe's optimiser, which replicas share or have each its own.

        Behind a wrapper in either case: a pipeline inspects `apply_gradients` with a function that takes no
        annotations.
        """
        from tensorflow.python.ipu.optimizers import cross_replica_optimizer, ipu_optimizer

        if self.settings.all_reduce:
            return cross_replica_optimizer.CrossReplicaOptimizer(_Rule(self))
        return ipu_optimizer.IpuOptimizer(_Rule(self), name="alone")

    def scaled(self, loss: Any) -> Any:
        return loss * self.scale if self.scale != 1 else loss

    def gradients(self, tape: Any, loss: Any) -> Pairs:
        return list(zip(tape.gradient(loss, self.variables), self.variables))

    def apply(self, gradients: Sequence[Any]) -> List[Any]:
        """Move weights and statistics by gradients in the order of `variables`."""
        found, moved = gradients[: len(self.weights)], gradients[len(self.weights) :]
        if self.scale != 1 and not self.recipe.linear:
            found = [tf.cast(gradient, tf.float32) / self.scale for gradient in found]
        done = self.optimiser.apply(found, self.rate)
        for variable, gradient, share in zip(self.running, moved, self.shares):
            done.append(variable.assign_sub(tf.cast(gradient * tf.cast(share, gradient.dtype), variable.dtype)))
        return done


class _Rule(tf.compat.v1.train.Optimizer):  # type: ignore[misc]
    """A trainer as the kind of optimiser that the SDK's wrappers and pipelines take."""

    def __init__(self, trainer: Trainer) -> None:
        super().__init__(use_locking=False, name="layerbench")
        self.trainer = trainer

    def compute_gradients(self, loss: Any, var_list: Any = None, **_: Any) -> Pairs:
        return list(zip(tf.gradients(loss, var_list), var_list))

    def apply_gradients(self, grads_and_vars: Any, global_step: Any = None, name: Any = None) -> Any:
        return tf.group(*self.trainer.apply([gradient for gradient, _ in grads_and_vars]))

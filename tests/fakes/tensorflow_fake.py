"""TensorFlow for IPU on the CPU: loops, pipelines and replicas, run eagerly by the stock TensorFlow.

With FAKE_TF_GRAPH the one replica runs a traced function, as the true thing does.
"""

from __future__ import annotations

import json
import os
import re
from typing import Any

import contract
import fake_machine
import tensorflow as tf
import tensorflow_fake_queues as queues
import tensorflow_fake_training as training
from tensorflow_fake_layers import GRU, LSTM, GroupNorm
from tensorflow_fake_run import Run, System

IPU = "tensorflow.python.ipu"
POPLAR_FLAGS = contract.facts()["environment"]["tensorflow"]["TF_POPLAR_FLAGS"]["flags"]
KNOWN_FLAGS = {re.split("[= ]", flag)[0] for flag in POPLAR_FLAGS}


def flag(name: str) -> str:
    """Return what TF_POPLAR_FLAGS says of a flag: its text, or nothing."""
    given = os.environ.get("TF_POPLAR_FLAGS", "").split()
    for one in given:
        if one.split("=")[0] not in KNOWN_FLAGS:
            os.abort()  # so does the true one
    return next((one for one in given if one.split("=")[0] == name), "")


# ---- the system ---------------------------------------------------------------------------------


def configure(self: Any, device: str = "cpu") -> None:
    json.loads(os.environ.get("POPLAR_ENGINE_OPTIONS", "{}"))
    if self.auto_select_ipus != [] and self.select_ipus != []:
        raise Exception("Only one of `auto_select_ipus` and `select_ipus` can be set.")
    if self.select_ipus != [] and flag("--use_ipu_model"):
        raise Exception("When using the IPUModel, devices can only be specified with `auto_select_ipus`.")
    simulated = flag("--use_ipu_model") or self.device_connection.type.name in ("PRE_COMPILE", "NEVER")
    if System.ipus is not None:
        reset()
    if self.select_ipus != []:
        chosen = [one for one in fake_machine.devices() if one.id == self.select_ipus]
        wanted = len(chosen[0].ipus) if chosen else 0
        free = [one for one in chosen if one in fake_machine.free(wanted)]
    else:
        wanted = self.auto_select_ipus
        chosen = [one for one in fake_machine.devices() if len(one.ipus) == wanted]
        free = fake_machine.free(wanted)
    if not chosen and not simulated:
        raise tf.errors.InvalidArgumentError(None, None, f"No device matches the requested configuration: {wanted}")
    if not free and not simulated:
        text = "Could not find an available device for TensorFlow virtual device /device:IPU:0."
        raise tf.errors.InternalError(None, None, text)
    System.products, System.convolutions = self.matmuls.poplar_options, self.convolutions.poplar_options
    System.stable = self.norms.use_stable_statistics
    System.prefetches = self.optimizations.prefetch_data_streams
    System.rounds = self.floating_point_behaviour.esr.name == "ON"
    System.ipus, System.executes = wanted, self.device_connection.type.name != "PRE_COMPILE"


def reset() -> None:
    System.ipus, System.variables = None, []


class IPUStrategyV1:
    def __init__(self, **told: Any) -> None:
        assert System.ipus is not None, "a strategy before the system is configured"

    def scope(self) -> Any:
        def creator(following: Any, **told: Any) -> Any:
            made = following(**told)
            System.variables.append(made)
            return made

        return tf.variable_creator_scope(creator)

    def run(self, fn: Any, args: Any = (), kwargs: Any = None, options: Any = None) -> Any:
        if not hasattr(fn, "python_function"):
            raise ValueError("IPUStrategyV1.run(fn, ...) does not support eager execution.")
        if System.ipus is None:
            raise tf.errors.FailedPreconditionError(None, None, "No IPU devices configured.")
        plain = fn.python_function
        if os.environ.get("FAKE_TF_GRAPH"):
            plain = tf.function(plain, autograph=False)
        result = Run(lambda: plain(*args, **(kwargs or {}))).go()
        if not System.executes:
            queues.forget()
        # LOG(INFO) in poplar_executor.cc, 3479.
        if flag("--log_cycle_count") and os.environ.get("TF_CPP_MIN_LOG_LEVEL", "0") == "0":
            os.write(2, b"I tensorflow: Cycle count: 4242\n")
        return result


_PIPELINE, _OPTIMISERS = f"{IPU}.ops.pipelining_ops", f"{IPU}.optimizers"
_ACCUMULATION = f"{_OPTIMISERS}.gradient_accumulation_optimizer.GradientAccumulationOptimizerV2"
BEHAVIOURS = {
    f"{IPU}.config.IPUConfig.configure_ipu_system": configure,
    f"{IPU}.config.reset_ipu_configuration": reset,
    f"{IPU}.ipu_strategy.IPUStrategyV1": IPUStrategyV1,
    f"{IPU}.ipu_infeed_queue.IPUInfeedQueue": queues.make_infeed,
    f"{IPU}.ipu_infeed_queue.IPUInfeedQueue.initializer": queues.initialise,
    f"{IPU}.ipu_infeed_queue.IPUInfeedQueue.deleter": queues.delete_infeed,
    f"{IPU}.ipu_outfeed_queue.IPUOutfeedQueue": queues.make_outfeed,
    f"{IPU}.ipu_outfeed_queue.IPUOutfeedQueue.enqueue": queues.enqueue,
    f"{IPU}.ipu_outfeed_queue.IPUOutfeedQueue.dequeue": queues.dequeue,
    f"{IPU}.loops.repeat": training.repeat,
    f"{_PIPELINE}.pipeline": training.pipeline,
    f"{_PIPELINE}.OptimizerFunctionOutput": training.keep,
    f"{_PIPELINE}.PipelineStageOptions": training.keep,
    f"{_PIPELINE}.recomputation_checkpoint": lambda tensors, name: tensors,
    f"{_OPTIMISERS}.ipu_optimizer.IpuOptimizer": training.IpuOptimizer,
    f"{_OPTIMISERS}.cross_replica_optimizer.CrossReplicaOptimizer.apply_gradients": training.mean_over_replicas,
    _ACCUMULATION: training.keep,
    f"{_ACCUMULATION}.apply_gradients": training.accumulate,
    "ipu_tensorflow_addons.keras.layers.GroupNormalization": GroupNorm,
    "ipu_tensorflow_addons.keras.layers.PopnnLSTM": LSTM,
    "ipu_tensorflow_addons.keras.layers.PopnnGRU": GRU,
}

"""TensorFlow 2.6 for IPU: the Keras lowering in one jit-compiled function, whose loop runs on the device.

Precision   fp32, fp16 (16.16) and fp16m (16.32); IPUs have no bfloat16
Replicas    are implied: IPUs / stages. Gradients are averaged over batches and replicas
Pipelines   are cut between blocks; TensorFlow accumulates gradients in every pipeline
Statistics  of norms are updated with the weights, by their mean over the batches and replicas of an update
"""

from __future__ import annotations

import os
from typing import Any, Dict, Mapping, Sequence

from bench.backends import _ipu
from bench.backends._ipu import DEVICES, MODES, checkable, refusals, unsupported
from bench.backends._ipu.variables import tf_flags
from bench.backends.tensorflow import PRIMITIVES
from bench.cases.case import Case, Settings
from bench.graph import Graph
from bench.program import Program

__all__ = ["DEVICES", "MODES", "PACKAGE", "PRIMITIVES", "checkable", "compile", "environment", "unsupported", "version"]

# The SDK's TensorFlow cannot be told from the stock one without importing it; the add-ons come with the SDK's only.
PACKAGE = "ipu_tensorflow_addons"


def environment(settings: Settings, device: str) -> Dict[str, str]:
    poplar, flags = settings.poplar, []
    if poplar.ipu_model:
        flags.append("--use_ipu_model")
    if poplar.executable_cache:
        flags.append(f"--executable_cache_path={poplar.executable_cache}")
    if poplar.cycle_count:
        flags.append("--log_cycle_count=0")
    variables = _ipu.environment(settings, device)
    if poplar.cycle_count:
        # The count is a line of the lowest level in TensorFlow's log, whatever level the user has set.
        variables["TF_CPP_MIN_LOG_LEVEL"] = "0"
    all_flags = tf_flags(flags, os.environ)
    return {**variables, "TF_POPLAR_FLAGS": all_flags} if all_flags else variables


def version() -> str:
    try:
        import tensorflow as tf
        from tensorflow.python import ipu  # noqa: F401 - fails for another TensorFlow
    except ImportError as error:
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ImportError(f"the SDK's TensorFlow is not enabled, or was built for another Python: {text}") from None
    return str(tf.__version__)


def compile(
    graph: Graph, weights: Mapping[str, Any], inputs: Sequence[Mapping[str, Any]], case: Case, settings: Settings
) -> Program:
    from tensorflow.python import ipu

    from bench.backends.tensorflow_ipu.program import Strategy

    refusals.require("tensorflow_ipu", graph, case, settings)
    return Strategy(ipu, graph, weights, case, settings).started(inputs)

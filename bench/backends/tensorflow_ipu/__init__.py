"""TensorFlow 2.6 for IPU: the Keras lowering in one jit-compiled function, whose loop runs on the device.

Precision   fp32, fp16 (16.16) and fp16m (16.32); IPUs have no bfloat16
Replicas    are implied: IPUs over stages. Gradients are averaged over batches and replicas
Pipelines   by blocks; TensorFlow accumulates in every one of them
Statistics  of norms move with the weight update, by their mean over its batches and replicas
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

# What says that TensorFlow is the SDK's cannot be looked for without loading TensorFlow; the add-ons come with it.
PACKAGE = "ipu_tensorflow_addons"


def environment(settings: Settings, device: str) -> Dict[str, str]:
    chosen, flags = settings.poplar, []
    if chosen.ipu_model:
        flags.append("--use_ipu_model")
    if chosen.executable_cache:
        flags.append(f"--executable_cache_path={chosen.executable_cache}")
    if chosen.cycle_count:
        flags.append("--log_cycle_count=0")
    variables = _ipu.environment(settings, device)
    all_flags = tf_flags(flags, os.environ)
    return {**variables, "TF_POPLAR_FLAGS": all_flags} if all_flags else variables


def version() -> str:
    try:
        import tensorflow as tf
        from tensorflow.python import ipu  # noqa: F401 - that it is there
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

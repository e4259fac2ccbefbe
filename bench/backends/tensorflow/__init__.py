"""TensorFlow through Keras layers in one tf.function, on the CPU and on CUDA.

Tuning   best: XLA for recurrent layers and scans in fp32, up to 1.4 times faster. Plain graphs for everything
         else: XLA is slow on grouped and depthwise convolutions (11 to 13 times slower on MobileNet and
         EfficientNet). In inference, image networks read their weights as constants, so that norms are folded into
         convolutions and casts are done once: 1.3 times faster on ResNet-50 in bf16 (not in fp32), 1.2 times on
         MobileNet v2, for one more gigabyte of memory while it is compiled.
         default: plain graphs
16-bit   plain graphs only. On the CPU, XLA computes 16-bit products in fp32 between casts, as the optimised HLO
         of version 2.21 shows. The precision of the record would be wrong, and the step slower
"""

from __future__ import annotations

import os
from typing import Any, Dict, Mapping, Optional, Sequence

from bench.backends import CORE
from bench.cases.case import Case, Settings
from bench.cases.errors import Unavailable
from bench.devices import cuda
from bench.graph import Graph
from bench.group import ALONE, Group
from bench.program import Program

PACKAGE = "tensorflow"
LIBRARIES = ("keras", *cuda.LIBRARIES)
PRIMITIVES = CORE
DEVICES = ("cpu", "cuda")
MODES = ("inference", "eval", "training")
ALL_REDUCE = True


def unsupported(precision: str, mode: str, device: str) -> Optional[str]:
    return None


def environment(settings: Settings, device: str) -> Dict[str, str]:
    flags = f"{os.environ.get('TF_XLA_FLAGS', '')} --tf_xla_persistent_cache_directory={settings.caches}"
    return {
        **({"TF_XLA_FLAGS": flags.strip()} if settings.caches else {}),
        "OMP_NUM_THREADS": str(settings.threads),
        "TF_NUM_INTRAOP_THREADS": str(settings.threads),
        "TF_NUM_INTEROP_THREADS": "1",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        # The workers of other backends stay alive, and need memory on the same GPU.
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
    }


def version() -> str:
    import tensorflow as tf

    return str(tf.__version__)


def compile(
    graph: Graph,
    weights: Mapping[str, Any],
    inputs: Sequence[Mapping[str, Any]],
    case: Case,
    settings: Settings,
    group: Group = ALONE,
) -> Program:
    import tensorflow as tf

    from bench.backends.tensorflow import program, replicas

    if group.count > 1:
        replicas.join(group)
    if case.device == "cuda" and not tf.config.list_physical_devices("GPU"):
        raise Unavailable(f"not supported: tensorflow {tf.__version__} finds no CUDA device")
    kind = program.Training if case.mode == "training" else program.Inference
    return kind(graph, weights, case, settings, group).started(inputs)

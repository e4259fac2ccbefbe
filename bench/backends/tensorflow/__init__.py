"""TensorFlow through Keras layers in one tf.function, on the CPU and on CUDA.

Tuning   best: XLA for recurrent layers and loops in fp32, where it was up to 1.4 times faster; plain
         graphs for the others, since XLA is slow on grouped and depthwise convolution (11 to 13 times
         slower on MobileNet and EfficientNet). Image networks in inference read their weights as constants,
         so that norms go into convolutions and casts are done once: 1.3 times faster in bf16 on ResNet-50 (no gain
         seen in fp32), 1.2 on MobileNet v2, for a gigabyte more while it is compiled.
         default: plain graphs
16-bit   plain graphs only: on the CPU, XLA turns 16-bit products into fp32 ones between casts (its
         optimised HLO of 2.21 says so), which would be a false label, and slower besides
"""

from __future__ import annotations

from typing import Any, Dict, Mapping, Optional, Sequence

from bench.cases.case import Case, Settings
from bench.cases.errors import Unavailable
from bench.graph import Graph
from bench.group import ALONE, Group
from bench.program import Program

PACKAGE = "tensorflow"
DEVICES = ("cpu", "cuda")
MODES = ("inference", "eval", "training")
ALL_REDUCE = True


def unsupported(precision: str, mode: str, device: str) -> Optional[str]:
    return None


def environment(settings: Settings, device: str) -> Dict[str, str]:
    return {
        "OMP_NUM_THREADS": str(settings.threads),
        "TF_NUM_INTRAOP_THREADS": str(settings.threads),
        "TF_NUM_INTEROP_THREADS": "1",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        # Other backends' workers stay warm beside this one, and want room on the same GPU.
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

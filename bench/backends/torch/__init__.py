"""PyTorch, on the CPU and on CUDA.

Tuning   best: channels-last images and inference mode. An image network is compiled and frozen if the machine
         has a C++ compiler: up to 3 times faster, for half a minute of compiling. The body of a scan of elementwise
         operations (HMC) is compiled too, because calling each operation costs more than computing it. Nothing else
         is compiled: a fused recurrent layer does not get faster.
         default: contiguous tensors, no_grad, eager
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence

from bench.backends import CORE
from bench.cases.case import Case, Settings
from bench.cases.errors import Unavailable
from bench.devices import cuda
from bench.graph import Graph
from bench.group import ALONE, Group
from bench.program import Program

PACKAGE = "torch"
LIBRARIES = ("triton", *cuda.LIBRARIES)
PRIMITIVES = CORE
DEVICES = ("cpu", "cuda")
MODES = ("inference", "eval", "training")
ALL_REDUCE = True


def unsupported(precision: str, mode: str, device: str) -> Optional[str]:
    return None


def environment(settings: Settings, device: str) -> Dict[str, str]:
    threads = str(settings.threads)
    caches = {"TORCHINDUCTOR_CACHE_DIR": settings.caches} if settings.caches else {}
    return {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "TORCHINDUCTOR_COMPILE_THREADS": "1", **caches}


def version() -> str:
    import torch

    return str(torch.__version__)


def copies(device: str, size: int) -> List[Callable[[], Any]]:
    import torch

    source = torch.ones(size // 8, device=device)
    target = torch.empty_like(source)
    matrix = torch.ones(size // 4 // 256, 256, device=device)
    vector = torch.ones(256, device=device)

    def waited(call: Callable[..., Any], *arguments: Any) -> Callable[[], None]:
        def run() -> None:
            call(*arguments)
            if device == "cuda":
                torch.cuda.synchronize()

        return run

    return [waited(target.copy_, source), waited(torch.mv, matrix, vector)]


def compile(
    graph: Graph,
    weights: Mapping[str, Any],
    inputs: Sequence[Mapping[str, Any]],
    case: Case,
    settings: Settings,
    group: Group = ALONE,
) -> Program:
    import torch

    from bench.backends.torch import program

    if case.device == "cuda" and not torch.cuda.is_available():
        raise Unavailable(f"not supported: torch {torch.__version__} finds no CUDA device")
    kinds = {"inference": program.Inference, "eval": program.Eval, "training": program.Training}
    return kinds[case.mode](graph, weights, case, settings, group).started(inputs)

"""JAX, on the CPU and on CUDA: one function under jax.jit.

Precision  the CPU runs fp32 only: there XLA computes 16-bit products in fp32 between casts, as the optimised HLO of
           jax 0.10.2 shows. fp32 means fp32: products have the precision `highest`, which is no TF32 on CUDA
Tuning     best and default are the same: XLA fuses what can be fused
Replicas   one: there is no all-reduce
"""

from __future__ import annotations

from typing import Any, Dict, Mapping, Optional, Sequence

from bench.cases.case import Case, Settings
from bench.cases.errors import Unavailable
from bench.graph import Graph
from bench.program import Program

PACKAGE = "jax"
LIBRARIES = ("jaxlib",)
DEVICES = ("cpu", "cuda")
MODES = ("inference", "eval", "training")


def unsupported(precision: str, mode: str, device: str) -> Optional[str]:
    if device == "cpu" and precision != "fp32":
        return f"XLA computes the products of {precision} in fp32 on the CPU"
    return None


def environment(settings: Settings, device: str) -> Dict[str, str]:
    # The size of the thread pools: XLA reads PJRT_NPROC, or else NPROC, when the device is opened.
    threads = {"PJRT_NPROC": str(settings.threads), "NPROC": str(settings.threads)}
    # The workers of other backends stay alive, and need memory on the same GPU.
    memory = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    caches = {
        "JAX_COMPILATION_CACHE_DIR": settings.caches,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    own = {"JAX_PLATFORMS": "cpu"} if device == "cpu" else memory
    # A program of a cache has the names of the nodes with which it was compiled, by which a profile finds them.
    named = {"JAX_COMPILATION_CACHE_INCLUDE_METADATA_IN_KEY": "true"}
    return {**threads, **own, **named, **(caches if settings.caches else {})}


def version() -> str:
    import jax

    return str(jax.__version__)


def compile(
    graph: Graph, weights: Mapping[str, Any], inputs: Sequence[Mapping[str, Any]], case: Case, settings: Settings
) -> Program:
    import jax

    from bench.backends.jax import program

    try:
        device = jax.devices(case.device)[0]
    except RuntimeError as error:
        raise Unavailable(f"not supported: jax {jax.__version__} finds no {case.device} device") from error
    kind = program.Training if case.mode == "training" else program.Inference
    return kind(graph, weights, case, settings, device).started(inputs)

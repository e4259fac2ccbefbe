"""PopTorch, which is PyTorch for Graphcore's IPUs (Poplar SDK 3.4): the lowering of torch, compiled by the SDK.

One call runs all batches of a step, on all replicas. The program is compiled before its first call.
"""

from __future__ import annotations

from typing import Any, Mapping, Sequence

from bench.backends._ipu import DEVICES, MODES, checkable, environment, refusals, unsupported
from bench.backends.torch import PRIMITIVES
from bench.cases.case import Case, Settings
from bench.graph import Graph
from bench.program import Program

__all__ = ["DEVICES", "MODES", "PACKAGE", "PRIMITIVES", "checkable", "compile", "environment", "unsupported", "version"]

PACKAGE = "poptorch"


def version() -> str:
    try:
        import poptorch
    except Exception as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise ImportError(f"Poplar's SDK is not enabled, or it is for another Python or torch ({first})") from error
    if not hasattr(poptorch, "trainingModel"):
        raise ImportError("the module poptorch is not the one of Graphcore's Poplar SDK: uninstall it, enable the SDK")
    return str(getattr(poptorch, "__version__", "unknown"))


def compile(
    graph: Graph, weights: Mapping[str, Any], inputs: Sequence[Mapping[str, Any]], case: Case, settings: Settings
) -> Program:
    import poptorch

    from bench.backends.poptorch.program import Executor

    refusals.require("poptorch", graph, case, settings)
    return Executor(poptorch, graph, weights, case, settings).started(inputs)

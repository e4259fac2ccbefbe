"""PopART on Graphcore's IPUs: it runs and trains the ONNX model that ONNX Runtime runs, with its own group norm.

Weights  those of a trained model are its initializers, which PopART updates; other arrays are Constant nodes
16-bit   all of it is FLOAT16 except the loss; in 16.32 the trained weights are FLOAT, and cast where they are used
Output   inference and eval return the result of every batch, as PopART's own benchmarks do; training the last loss
Missing  a gradient of loops; schedules of pipelines; I/O tiles of a model from a file
"""

from __future__ import annotations

import importlib
import sys
from typing import Any, Mapping, Sequence

from bench.backends._ipu import DEVICES, MODES, checkable, environment, refusals, unsupported
from bench.backends._onnx import exported
from bench.backends._onnx.primitives import PRIMITIVES
from bench.cases.case import Case, Settings
from bench.graph import Graph
from bench.program import Program

__all__ = [
    "DEVICES",
    "MODES",
    "PACKAGE",
    "PRIMITIVES",
    "checkable",
    "compile",
    "environment",
    "exported",
    "unsupported",
    "version",
]

PACKAGE = "popart"


def version() -> str:
    """Import PopART, which must come before onnx. Raises ImportError, in one line, if it is not the SDK's."""
    try:
        popart = importlib.import_module("popart")
    except (ImportError, RuntimeError) as error:
        reason = (str(error).splitlines() or [""])[0]
        if "onnx" in sys.modules:
            raise ImportError(f"import popart first: {reason}") from None
        raise ImportError(f"the Poplar SDK is not enabled, or is for another Python: {reason}") from None
    if not hasattr(popart, "InferenceSession"):
        raise ImportError("this popart is not Graphcore's, but another package of that name: enable the Poplar SDK")
    return str(popart.versionString())


def compile(
    graph: Graph, weights: Mapping[str, Any], inputs: Sequence[Mapping[str, Any]], case: Case, settings: Settings
) -> Program:
    # Before `program`, which imports onnx.
    popart = importlib.import_module("popart")
    from bench.backends.popart.program import Session

    refusals.require("popart", graph, case, settings)
    return Session(popart, graph, weights, case, settings).started(inputs)

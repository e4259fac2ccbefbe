"""The float64 reference as a backend in fp32, which lets the whole suite be tested where no framework is installed."""

from __future__ import annotations

from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence

from bench.cases.case import Case, Settings
from bench.graph import Graph
from bench.graph.reference import evaluate
from bench.program import Batches, Program, resident, turns

PACKAGE = "numpy"
DEVICES = ("cpu",)
MODES = ("inference", "eval")

Array = Any


def unsupported(precision: str, mode: str, device: str) -> Optional[str]:
    return None if precision == "fp32" else f"numpy has no {precision} arithmetic of its own"


def environment(settings: Settings, device: str) -> Dict[str, str]:
    return {}


def version() -> str:
    import numpy as np

    return str(np.__version__)


def compile(
    graph: Graph, weights: Mapping[str, Array], inputs: Sequence[Mapping[str, Array]], case: Case, settings: Settings
) -> Program:
    import numpy as np

    held = {name: np.asarray(value, np.float32) for name, value in weights.items()}
    fed: Dict[str, Array] = {}
    result: Dict[str, Array] = {}
    source: List[Iterator[Mapping[str, Array]]] = []

    def feed(batches: Batches) -> None:
        if settings.data != "synthetic":
            source[:] = [turns(batches, dict)]
            return
        fed.update(_native(resident(batches, 1)[0]))

    def run() -> None:
        if settings.data != "synthetic":
            fed.update({name: array.copy() for name, array in _native(next(source[0])).items()})
        result["output"], terms = evaluate(graph, held, fed, np.float32)
        if terms is not None:
            result["loss"] = terms.sum()

    def outputs() -> Dict[str, Array]:
        return {k: np.asarray(v, np.float64) for k, v in result.items()}

    feed(inputs)
    run()
    return Program(run, feed, outputs, compute=str(result["output"].dtype), held="float32")


def _native(batch: Mapping[str, Array]) -> Dict[str, Array]:
    import numpy as np

    return {k: v if v.dtype.kind in "iu" else np.asarray(v, np.float32) for k, v in batch.items()}

"""The reference as a backend, in fp32. With it the whole suite can be tested without any framework."""

from __future__ import annotations

from functools import partial
from time import perf_counter
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple

from bench.cases.case import Case, Settings
from bench.graph import Graph, Node, naming
from bench.graph.reference import PRIMITIVES, evaluate
from bench.profiling import Kernel, Profile, Run, chrome_trace, merged
from bench.program import Program

__all__ = ["DEVICES", "EXTRA", "MODES", "PACKAGE", "PRIMITIVES", "compile", "environment", "unsupported", "version"]

PACKAGE, EXTRA = "numpy", "test"
DEVICES = ("cpu",)
MODES = ("inference", "eval")

Array = Any


def unsupported(precision: str, mode: str, device: str) -> Optional[str]:
    return None if precision == "fp32" else f"numpy has no {precision} arithmetic of its own"


def environment(settings: Settings, device: str) -> Dict[str, str]:
    return dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(settings.threads))


def version() -> str:
    import numpy as np

    return str(np.__version__)


def copies(device: str, size: int) -> List[Callable[[], Any]]:
    import numpy as np

    source: Any = np.ones(size // 8, np.float32)
    matrix: Any = np.ones((size // 4 // 256, 256), np.float32)
    vector: Any = np.ones(256, np.float32)
    return [partial(np.copyto, np.empty_like(source), source), partial(np.matmul, matrix, vector)]


def compile(
    graph: Graph, weights: Mapping[str, Array], inputs: Sequence[Mapping[str, Array]], case: Case, settings: Settings
) -> Program:
    return _Reference(graph, weights, case, settings).started(inputs)


class _Reference(Program):
    def __init__(self, graph: Graph, weights: Mapping[str, Array], case: Case, settings: Settings) -> None:
        import numpy as np

        super().__init__(graph, case, settings)
        self.np = np
        self.values = {name: np.asarray(value, np.float32) for name, value in weights.items()}
        self.arrays: Dict[str, Array] = {}
        self.results: Dict[str, Array] = {}

    def convert(self, batch: Mapping[str, Array]) -> Dict[str, Array]:
        integers = {name for name, array in batch.items() if array.dtype.kind in "iu"}
        return {k: v if k in integers else self.np.asarray(v, self.np.float32) for k, v in batch.items()}

    def keep(self, batches: Iterable[Dict[str, Array]]) -> None:
        (self.arrays,) = batches

    def move_in(self, batches: Iterable[Dict[str, Array]]) -> None:
        (arrays,) = batches
        self.arrays = {name: array.copy() for name, array in arrays.items()}

    def run_resident(self) -> None:
        output, terms = evaluate(self.graph, self.values, self.arrays, self.np.float32)
        self.results = {"output": output} if terms is None else {"output": output, "loss": terms.sum()}

    def outputs(self) -> Dict[str, Array]:
        return {name: self.np.asarray(array, self.np.float64) for name, array in self.results.items()}

    def dtypes(self) -> Tuple[str, str]:
        return str(self.results["output"].dtype), "float32"

    def profile(self, steps: int) -> Profile:
        """The time of each primitive, read after each. numpy has no profiler of its own."""
        runs: List[Run] = []
        spent: List[_Spent] = []
        for _ in range(steps):
            step = _Spent(self.graph)
            evaluate(self.graph, self.values, self.arrays, self.np.float32, step.visit)
            runs.append(Run(step.last - step.begin, merged(step.kernels)))
            spent.append(step)
        return Profile(runs, chrome_trace(row for step in spent for row in step.rows))


class _Spent:
    """Reads the clock after each primitive of one run."""

    def __init__(self, graph: Graph) -> None:
        self.nodes = graph.nodes
        self.kernels: List[Kernel] = []
        self.rows: List[Any] = []
        self.begin = self.last = perf_counter()

    def visit(self, index: int, node: Node, args: List[Array], result: Array) -> Array:
        # The nodes within a scan belong to the scan.
        if self.nodes[index] is node:
            seconds = perf_counter() - self.last
            self.kernels.append(Kernel(node.op, (index,), seconds))
            self.rows.append(("numpy", naming.scope(index, node), self.last, seconds, {}))
            self.last = perf_counter()
        return result

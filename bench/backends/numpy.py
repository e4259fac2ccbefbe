"""The reference: every primitive in numpy, float64 when it checks others.

Written from the formulas, slow and plain. It also runs as a backend in fp32, which lets the whole
suite be tested where no framework is installed.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

from bench.cases.case import Case, Settings
from bench.graph import Graph, Node, Tensor, reference_images
from bench.program import Batches, Program, resident, turns

PACKAGE = "numpy"
DEVICES = ("cpu",)
MODES = ("inference", "eval")

Array = Any
# Called as visit(index, node, arguments, result) after each node; returns the result.
Visit = Callable[[int, Node, List[Array], Array], Array]


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


def evaluate(
    graph: Graph, weights: Mapping[str, Array], inputs: Mapping[str, Array], dtype: Any, visit: Optional[Visit] = None
) -> Tuple[Array, Optional[Array]]:
    """Return the output, and the terms whose sum is the loss (None where the graph has none), in `dtype`.

    Terms, because two losses near each other differ by less than their sums can tell.

    The inputs may hold fewer rows than the graph's batch: the rows of the output are then those.
    """
    import numpy as np

    weights = {name: np.asarray(value, dtype) for name, value in weights.items()}
    values = walk(graph, weights, inputs, dtype, visit)
    terms = _value(values, graph.loss) if graph.loss.node >= 0 else None
    return _value(values, graph.output), terms


def walk(
    graph: Graph, weights: Mapping[str, Array], inputs: Mapping[str, Array], dtype: Any, visit: Optional[Visit] = None
) -> List[Tuple[Array, ...]]:
    """Return the results of every node, in `dtype`; the weights have that type already.

    visit   is called as visit(index, node, arguments, result) for each result of each node, also within
            scans; what it returns takes the place of the result
    """
    import numpy as np

    # Bytes become numbers of the arithmetic's type; integers are labels.
    given = {k: v if v.dtype.kind == "i" else np.asarray(v, dtype) for k, v in inputs.items()}
    rows = next((len(array) for array in given.values()), graph.batch_size)
    named = {index: given[f"input{index}"] for index, node in enumerate(graph.nodes) if node.op == "input"}
    return _walk(graph, weights, named, rows, dtype, visit)


def _walk(
    graph: Graph,
    weights: Mapping[str, Array],
    given: Mapping[int, Array],
    rows: int,
    dtype: Any,
    visit: Optional[Visit] = None,
) -> List[Tuple[Array, ...]]:
    import numpy as np

    values: List[Tuple[Array, ...]] = []
    for index, node in enumerate(graph.nodes):
        args = [_value(values, tensor) for tensor in node.inputs]
        if index in given:
            results: Any = given[index]
        elif node.op == "fill":
            results = np.full((rows, *node.shape[1:]), node.attrs["value"], dtype)
        elif node.op == "random":
            results = _random(node, (rows, *node.shape[1:])).astype(dtype)
        elif node.op == "scan":
            results = _scan(node, weights, args, dtype, visit)
        else:
            named = {weight.name.rsplit(".", 1)[-1]: weights[weight.name] for weight in node.weights}
            results = OPS[node.op](node, named, *args)
        if visit is not None and index not in given:
            parts = results if isinstance(results, tuple) else (results,)
            results = tuple(visit(index, node, args, part) for part in parts)
        values.append(results if isinstance(results, tuple) else (results,))
    return values


def _value(values: List[Tuple[Array, ...]], tensor: Tensor) -> Array:
    return values[tensor.node][tensor.output]


def _random(node: Node, shape: Tuple[int, ...]) -> Array:
    import numpy as np

    return np.random.standard_normal(shape) if node.attrs["values"] == "normal" else np.random.uniform(size=shape)


def _scan(
    node: Node, weights: Mapping[str, Array], args: List[Array], dtype: Any, visit: Optional[Visit] = None
) -> Array:
    import numpy as np

    body, count = node.attrs["body"], node.attrs["states"]
    states, sequences = args[:count], args[count:]
    trace = []
    for step in range(node.attrs["steps"]):
        given = dict(enumerate([*states, *(sequence[:, step] for sequence in sequences)]))
        values = _walk(body, weights, given, len(states[0]), dtype, visit)
        states = [_value(values, end) for end in node.attrs["ends"]]
        trace.append(states[0])
    return np.stack(trace, axis=1)


def _dense(node: Node, w: Dict[str, Array], x: Array) -> Array:
    return x @ w["weight"].T + w.get("bias", 0)


def _sigmoid(x: Array) -> Array:
    import numpy as np

    return 1 / (1 + np.exp(-x))


def _rnn_cell(node: Node, w: Dict[str, Array], x: Array, h: Array) -> Array:
    import numpy as np

    return np.tanh(x @ w["weight_ih"].T + h @ w["weight_hh"].T + w.get("bias_ih", 0))


def _lstm_cell(node: Node, w: Dict[str, Array], x: Array, h: Array, c: Array) -> Tuple[Array, Array]:
    import numpy as np

    gates = x @ w["weight_ih"].T + h @ w["weight_hh"].T + w.get("bias_ih", 0)
    i, f, g, o = np.split(gates, 4, axis=-1)
    c = _sigmoid(f) * c + _sigmoid(i) * np.tanh(g)
    return _sigmoid(o) * np.tanh(c), c


def _gru_cell(node: Node, w: Dict[str, Array], x: Array, h: Array) -> Array:
    import numpy as np

    xr, xz, xn = np.split(x @ w["weight_ih"].T + w.get("bias_ih", 0), 3, axis=-1)
    hr, hz, hn = np.split(h @ w["weight_hh"].T + w.get("bias_hh", 0), 3, axis=-1)
    z = _sigmoid(xz + hz)
    n = np.tanh(xn + _sigmoid(xr + hr) * hn)
    return (1 - z) * n + z * h


def _layer(cell: Callable[..., Any], states: int) -> Callable[..., Array]:
    def run(node: Node, w: Dict[str, Array], x: Array) -> Array:
        import numpy as np

        carried = [np.zeros((len(x), node.attrs["hidden"]), x.dtype)] * states
        trace = []
        for step in range(x.shape[1]):
            new = cell(node, w, x[:, step], *carried)
            carried = list(new) if isinstance(new, tuple) else [new]
            trace.append(carried[0])
        return np.stack(trace, axis=1)

    return run


def _relu(node: Node, w: Dict[str, Array], x: Array) -> Array:
    import numpy as np

    return np.maximum(x, 0)


def _log(node: Node, w: Dict[str, Array], x: Array) -> Array:
    import numpy as np

    return np.log(x)


def _where_less(node: Node, w: Dict[str, Array], a: Array, b: Array, then: Array, other: Array) -> Array:
    import numpy as np

    return np.where(a < b, then, other)


def _log_softmax(x: Array, axis: Any) -> Array:
    import numpy as np

    x = x - x.max(axis=axis, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=axis, keepdims=True))


def _softmax_cross_entropy(node: Node, w: Dict[str, Array], x: Array, labels: Array) -> Array:
    return -(labels * _log_softmax(x, -1)) / (x.size // x.shape[-1])


def _flat_softmax_nll(node: Node, w: Dict[str, Array], x: Array, labels: Array) -> Array:
    import numpy as np

    picked = np.take_along_axis(_log_softmax(x, (0, 2)), labels[:, :, None], axis=2)
    return -picked


def _flat_softmax_squared_error(node: Node, w: Dict[str, Array], x: Array, labels: Array) -> Array:
    import numpy as np

    # (p - l)^2 is p (p - 2 l) + l^2. The second part is far larger than the first, and no weight changes it: it is one
    # term of its own, so that the others tell what a small step changes. In place: of conv's 33 million terms, fresh
    # memory costs more than arithmetic.
    terms = np.empty(x.size + 1, x.dtype)
    found = terms[:-1].reshape(x.shape)
    np.subtract(x, x.max(axis=(1, 2, 3), keepdims=True), out=found)
    np.exp(found, out=found)
    found /= found.sum(axis=(1, 2, 3), keepdims=True)
    rest = found - labels
    rest -= labels
    found *= rest
    terms[-1] = np.square(labels).sum()
    return terms


OPS: Dict[str, Callable[..., Any]] = {
    **reference_images.OPS,
    "cross_entropy": reference_images.cross_entropy(_log_softmax),
    "dense": _dense,
    "rnn": _layer(_rnn_cell, 1),
    "lstm": _layer(_lstm_cell, 2),
    "gru": _layer(_gru_cell, 1),
    "rnn_cell": _rnn_cell,
    "lstm_cell": _lstm_cell,
    "gru_cell": _gru_cell,
    "last": lambda node, w, x: x[:, -1],
    "add": lambda node, w, a, b: a + b,
    "sub": lambda node, w, a, b: a - b,
    "mul": lambda node, w, a, b: a * b,
    "affine": lambda node, w, x: node.attrs["scale"] * x + node.attrs["shift"],
    "relu": _relu,
    "log": _log,
    "where_less": _where_less,
    "mean": lambda node, w, x: x / x.size,
    "softmax_cross_entropy": _softmax_cross_entropy,
    "squared_error": lambda node, w, x, labels: (x - labels) ** 2 / x.size,
    "flat_softmax_nll": _flat_softmax_nll,
    "flat_softmax_squared_error": _flat_softmax_squared_error,
}

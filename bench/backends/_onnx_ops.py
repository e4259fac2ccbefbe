"""Every primitive in ONNX operators of opset 11, and what collects them; `_onnx_model` makes the model."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Mapping

from bench.backends import _onnx_images
from bench.graph import Node

# Ours are torch's: i f g o and r z n. ONNX has i o f c and z r h.
GATE_ORDER = {"rnn": (0,), "lstm": (0, 3, 1, 2), "gru": (1, 0, 2)}


def regate(array: Any, kind: str) -> Any:
    """A stacked recurrent weight, (gates * hidden, ...), with its gates in ONNX's order."""
    import numpy as np

    order = GATE_ORDER[kind]
    return np.concatenate([np.split(array, len(order))[gate] for gate in order])


class Lowering:
    """Collects the nodes and initializers of one model; a scan's body has nodes of its own."""

    def __init__(self, weights: Mapping[str, Any]) -> None:
        self.weights = weights
        self.nodes: List[Any] = []
        self.initializers: List[Any] = []
        self.count = 0
        # The inputs that are bytes.
        self.bytes: List[int] = []

    def graph(self, nodes: List[Node], sources: Mapping[int, str] = {}) -> Dict[int, List[str]]:
        """Lower nodes in order; return the names of the results of each."""
        values: Dict[int, List[str]] = {}
        for index, node in enumerate(nodes):
            args = [values[tensor.node][tensor.output] for tensor in node.inputs]
            if index in sources:
                values[index] = [sources[index]]
            elif node.op == "input":
                values[index] = [f"input{index}"]
                if node.attrs["values"] == "uint8":
                    self.bytes.append(index)
            else:
                made = OPS[node.op](self, node, *args)
                values[index] = made if isinstance(made, list) else [made]
        return values

    def op(self, kind: str, *inputs: str, outputs: int = 1, **attrs: Any) -> Any:
        """Add one node; return the name of its result, or the list of the names of its `outputs`."""
        from onnx import helper

        self.count += 1
        names = [f"{kind.lower()}{self.count}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, **attrs))
        return names[0] if outputs == 1 else names

    def constant(self, array: Any) -> str:
        from onnx import numpy_helper

        self.count += 1
        name = f"constant{self.count}"
        self.initializers.append(numpy_helper.from_array(array, name))
        return name

    def scalar(self, value: float) -> str:
        import numpy as np

        return self.constant(np.asarray(value, np.float32))

    def weight(self, node: Node, name: str) -> Any:
        """The weight of that name, or None where the layer has none."""
        for weight in node.weights:
            if weight.name.endswith(f".{name}"):
                return self.weights[weight.name]
        return None


def native_shape(shape: Any, integers: bool) -> List[int]:
    turned = len(shape) == 3 or (integers and len(shape) > 1)
    return [shape[1], shape[0], *shape[2:]] if turned else list(shape)


def _dense(to: Lowering, node: Node, x: str) -> str:
    bias = to.weight(node, "bias")
    weight = to.constant(to.weight(node, "weight"))
    extra = [to.constant(bias)] if bias is not None else []
    return str(to.op("Gemm", x, weight, *extra, transB=1))


def _recurrent(kind: str) -> Callable[..., str]:
    def lower(to: Lowering, node: Node, x: str) -> str:
        import numpy as np

        given = [to.constant(regate(to.weight(node, w), kind)[None]) for w in ("weight_ih", "weight_hh")]
        first, second = to.weight(node, "bias_ih"), to.weight(node, "bias_hh")
        if first is not None:
            second = np.zeros_like(first) if second is None else second
            given.append(to.constant(np.concatenate([regate(first, kind), regate(second, kind)])[None]))
        attrs: Dict[str, Any] = {"linear_before_reset": 1} if kind == "gru" else {}
        out = to.op(kind.upper(), x, *given, hidden_size=node.attrs["hidden"], **attrs)
        return str(to.op("Squeeze", out, axes=[1]))

    return lower


def _product(to: Lowering, node: Node, x: str, suffix: str) -> str:
    weight = to.constant(to.weight(node, f"weight_{suffix}"))
    bias = to.weight(node, f"bias_{suffix}")
    extra = [to.constant(bias)] if bias is not None else []
    return str(to.op("Gemm", x, weight, *extra, transB=1))


def _rnn_cell(to: Lowering, node: Node, x: str, h: str) -> str:
    return str(to.op("Tanh", to.op("Add", _product(to, node, x, "ih"), _product(to, node, h, "hh"))))


def _lstm_cell(to: Lowering, node: Node, x: str, h: str, c: str) -> List[str]:
    gates = to.op("Add", _product(to, node, x, "ih"), _product(to, node, h, "hh"))
    i, f, g, o = to.op("Split", gates, outputs=4, axis=1)
    kept = to.op("Mul", to.op("Sigmoid", f), c)
    new = to.op("Add", kept, to.op("Mul", to.op("Sigmoid", i), to.op("Tanh", g)))
    return [str(to.op("Mul", to.op("Sigmoid", o), to.op("Tanh", new))), str(new)]


def _gru_cell(to: Lowering, node: Node, x: str, h: str) -> str:
    xr, xz, xn = to.op("Split", _product(to, node, x, "ih"), outputs=3, axis=1)
    hr, hz, hn = to.op("Split", _product(to, node, h, "hh"), outputs=3, axis=1)
    z = to.op("Sigmoid", to.op("Add", xz, hz))
    reset = to.op("Mul", to.op("Sigmoid", to.op("Add", xr, hr)), hn)
    n = to.op("Tanh", to.op("Add", xn, reset))
    # (1 - z) n + z h, with one multiplication less.
    return str(to.op("Add", n, to.op("Mul", z, to.op("Sub", h, n))))


def _scan(to: Lowering, node: Node, *args: str) -> str:
    from onnx import TensorProto, helper

    body, count = node.attrs["body"], node.attrs["states"]
    to.count += 1
    sources = {i: f"scan{to.count}_{n.op}{i}" for i, n in enumerate(body.nodes) if n.op in ("state", "slice")}
    outer, to.nodes = to.nodes, []
    values = to.graph(body.nodes, sources)
    ends = [values[end.node][end.output] for end in node.attrs["ends"]]
    shapes = [list(body.nodes[i].shape) for i in sources]
    outputs = [to.op("Identity", end) for end in [*ends, ends[0]]]
    out_shapes = [*shapes[:count], shapes[0]]

    def info(names: Any, sizes: Any) -> List[Any]:
        return [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in zip(names, sizes)]

    made = helper.make_graph(to.nodes, "body", info(sources.values(), shapes), info(outputs, out_shapes))
    to.nodes = outer
    results = to.op("Scan", *args, outputs=count + 1, body=made, num_scan_inputs=len(args) - count)
    return str(results[-1])


def _fill(to: Lowering, node: Node) -> str:
    import numpy as np

    return to.constant(np.full(node.shape, node.attrs["value"], np.float32))


def _random(to: Lowering, node: Node) -> str:
    kind = "RandomNormal" if node.attrs["values"] == "normal" else "RandomUniform"
    return str(to.op(kind, shape=native_shape(node.shape, False), dtype=1))


def _affine(to: Lowering, node: Node, x: str) -> str:
    scaled = to.op("Mul", x, to.scalar(node.attrs["scale"]))
    return str(to.op("Add", scaled, to.scalar(node.attrs["shift"])) if node.attrs["shift"] else scaled)


def _where_less(to: Lowering, node: Node, a: str, b: str, then: str, other: str) -> str:
    return str(to.op("Where", to.op("Less", a, b), then, other))


def _last(to: Lowering, node: Node, x: str) -> str:
    import numpy as np

    index = to.constant(np.asarray(node.inputs[0].shape[1] - 1, np.int64))
    return str(to.op("Gather", x, index, axis=0))


def _softmax_cross_entropy(to: Lowering, node: Node, x: str, labels: str) -> str:
    axis = len(node.inputs[0].shape) - 1
    picked = to.op("Mul", to.op("LogSoftmax", x, axis=axis), labels)
    summed = to.op("ReduceSum", picked, axes=[axis], keepdims=0)
    return str(to.op("Neg", to.op("ReduceMean", summed, keepdims=0)))


def _squared_error(to: Lowering, node: Node, x: str, labels: str) -> str:
    off = to.op("Sub", x, labels)
    return str(to.op("ReduceMean", to.op("Mul", off, off), keepdims=0))


def _flat_softmax_nll(to: Lowering, node: Node, x: str, labels: str) -> str:
    import numpy as np

    depth = to.constant(np.asarray([node.inputs[0].shape[2]], np.int64))
    hot = to.op("OneHot", labels, depth, to.constant(np.asarray([0, 1], np.float32)), axis=2)
    picked = to.op("Mul", to.op("LogSoftmax", x, axis=1), hot)
    return str(to.op("Neg", to.op("ReduceSum", picked, keepdims=0)))


def _flat_softmax_squared_error(to: Lowering, node: Node, x: str, labels: str) -> str:
    # Not Softmax: OpenVINO reads the one of opset 11 as if it were opset 13's, over one axis only.
    off = to.op("Sub", to.op("Exp", to.op("LogSoftmax", x, axis=1)), labels)
    return str(to.op("ReduceSum", to.op("Mul", off, off), keepdims=0))


def _elementwise(kind: str) -> Callable[..., str]:
    return lambda to, node, *args: str(to.op(kind, *args))


OPS: Dict[str, Callable[..., Any]] = {
    **_onnx_images.OPS,
    "fill": _fill,
    "random": _random,
    "dense": _dense,
    "rnn": _recurrent("rnn"),
    "lstm": _recurrent("lstm"),
    "gru": _recurrent("gru"),
    "rnn_cell": _rnn_cell,
    "lstm_cell": _lstm_cell,
    "gru_cell": _gru_cell,
    "scan": _scan,
    "last": _last,
    "add": _elementwise("Add"),
    "sub": _elementwise("Sub"),
    "mul": _elementwise("Mul"),
    "log": _elementwise("Log"),
    "relu": _elementwise("Relu"),
    "affine": _affine,
    "where_less": _where_less,
    "mean": lambda to, node, x: str(to.op("ReduceMean", x, keepdims=0)),
    "softmax_cross_entropy": _softmax_cross_entropy,
    "squared_error": _squared_error,
    "flat_softmax_nll": _flat_softmax_nll,
    "flat_softmax_squared_error": _flat_softmax_squared_error,
}

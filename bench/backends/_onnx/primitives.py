"""Every primitive in ONNX operators of opset 11."""

from __future__ import annotations

from typing import Any, Callable, Dict, List

from bench.backends._onnx import images
from bench.backends._onnx.lowering import Lowering, regate
from bench.graph import Node


def native_shape(shape: Any, integers: bool) -> List[int]:
    """A shape of the graph in the model: sequences are time-major."""
    sequence = len(shape) == 3 or (integers and len(shape) > 1)
    return [shape[1], shape[0], *shape[2:]] if sequence else list(shape)


def _dense(to: Lowering, node: Node, x: str) -> str:
    return str(to.op("Gemm", x, *to.named(node, "weight"), *to.named(node, "bias"), transB=1))


def _recurrent(kind: str) -> Callable[..., str]:
    def lower(to: Lowering, node: Node, x: str) -> str:
        parameters = [to.gates(node, kind, name) for name in ("weight_ih", "weight_hh")]
        if len(node.weights) > 2:
            parameters.append(_biases(to, node, kind))
        attrs: Dict[str, Any] = {"linear_before_reset": 1} if kind == "gru" else {}
        out = to.op(kind.upper(), x, *parameters, hidden_size=node.attrs["hidden"], **attrs)
        return str(to.op("Squeeze", out, axes=[1]))

    return lower


def _biases(to: Lowering, node: Node, kind: str) -> str:
    """ONNX has two biases for each gate. If the layer has one, the other is zero, also after training."""
    import numpy as np

    if len(node.weights) > 3:
        return to.gates(node, kind, "bias_ih", "bias_hh")
    weight = node.weights[2]
    array = regate(to.weights[weight.name], kind)[None]
    if not to.variable:
        return to.parameter(np.concatenate([array, np.zeros_like(array)], axis=1), (weight, kind))
    bias, zeros = to.parameter(array, (weight, kind)), to.constant(np.zeros_like(array))
    return str(to.op("Concat", bias, zeros, axis=1))


def _product(to: Lowering, node: Node, x: str, suffix: str) -> str:
    parameters = [*to.named(node, f"weight_{suffix}"), *to.named(node, f"bias_{suffix}")]
    return str(to.op("Gemm", x, *parameters, transB=1))


def _rnn_cell(to: Lowering, node: Node, x: str, h: str) -> str:
    return str(to.op("Tanh", to.op("Add", _product(to, node, x, "ih"), _product(to, node, h, "hh"))))


def _lstm_cell(to: Lowering, node: Node, x: str, h: str, c: str) -> List[str]:
    gates = to.op("Add", _product(to, node, x, "ih"), _product(to, node, h, "hh"))
    i, f, g, o = to.op("Split", gates, outputs=4, axis=1)
    remembered = to.op("Mul", to.op("Sigmoid", f), c)
    new = to.op("Add", remembered, to.op("Mul", to.op("Sigmoid", i), to.op("Tanh", g)))
    return [str(to.op("Mul", to.op("Sigmoid", o), to.op("Tanh", new))), str(new)]


def _gru_cell(to: Lowering, node: Node, x: str, h: str) -> str:
    xr, xz, xn = to.op("Split", _product(to, node, x, "ih"), outputs=3, axis=1)
    hr, hz, hn = to.op("Split", _product(to, node, h, "hh"), outputs=3, axis=1)
    z = to.op("Sigmoid", to.op("Add", xz, hz))
    reset = to.op("Mul", to.op("Sigmoid", to.op("Add", xr, hr)), hn)
    n = to.op("Tanh", to.op("Add", xn, reset))
    # n + z (h - n) = (1 - z) n + z h, with one multiplication less.
    return str(to.op("Add", n, to.op("Mul", z, to.op("Sub", h, n))))


def _scan(to: Lowering, node: Node, *args: str) -> str:
    from onnx import helper

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
        return [helper.make_tensor_value_info(n, to.type, s) for n, s in zip(names, sizes)]

    body_graph = helper.make_graph(to.nodes, "body", info(sources.values(), shapes), info(outputs, out_shapes))
    to.nodes = outer
    results = to.op("Scan", *args, outputs=count + 1, body=body_graph, num_scan_inputs=len(args) - count)
    return str(results[-1])


def _fill(to: Lowering, node: Node) -> str:
    import numpy as np

    return to.constant(np.full(node.shape, node.attrs["value"], np.float32))


def _random(to: Lowering, node: Node) -> str:
    kind = "RandomNormal" if node.attrs["values"] == "normal" else "RandomUniform"
    return str(to.op(kind, shape=native_shape(node.shape, False), dtype=to.type))


def _affine(to: Lowering, node: Node, x: str) -> str:
    scaled = to.op("Mul", x, to.scalar(node.attrs["scale"]))
    return str(to.op("Add", scaled, to.scalar(node.attrs["shift"])) if node.attrs["shift"] else scaled)


def _where_less(to: Lowering, node: Node, a: str, b: str, then: str, otherwise: str) -> str:
    return str(to.op("Where", to.op("Less", a, b), then, otherwise))


def _last(to: Lowering, node: Node, x: str) -> str:
    import numpy as np

    index = to.constant(np.asarray(node.inputs[0].shape[1] - 1, np.int32))
    return str(to.op("Gather", x, index, axis=0))


def _softmax_cross_entropy(to: Lowering, node: Node, x: str, labels: str) -> str:
    axis = len(node.inputs[0].shape) - 1
    picked = to.op("Mul", to.op("LogSoftmax", x, axis=axis), labels)
    summed = to.op("ReduceSum", picked, axes=[axis], keepdims=0)
    return str(to.op("Neg", to.op("ReduceMean", summed, keepdims=0)))


def _squared_error(to: Lowering, node: Node, x: str, labels: str) -> str:
    error = to.op("Sub", x, labels)
    return str(to.op("ReduceMean", to.op("Mul", error, error), keepdims=0))


def _flat_softmax_nll(to: Lowering, node: Node, x: str, labels: str) -> str:
    import numpy as np

    depth = to.constant(np.asarray([node.inputs[0].shape[2]], np.int32))
    one_hot = to.op("OneHot", labels, depth, to.constant(np.asarray([0, 1], np.float32)), axis=2)
    picked = to.op("Mul", to.op("LogSoftmax", x, axis=1), one_hot)
    return str(to.op("Neg", to.op("ReduceSum", picked, keepdims=0)))


def _flat_softmax_squared_error(to: Lowering, node: Node, x: str, labels: str) -> str:
    # Not Softmax: OpenVINO computes that of opset 11 like that of opset 13, over one axis only.
    error = to.op("Sub", to.op("Exp", to.op("LogSoftmax", x, axis=1)), labels)
    return str(to.op("ReduceSum", to.op("Mul", error, error), keepdims=0))


def _elementwise(kind: str) -> Callable[..., str]:
    return lambda to, node, *args: str(to.op(kind, *args))


OPS: Dict[str, Callable[..., Any]] = {
    **images.OPS,
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
PRIMITIVES = frozenset(OPS)

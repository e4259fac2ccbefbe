"""The numpy reference: the plain formula of every primitive. Frameworks are checked against it in float64."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

from bench.graph.primitives import Graph, Node, Tensor

Array = Any
Weights = Dict[str, Array]
# Called as visit(index, node, arguments, result) after each node; returns the result.
Visit = Callable[[int, Node, List[Array], Array], Array]


def evaluate(
    graph: Graph, weights: Mapping[str, Array], inputs: Mapping[str, Array], dtype: Any, visit: Optional[Visit] = None
) -> Tuple[Array, Optional[Array]]:
    """Return the output and the terms whose sum is the loss (None if the graph has no loss), in `dtype`.

    The terms are not summed, because the difference of two close losses is lost in the rounding of the sums.

    The inputs may have fewer rows than the graph's batch; the output then has as many.
    """
    import numpy as np

    weights = {name: np.asarray(value, dtype) for name, value in weights.items()}
    values = walk(graph, weights, inputs, dtype, visit)
    terms = _value(values, graph.loss) if graph.loss.node >= 0 else None
    return _value(values, graph.output), terms


def walk(
    graph: Graph, weights: Mapping[str, Array], inputs: Mapping[str, Array], dtype: Any, visit: Optional[Visit] = None
) -> List[Tuple[Array, ...]]:
    """Return the results of every node, in `dtype`, which the weights must have.

    visit   called as visit(index, node, arguments, result) for each result of each node, also within scans; its
            return value replaces the result
    """
    import numpy as np

    # Bytes are converted to `dtype`; signed integers are labels, and stay.
    arrays = {k: v if v.dtype.kind == "i" else np.asarray(v, dtype) for k, v in inputs.items()}
    rows = next((len(array) for array in arrays.values()), graph.batch_size)
    fed = {index: arrays[f"input{index}"] for index, node in enumerate(graph.nodes) if node.op == "input"}
    return _walk(graph, weights, fed, rows, dtype, visit)


def _walk(
    graph: Graph,
    weights: Mapping[str, Array],
    fed: Mapping[int, Array],
    rows: int,
    dtype: Any,
    visit: Optional[Visit] = None,
) -> List[Tuple[Array, ...]]:
    import numpy as np

    values: List[Tuple[Array, ...]] = []
    for index, node in enumerate(graph.nodes):
        args = [_value(values, tensor) for tensor in node.inputs]
        if index in fed:
            results: Any = fed[index]
        elif node.op == "fill":
            results = np.full((rows, *node.shape[1:]), node.attrs["value"], dtype)
        elif node.op == "random":
            results = _random(node, (rows, *node.shape[1:])).astype(dtype)
        elif node.op == "scan":
            results = _scan(node, weights, args, dtype, visit)
        else:
            named = {weight.name.rsplit(".", 1)[-1]: weights[weight.name] for weight in node.weights}
            results = OPS[node.op](node, named, *args)
        if visit is not None and index not in fed:
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
        fed = dict(enumerate([*states, *(sequence[:, step] for sequence in sequences)]))
        values = _walk(body, weights, fed, len(states[0]), dtype, visit)
        states = [_value(values, end) for end in node.attrs["ends"]]
        trace.append(states[0])
    return np.stack(trace, axis=1)


def _dense(node: Node, w: Weights, x: Array) -> Array:
    return x @ w["weight"].T + w.get("bias", 0)


def _sigmoid(x: Array) -> Array:
    import numpy as np

    return 1 / (1 + np.exp(-x))


def _rnn_cell(node: Node, w: Weights, x: Array, h: Array) -> Array:
    import numpy as np

    return np.tanh(x @ w["weight_ih"].T + h @ w["weight_hh"].T + w.get("bias_ih", 0))


def _lstm_cell(node: Node, w: Weights, x: Array, h: Array, c: Array) -> Tuple[Array, Array]:
    import numpy as np

    gates = x @ w["weight_ih"].T + h @ w["weight_hh"].T + w.get("bias_ih", 0)
    i, f, g, o = np.split(gates, 4, axis=-1)
    c = _sigmoid(f) * c + _sigmoid(i) * np.tanh(g)
    return _sigmoid(o) * np.tanh(c), c


def _gru_cell(node: Node, w: Weights, x: Array, h: Array) -> Array:
    import numpy as np

    xr, xz, xn = np.split(x @ w["weight_ih"].T + w.get("bias_ih", 0), 3, axis=-1)
    hr, hz, hn = np.split(h @ w["weight_hh"].T + w.get("bias_hh", 0), 3, axis=-1)
    z = _sigmoid(xz + hz)
    n = np.tanh(xn + _sigmoid(xr + hr) * hn)
    return (1 - z) * n + z * h


def _layer(cell: Callable[..., Any], states: int) -> Callable[..., Array]:
    def run(node: Node, w: Weights, x: Array) -> Array:
        import numpy as np

        carried = [np.zeros((len(x), node.attrs["hidden"]), x.dtype)] * states
        trace = []
        for step in range(x.shape[1]):
            new = cell(node, w, x[:, step], *carried)
            carried = list(new) if isinstance(new, tuple) else [new]
            trace.append(carried[0])
        return np.stack(trace, axis=1)

    return run


def _relu(node: Node, w: Weights, x: Array) -> Array:
    import numpy as np

    return np.maximum(x, 0)


def _log(node: Node, w: Weights, x: Array) -> Array:
    import numpy as np

    return np.log(x)


def _where_less(node: Node, w: Weights, a: Array, b: Array, then: Array, other: Array) -> Array:
    import numpy as np

    return np.where(a < b, then, other)


def _conv(node: Node, w: Weights, x: Array) -> Array:
    kernel, groups = w["weight"], node.attrs["groups"]
    filters, depth, size, _ = kernel.shape
    if groups > 1 and depth == 1 and filters == groups:
        out = _depthwise(node, kernel, x)
    elif size == 1 and groups == 1:
        stride = node.attrs["stride"]
        x = _padded(node, x, 0)[:, :, ::stride, ::stride]
        out = (kernel.reshape(filters, -1) @ x.reshape(*x.shape[:2], -1)).reshape(len(x), filters, *x.shape[2:])
    else:
        out = _by_columns(node, kernel, x)
    if "bias" in w:
        out += w["bias"][:, None, None]
    return out


def _by_columns(node: Node, kernel: Array, x: Array) -> Array:
    """A convolution as a matrix product with the pixels under each window (im2col), image by image."""
    import numpy as np

    groups = node.attrs["groups"]
    filters, depth, size, _ = kernel.shape
    x = _padded(node, x, 0)
    _, _, height, width = node.shape
    out = np.empty((len(x), filters, height, width), x.dtype)
    kernel = kernel.reshape(groups, filters // groups, -1)
    for row, image in enumerate(x):
        windows = _windows(image, size, node.attrs["stride"], height, width)
        columns = windows.reshape(groups, depth * size * size, height * width)
        np.matmul(kernel, columns, out=out[row].reshape(groups, filters // groups, height * width))
    return out


def _windows(image: Array, size: int, stride: int, height: int, width: int) -> Array:
    """A view (channels, size, size, height, width) of the pixels under each window."""
    import numpy as np

    c, h, v = image.strides
    shape = (len(image), size, size, height, width)
    return np.lib.stride_tricks.as_strided(image, shape, (c, h, v, h * stride, v * stride))


def _depthwise(node: Node, kernel: Array, x: Array) -> Array:
    x, stride, size = _padded(node, x, 0), node.attrs["stride"], kernel.shape[2]
    _, _, height, width = node.shape
    out = 0
    for down in range(size):
        for right in range(size):
            shifted = x[:, :, down : down + stride * height : stride, right : right + stride * width : stride]
            out = out + kernel[:, 0, down, right][:, None, None] * shifted[:, :, :height, :width]
    return out


def _padded(node: Node, x: Array, value: float) -> Array:
    import numpy as np

    if not any(sum(pads) for pads in node.attrs["pads"]):
        return x
    return np.pad(x, [(0, 0), (0, 0), *node.attrs["pads"]], constant_values=value)


def _max_pool(node: Node, w: Weights, x: Array) -> Array:
    import numpy as np

    x, size = _padded(node, x, -np.inf), node.attrs["kernel"]
    _, _, height, width = node.shape
    return np.stack([_windows(image, size, node.attrs["stride"], height, width).max(axis=(1, 2)) for image in x])


def _batch_norm(node: Node, w: Weights, x: Array) -> Array:
    mean, variance = w["running_mean"], w["running_var"]
    if node.attrs["training"]:
        mean, variance = x.mean(axis=(0, 2, 3)), x.var(axis=(0, 2, 3))
    scale = w["weight"] / (variance + node.attrs["eps"]) ** 0.5
    return x * scale[:, None, None] + (w["bias"] - mean * scale)[:, None, None]


def _group_norm(node: Node, w: Weights, x: Array) -> Array:
    rows, channels, *pixels = x.shape
    groups = node.attrs["groups"]
    if node.attrs["strided"]:
        parts = x.reshape(rows, channels // groups, groups, *pixels).swapaxes(1, 2)
    else:
        parts = x.reshape(rows, groups, channels // groups, *pixels)
    mean, variance = (f(axis=(2, 3, 4), keepdims=True) for f in (parts.mean, parts.var))
    parts = (parts - mean) / (variance + node.attrs["eps"]) ** 0.5
    x = (parts.swapaxes(1, 2) if node.attrs["strided"] else parts).reshape(x.shape)
    return x * w["weight"][:, None, None] + w["bias"][:, None, None]


def _hard_sigmoid(x: Array) -> Array:
    import numpy as np

    return np.clip(x / 6 + 0.5, 0, 1)


def _relu6(node: Node, w: Weights, x: Array) -> Array:
    import numpy as np

    return np.clip(x, 0, 6)


def _normalise(node: Node, w: Weights, x: Array) -> Array:
    import numpy as np

    scale, shift = (np.asarray(node.attrs[key], x.dtype)[:, None, None] for key in ("scale", "shift"))
    return x * scale + shift


def _pad_channels(node: Node, w: Weights, x: Array) -> Array:
    import numpy as np

    return np.pad(x, [(0, 0), (0, node.shape[1] - x.shape[1]), (0, 0), (0, 0)])


def _dropout(node: Node, w: Weights, x: Array) -> Array:
    import numpy as np

    shape = (len(x),) + (1,) * (x.ndim - 1) if node.attrs["rows"] else x.shape
    share = 1 - node.attrs["rate"]
    return x * (np.random.uniform(size=shape) < share) / share


def _blend(node: Node, w: Weights, x: Array, share: Array) -> Array:
    import numpy as np

    return share * x + (1 - share) * np.roll(x, node.attrs["shift"], axis=0)


def targets(labels: Array, classes: int, attrs: Dict[str, Any], shares: Any = None) -> Array:
    """The target distributions of the softmax, (batch, classes): smoothed, and mixed by `shares`."""
    import numpy as np

    rolled = [np.roll(labels, roll) for roll in attrs["rolls"]]
    if shares is None:
        shares = np.ones((len(labels), 1))
    hot = sum(share[:, None] * np.eye(classes)[rows] for share, rows in zip(shares.T, rolled))
    # The shares of a row sum to 1, so smoothing the sum is smoothing each label.
    return attrs["off"] * shares.sum(axis=1, keepdims=True) + (attrs["on"] - attrs["off"]) * hot


def _cross_entropy(node: Node, w: Weights, x: Array, labels: Array, *shares: Array) -> Array:
    target = targets(labels, x.shape[1], node.attrs, *shares).astype(x.dtype)
    return -(target * _log_softmax(x, -1)) / len(x)


def _log_softmax(x: Array, axis: Any) -> Array:
    import numpy as np

    x = x - x.max(axis=axis, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=axis, keepdims=True))


def _softmax_cross_entropy(node: Node, w: Weights, x: Array, labels: Array) -> Array:
    return -(labels * _log_softmax(x, -1)) / (x.size // x.shape[-1])


def _flat_softmax_nll(node: Node, w: Weights, x: Array, labels: Array) -> Array:
    import numpy as np

    picked = np.take_along_axis(_log_softmax(x, (0, 2)), labels[:, :, None], axis=2)
    return -picked


def _flat_softmax_squared_error(node: Node, w: Weights, x: Array, labels: Array) -> Array:
    import numpy as np

    # (p - l)^2 is p (p - 2 l) + l^2. The second part is far larger than the first, and no weight changes it. It is a
    # separate term, so that the effect of a small step is not lost in the rounding of the others. All is computed in
    # place: for conv's 33 million terms, allocating memory costs more than arithmetic.
    terms = np.empty(x.size + 1, x.dtype)
    p = terms[:-1].reshape(x.shape)
    np.subtract(x, x.max(axis=(1, 2, 3), keepdims=True), out=p)
    np.exp(p, out=p)
    p /= p.sum(axis=(1, 2, 3), keepdims=True)
    rest = p - labels
    rest -= labels
    p *= rest
    terms[-1] = np.square(labels).sum()
    return terms


OPS: Dict[str, Callable[..., Any]] = {
    "conv": _conv,
    "batch_norm": _batch_norm,
    "group_norm": _group_norm,
    "max_pool": _max_pool,
    "global_mean": lambda node, w, x: x.mean(axis=(2, 3)),
    "pooled": lambda node, w, x: x.mean(axis=(2, 3), keepdims=True),
    "gate": lambda node, w, x, gate: x * gate,
    "relu6": _relu6,
    "sigmoid": lambda node, w, x: _sigmoid(x),
    "silu": lambda node, w, x: x * _sigmoid(x),
    "hardsigmoid": lambda node, w, x: _hard_sigmoid(x),
    "hardswish": lambda node, w, x: x * _hard_sigmoid(x),
    "normalise": _normalise,
    "pad_channels": _pad_channels,
    "dropout": _dropout,
    "blend": _blend,
    "cross_entropy": _cross_entropy,
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
# All primitives: `_walk` itself computes the three that OPS lacks.
PRIMITIVES = frozenset((*OPS, "fill", "random", "scan"))

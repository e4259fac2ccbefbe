"""The primitives of image networks in ONNX operators of opset 11, which has no hard-swish and no group norm."""

from __future__ import annotations

from typing import Any, Callable, Dict

from bench.graph import Node


def _pads(node: Node) -> Any:
    (top, bottom), (left, right) = node.attrs["pads"]
    return [top, left, bottom, right]


def _conv(to: Any, node: Node, x: str) -> str:
    size, stride = node.weights[0].shape[2], node.attrs["stride"]
    parameters = [*to.named(node, "weight"), *to.named(node, "bias")]
    attrs = {"kernel_shape": [size, size], "strides": [stride, stride], "pads": _pads(node)}
    return str(to.op("Conv", x, *parameters, group=node.attrs["groups"], **attrs))


def _max_pool(to: Any, node: Node, x: str) -> str:
    size, stride = node.attrs["kernel"], node.attrs["stride"]
    return str(to.op("MaxPool", x, kernel_shape=[size, size], strides=[stride, stride], pads=_pads(node)))


def _batch_norm(to: Any, node: Node, x: str) -> str:
    """The operator has five outputs in training: it uses the batch's statistics, and updates the running ones."""
    parameters = [to.named(node, name)[0] for name in ("weight", "bias", "running_mean", "running_var")]
    if not node.attrs["training"]:
        return str(to.op("BatchNormalization", x, *parameters, epsilon=node.attrs["eps"]))
    attrs = {"epsilon": node.attrs["eps"], "momentum": 1 - node.attrs["momentum"]}
    return str(to.op("BatchNormalization", x, *parameters, outputs=5, **attrs)[0])


def _group_norm(to: Any, node: Node, x: str) -> str:
    """An instance norm with the groups as channels, then the scale and shift of each channel."""
    import numpy as np

    rows, channels, height, width = node.shape
    groups = node.attrs["groups"]
    if node.attrs["strided"]:
        x = _swapped(to, x, (rows, channels // groups, groups, height * width))
    x = to.op("Reshape", x, to.constant(np.asarray([rows, groups, -1], np.int64)))
    ones, zeros = (to.constant(np.full(groups, value, np.float32)) for value in (1, 0))
    x = to.op("InstanceNormalization", x, ones, zeros, epsilon=node.attrs["eps"])
    if node.attrs["strided"]:
        x = _swapped(to, x, (rows, groups, channels // groups, height * width))
    x = to.op("Reshape", x, to.constant(np.asarray(node.shape, np.int64)))
    (scale,), (shift,) = (to.named(node, name, channels, 1, 1) for name in ("weight", "bias"))
    return str(to.op("Add", to.op("Mul", x, scale), shift))


def _swapped(to: Any, x: str, shape: Any) -> str:
    """`x` in `shape`, (rows, a, b, pixels), with a and b swapped."""
    import numpy as np

    parts = to.op("Reshape", x, to.constant(np.asarray(shape, np.int64)))
    return str(to.op("Transpose", parts, perm=[0, 2, 1, 3]))


def _relu6(to: Any, node: Node, x: str) -> str:
    return str(to.op("Clip", x, to.scalar(0), to.scalar(6)))


def _hard_sigmoid(to: Any, node: Node, x: str) -> str:
    return str(to.op("HardSigmoid", x, alpha=1 / 6, beta=0.5))


def _normalise(to: Any, node: Node, x: str) -> str:
    import numpy as np

    if node.inputs[0].node in to.bytes:
        x = to.op("Cast", x, to=to.type)
    scale, shift = (to.constant(np.asarray(node.attrs[key], np.float32)[:, None, None]) for key in ("scale", "shift"))
    return str(to.op("Add", to.op("Mul", x, scale), shift))


def _pad_channels(to: Any, node: Node, x: str) -> str:
    import numpy as np

    added = node.shape[1] - node.inputs[0].shape[1]
    return str(to.op("Pad", x, to.constant(np.asarray([0, 0, 0, 0, 0, added, 0, 0], np.int64))))


def _global_mean(to: Any, node: Node, x: str) -> str:
    return str(to.op("Flatten", to.op("GlobalAveragePool", x), axis=1))


def _cross_entropy(to: Any, node: Node, x: str, labels: str, shares: str = "") -> str:
    """The mean cross entropy with smoothed labels. With `shares`, (batch, targets), the labels are mixed."""
    import numpy as np

    depth = to.constant(np.asarray([node.inputs[0].shape[1]], np.int32))
    values = to.constant(np.asarray([node.attrs["off"], node.attrs["on"]], np.float32))
    logs = to.op("LogSoftmax", x, axis=1)
    targets = to.op("OneHot", labels, depth, values, axis=1)
    if shares:
        targets = _mixed(to, node, targets, shares)
    picked = to.op("Mul", logs, targets)
    return str(to.op("Neg", to.op("ReduceMean", to.op("ReduceSum", picked, axes=[1], keepdims=0), keepdims=0)))


def _mixed(to: Any, node: Node, targets: str, shares: str) -> str:
    """The targets of a row and of the rows blended into it, weighted by the columns of `shares`."""
    rows, shifts = node.inputs[0].shape[0], node.attrs["rolls"]
    columns = to.op("Split", shares, outputs=len(shifts), axis=1) if len(shifts) > 1 else [shares]
    parts = [to.op("Mul", column, _rolled(to, targets, rows, shift)) for column, shift in zip(columns, shifts)]
    total = parts[0]
    for part in parts[1:]:
        total = to.op("Add", total, part)
    return str(total)


def _rolled(to: Any, x: str, rows: int, shift: int) -> str:
    """np.roll along the batch, whose size is `rows`."""
    if shift % rows == 0:
        return x
    first, last = to.op("Split", x, outputs=2, axis=0, split=[rows - shift % rows, shift % rows])
    return str(to.op("Concat", last, first, axis=0))


def _blend(to: Any, node: Node, x: str, share: str) -> str:
    rolled = _rolled(to, x, node.shape[0], node.attrs["shift"])
    rest = to.op("Sub", to.scalar(1), share)
    return str(to.op("Add", to.op("Mul", share, x), to.op("Mul", rest, rolled)))


def _dropout(to: Any, node: Node, x: str) -> str:
    """To drop whole rows, dropout is applied to one number for each row."""
    import numpy as np

    if not node.attrs["rows"]:
        return str(to.op("Dropout", x, ratio=node.attrs["rate"]))
    ones = to.constant(np.ones((node.shape[0],) + (1,) * (len(node.shape) - 1), np.float32))
    return str(to.op("Mul", x, to.op("Dropout", ones, ratio=node.attrs["rate"])))


def _simple(kind: str) -> Callable[..., str]:
    return lambda to, node, *args: str(to.op(kind, *args))


OPS: Dict[str, Callable[..., Any]] = {
    "conv": _conv,
    "max_pool": _max_pool,
    "batch_norm": _batch_norm,
    "group_norm": _group_norm,
    "global_mean": _global_mean,
    "pooled": _simple("GlobalAveragePool"),
    "gate": _simple("Mul"),
    "relu6": _relu6,
    "sigmoid": _simple("Sigmoid"),
    "silu": lambda to, node, x: str(to.op("Mul", x, to.op("Sigmoid", x))),
    "hardsigmoid": _hard_sigmoid,
    "hardswish": lambda to, node, x: str(to.op("Mul", x, _hard_sigmoid(to, node, x))),
    "normalise": _normalise,
    "pad_channels": _pad_channels,
    "cross_entropy": _cross_entropy,
    "dropout": _dropout,
    "blend": _blend,
}

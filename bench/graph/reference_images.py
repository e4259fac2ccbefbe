"""The primitives of image networks in numpy, for the reference: plain formulas, but no slower than they must be."""

from __future__ import annotations

from typing import Any, Callable, Dict

from bench.graph import Node

Array = Any
Weights = Dict[str, Array]


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
    """A product with the pixels under each window, image by image."""
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
            seen = x[:, :, down : down + stride * height : stride, right : right + stride * width : stride]
            out = out + kernel[:, 0, down, right][:, None, None] * seen[:, :, :height, :width]
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


def _sigmoid(x: Array) -> Array:
    import numpy as np

    return 1 / (1 + np.exp(-x))


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
    """What the softmax is compared with, (batch, classes): smoothed, and mixed by `shares`."""
    import numpy as np

    rolled = [np.roll(labels, roll) for roll in attrs["rolls"]]
    if shares is None:
        shares = np.ones((len(labels), 1))
    hot = sum(share[:, None] * np.eye(classes)[own] for share, own in zip(shares.T, rolled))
    # The shares of a row sum to 1, so that the smoothing stands outside.
    return attrs["off"] * shares.sum(axis=1, keepdims=True) + (attrs["on"] - attrs["off"]) * hot


def cross_entropy(log_softmax: Callable[..., Array]) -> Callable[..., Array]:
    def loss(node: Node, w: Weights, x: Array, labels: Array, *shares: Array) -> Array:
        wanted = targets(labels, x.shape[1], node.attrs, *shares).astype(x.dtype)
        return -(wanted * log_softmax(x, -1)) / len(x)

    return loss


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
}

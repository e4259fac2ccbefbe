"""A graph as functions of jax.numpy, which jax.jit traces.

Sequences are (time, batch, features), which lax.scan takes without a copy. Images are (batch, height, width,
channels), the layout in which XLA convolves on a CPU. Matrices are (in, out): XLA copies one that it has to transpose,
which makes a product of one row 6 times slower (1024x1024, one thread).
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Mapping, Tuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from bench.graph import Graph, Node, Tensor, naming

Array = Any
Weights = Dict[str, Array]
Op = Callable[..., Any]


def native(array: Array) -> Array:
    """A batch's array in the layout of the device."""
    if array.ndim == 4:
        return array.transpose(0, 2, 3, 1)
    sequence = array.ndim == 3 or (array.ndim == 2 and array.dtype.kind == "i")
    return array.swapaxes(0, 1) if sequence else array


def canonical(array: Array) -> Array:
    """An output in float64 and in the layout of the graph."""
    array = np.asarray(array, np.float64)
    return array.transpose(0, 3, 1, 2) if array.ndim == 4 else native(array)


def native_weight(array: Array) -> Array:
    """A weight in the layout of the device: matrices are (in, out), kernels (height, width, in, out)."""
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T


def canonical_weight(array: Array) -> Array:
    """A weight in float64 and in the layout of the graph."""
    array = np.asarray(array, np.float64)
    return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T


class Trace:
    """One pass over a graph, while it is traced.

    compute   the type of the arithmetic
    training  norms use the batch's statistics, and dropout is active
    moved     the new running statistics, by name
    """

    def __init__(self, graph: Graph, weights: Mapping[str, Array], key: Array, compute: Any, training: bool) -> None:
        self.graph, self.weights, self.key = graph, weights, key
        self.compute, self.training = compute, training
        self.moved: Dict[str, Array] = {}
        self.keys = 0

    def output(self, inputs: Mapping[str, Array]) -> Array:
        nodes = dict(enumerate(self.graph.nodes[: self.graph.output.node + 1]))
        values = {index: inputs[f"input{index}"] for index, node in nodes.items() if node.op == "input"}
        for segment in self.graph.recompute_segments(nodes):
            if len(segment) > 1:
                self._recompute(segment, values)
            else:
                self.walk(segment, values)
        return value_of(values, self.graph.output)

    def walk(self, nodes: Mapping[int, Node], values: Dict[int, Any]) -> None:
        """Add the values of the nodes that have none yet."""
        for index, node in nodes.items():
            if index not in values:
                with jax.named_scope(naming.scope(index, node)):
                    values[index] = self.computed(node, values)

    def computed(self, node: Node, values: Mapping[int, Any]) -> Any:
        """The value of a node, from those of the nodes that it reads."""
        # The parameters and statistics of norms are fp32 in every precision.
        dtype = jnp.float32 if node.op.endswith("_norm") else self.compute
        named = {w.name.rsplit(".", 1)[-1]: self.weights[w.name].astype(dtype) for w in node.weights}
        return OPS[node.op](self, node, named, *[value_of(values, t) for t in node.inputs])

    def new_key(self) -> Array:
        """A random key for one node."""
        self.keys += 1
        return jax.random.fold_in(self.key, self.keys)

    def _recompute(self, segment: Mapping[int, Node], values: Dict[int, Any]) -> None:
        """Run a block that saves its arguments only, and is computed again in the backward pass."""
        inputs = self.graph.inputs_of(segment)
        results = [tensor.node for tensor in self.graph.results_of(segment)]

        def block(*args: Array) -> Tuple[List[Array], Dict[str, Array]]:
            before, self.moved = self.moved, {}
            block_values = dict(zip(inputs, args))
            self.walk(segment, block_values)
            moved, self.moved = self.moved, before
            return [block_values[index] for index in results], moved

        ends, moved = jax.checkpoint(block)(*[values[index] for index in inputs])
        values.update(zip(results, ends))
        self.moved.update(moved)


def value_of(values: Mapping[int, Any], tensor: Tensor) -> Array:
    """The value of a tensor. A node with several results has a tuple of values."""
    value = values[tensor.node]
    return value[tensor.output] if isinstance(value, tuple) else value


def _dense(trace: Trace, node: Node, w: Weights, x: Array) -> Array:
    return x @ w["weight"] + w.get("bias", 0)


# ---- recurrent layers: a step takes the products with the inputs, which are made for all time steps at once --------


def _gates(w: Weights, x: Array) -> Array:
    return x @ w["weight_ih"] + w.get("bias_ih", 0)


def _rnn_step(w: Weights, gates: Array, h: Array) -> Tuple[Array, ...]:
    return (jnp.tanh(gates + h @ w["weight_hh"]),)


def _lstm_step(w: Weights, gates: Array, h: Array, c: Array) -> Tuple[Array, ...]:
    i, f, g, o = jnp.split(gates + h @ w["weight_hh"], 4, axis=-1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(c), c


def _gru_step(w: Weights, gates: Array, h: Array) -> Tuple[Array, ...]:
    xr, xz, xn = jnp.split(gates, 3, axis=-1)
    hr, hz, hn = jnp.split(h @ w["weight_hh"] + w.get("bias_hh", 0), 3, axis=-1)
    z = jax.nn.sigmoid(xz + hz)
    n = jnp.tanh(xn + jax.nn.sigmoid(xr + hr) * hn)
    return ((1 - z) * n + z * h,)


def _cell(step: Op) -> Op:
    return lambda trace, node, w, x, *states: step(w, _gates(w, x), *states)


def _layer(step: Op, states: int) -> Op:
    def run(trace: Trace, node: Node, w: Weights, x: Array) -> Array:
        def advance(carried: Tuple[Array, ...], gates: Array) -> Tuple[Tuple[Array, ...], Array]:
            carried = step(w, gates, *carried)
            return carried, carried[0]

        zeros = jnp.zeros((x.shape[1], node.attrs["hidden"]), x.dtype)
        return lax.scan(advance, (zeros,) * states, _gates(w, x))[1]

    return run


def _scan(trace: Trace, node: Node, w: Weights, *args: Array) -> Array:
    body, count = node.attrs["body"], node.attrs["states"]

    def advance(states: Tuple[Array, ...], slices: Tuple[Array, ...]) -> Tuple[Tuple[Array, ...], Array]:
        values: Dict[int, Any] = dict(enumerate([*states, *slices]))
        for index, operation in enumerate(body.nodes):
            if index not in values:
                values[index] = trace.computed(operation, values)
        states = tuple(value_of(values, end) for end in node.attrs["ends"])
        return states, states[0]

    return lax.scan(advance, args[:count], args[count:])[1]


# ---- sources ---------------------------------------------------------------------------------------------------


def _random(trace: Trace, node: Node, w: Weights) -> Array:
    draw = jax.random.normal if node.attrs["values"] == "normal" else jax.random.uniform
    batch, *rest = node.shape
    shape = (rest[0], batch, *rest[1:]) if len(rest) == 2 else node.shape
    return draw(trace.new_key(), shape, trace.compute)


def _dropout(trace: Trace, node: Node, w: Weights, x: Array) -> Array:
    if not trace.training:
        return x
    share = 1 - node.attrs["rate"]
    shape = (len(x),) + (1,) * (x.ndim - 1) if node.attrs["rows"] else x.shape
    return x * (jax.random.bernoulli(trace.new_key(), share, shape).astype(x.dtype) / share)


# ---- images ----------------------------------------------------------------------------------------------------


def _conv(trace: Trace, node: Node, w: Weights, x: Array) -> Array:
    out = lax.conv_general_dilated(
        x,
        w["weight"],
        window_strides=(node.attrs["stride"],) * 2,
        padding=node.attrs["pads"],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=node.attrs["groups"],
    )
    return out + w.get("bias", 0)


def _batch_norm(trace: Trace, node: Node, w: Weights, x: Array) -> Array:
    """The running variance averages unbiased variances, as in torch."""
    exact = x.astype(jnp.float32)
    mean, variance = w["running_mean"], w["running_var"]
    if trace.training:
        count, share = x.size // x.shape[-1], node.attrs["momentum"]
        mean, variance = exact.mean((0, 1, 2)), exact.var((0, 1, 2))
        moved = zip(node.weights[2:], (mean, variance * (count / max(count - 1, 1))))
        for weight, new in moved:
            trace.moved[weight.name] = trace.weights[weight.name] * (1 - share) + share * new
    scale = w["weight"] * lax.rsqrt(variance + node.attrs["eps"])
    return (exact * scale + (w["bias"] - mean * scale)).astype(x.dtype)


def _group_norm(trace: Trace, node: Node, w: Weights, x: Array) -> Array:
    groups, strided = node.attrs["groups"], node.attrs["strided"]
    parts = (-1, groups) if strided else (groups, -1)
    exact = x.astype(jnp.float32).reshape(*x.shape[:-1], *parts)
    axes = (1, 2, 3 if strided else 4)
    mean, variance = exact.mean(axes, keepdims=True), exact.var(axes, keepdims=True)
    normed = (exact - mean) * lax.rsqrt(variance + node.attrs["eps"])
    return (normed.reshape(x.shape) * w["weight"] + w["bias"]).astype(x.dtype)


def _max_pool(trace: Trace, node: Node, w: Weights, x: Array) -> Array:
    size, stride = node.attrs["kernel"], node.attrs["stride"]
    pads = ((0, 0), *node.attrs["pads"], (0, 0))
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, size, size, 1), (1, stride, stride, 1), pads)


def _mean(x: Array, keepdims: bool = False) -> Array:
    """The mean over the pixels. The sum is in fp32: the largest number of fp16 is 65,504."""
    return x.mean((1, 2), dtype=jnp.float32, keepdims=keepdims).astype(x.dtype)


def _normalise(trace: Trace, node: Node, w: Weights, x: Array) -> Array:
    scale, shift = (jnp.array(node.attrs[key], trace.compute) for key in ("scale", "shift"))
    return x.astype(trace.compute) * scale + shift


def _pad_channels(trace: Trace, node: Node, w: Weights, x: Array) -> Array:
    return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, node.shape[1] - x.shape[3])))


def _blend(trace: Trace, node: Node, w: Weights, x: Array, share: Array) -> Array:
    return share * x + (1 - share) * jnp.roll(x, node.attrs["shift"], axis=0) if trace.training else x


def _plain(function: Op) -> Op:
    """An operation without weights and attributes."""
    return lambda trace, node, w, *args: function(*args)


OPS: Dict[str, Op] = {
    "dense": _dense,
    "rnn": _layer(_rnn_step, 1),
    "lstm": _layer(_lstm_step, 2),
    "gru": _layer(_gru_step, 1),
    "rnn_cell": _cell(_rnn_step),
    "lstm_cell": _cell(_lstm_step),
    "gru_cell": _cell(_gru_step),
    "scan": _scan,
    "random": _random,
    "fill": lambda trace, node, w: jnp.full(node.shape, node.attrs["value"], trace.compute),
    "last": _plain(lambda x: x[-1]),
    "add": _plain(jnp.add),
    "sub": _plain(jnp.subtract),
    "mul": _plain(jnp.multiply),
    "gate": _plain(jnp.multiply),
    "log": _plain(jnp.log),
    "where_less": _plain(lambda a, b, then, other: jnp.where(a < b, then, other)),
    "affine": lambda trace, node, w, x: x * node.attrs["scale"] + node.attrs["shift"],
    "relu": _plain(jax.nn.relu),
    "relu6": _plain(jax.nn.relu6),
    "sigmoid": _plain(jax.nn.sigmoid),
    "silu": _plain(jax.nn.silu),
    "hardsigmoid": _plain(jax.nn.hard_sigmoid),
    "hardswish": _plain(jax.nn.hard_swish),
    "conv": _conv,
    "batch_norm": _batch_norm,
    "group_norm": _group_norm,
    "max_pool": _max_pool,
    "global_mean": _plain(_mean),
    "pooled": _plain(lambda x: _mean(x, keepdims=True)),
    "normalise": _normalise,
    "pad_channels": _pad_channels,
    "dropout": _dropout,
    "blend": _blend,
}


# ---- losses, of outputs in fp32 --------------------------------------------------------------------------------


def _cross_entropy(node: Node, output: Array, labels: Array, *shares: Array) -> Array:
    """The mean cross entropy with smoothed labels. With `shares`, (batch, targets), the labels are mixed."""
    on, off = node.attrs["on"], node.attrs["off"]
    logs = jax.nn.log_softmax(output)
    rolled = jnp.stack([jnp.roll(labels, roll) for roll in node.attrs["rolls"]], axis=1)
    columns = jnp.take_along_axis(logs, rolled, axis=1)
    labelled = (columns * shares[0] if shares else columns[:, :1]).sum(1)
    return -((on - off) * labelled + off * logs.sum(1)).mean()


def _flat_softmax_nll(node: Node, output: Array, labels: Array) -> Array:
    logs = jax.nn.log_softmax(output, axis=(1, 2))
    return -jnp.take_along_axis(logs, labels[:, :, None], axis=2).sum()


def _flat_softmax_squared_error(node: Node, output: Array, labels: Array) -> Array:
    return ((jax.nn.softmax(output, axis=(1, 2, 3)) - labels) ** 2).sum()


# Functions of the node, the output in fp32, and the labels.
LOSSES: Dict[str, Op] = {
    "mean": lambda node, output: output.mean(),
    "cross_entropy": _cross_entropy,
    "softmax_cross_entropy": lambda node, output, labels: -(labels * jax.nn.log_softmax(output)).sum(-1).mean(),
    "squared_error": lambda node, output, labels: ((output - labels) ** 2).mean(),
    "flat_softmax_nll": _flat_softmax_nll,
    "flat_softmax_squared_error": _flat_softmax_squared_error,
}

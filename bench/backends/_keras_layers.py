"""Graph to Keras layers and TensorFlow operations, called one after the other inside a tf.function.

Sequences stay (batch, time, features), which is all that Keras takes; images are (batch, height,
width, channels), the only layout in which TensorFlow convolves on a CPU.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Tuple

import numpy as np
import tensorflow as tf

from bench.graph import Graph, Node

Held = Tuple[Any, Callable[[Any], Any], Callable[[Any], Any]]
POLICIES = {
    "fp32": "float32",
    "fp16": "float16",
    "bf16": "bfloat16",
    "fp16m": "mixed_float16",
    "bf16m": "mixed_bfloat16",
}


def to_native(array: Any) -> Any:
    return array.transpose(0, 2, 3, 1) if array.ndim == 4 else array


def canonical(array: Any) -> Any:
    array = np.asarray(array, np.float64)
    return array.transpose(0, 3, 1, 2) if array.ndim == 4 else array


def regate(array: Any, kind: str) -> Any:
    """Gates of a (gates * hidden, ...) weight between torch's order and Keras's; its own inverse.

    Keras LSTM has i f c o, which is ours; Keras GRU z r h, where ours is r z n.
    """
    if kind != "gru":
        return array
    r, z, n = np.split(array, 3)
    return np.concatenate([z, r, n])


class Lowered:
    """The layers of a graph, and which variable holds which weight.

    `held` maps a weight's name to (variable, from the graph's layout, to the graph's layout).
    """

    def __init__(self, graph: Graph, weights: Dict[str, Any], precision: str) -> None:
        self.graph = graph
        self.policy = POLICIES[precision]
        self.compute = {"float32": tf.float32, "mixed_float16": tf.float16, "mixed_bfloat16": tf.bfloat16}.get(
            self.policy, tf.as_dtype(self.policy.replace("mixed_", ""))
        )
        self.held: Dict[str, Held] = {}
        self.calls: Dict[int, Callable[..., Any]] = {}
        self._make(graph, self.calls)
        self.load(weights)

    def load(self, weights: Dict[str, Any]) -> None:
        for name, (variable, native, _) in self.held.items():
            variable.assign(tf.cast(native(weights[name]), variable.dtype))

    def arrays(self) -> Dict[str, Any]:
        return {n: back(tf.cast(v, tf.float64).numpy()) for n, (v, _, back) in self.held.items()}

    def output(self, inputs: Dict[str, Any]) -> Any:
        values: Dict[int, Any] = {}
        for index, node in enumerate(self.graph.nodes[: self.graph.output.node + 1]):
            args = [values[t.node] for t in node.inputs]
            values[index] = inputs[f"input{index}"] if node.op == "input" else self.calls[index](*args)
        return values[self.graph.output.node]

    def _make(self, graph: Graph, calls: Dict[int, Callable[..., Any]]) -> None:
        for index, node in enumerate(graph.nodes):
            if node.op in LAYERS:
                calls[index] = LAYERS[node.op](self, node)
            elif node.op in FUNCTIONS:
                calls[index] = FUNCTIONS[node.op](node)
            elif node.op == "fill":
                calls[index] = _constant(tf.fill(node.shape, tf.cast(node.attrs["value"], self.compute)))
            elif node.op == "random":
                draw = tf.random.normal if node.attrs["values"] == "normal" else tf.random.uniform
                calls[index] = _bound(draw, node.shape, self.compute)
            elif node.op == "scan":
                calls[index] = self._scan(node)

    def _scan(self, node: Node) -> Callable[..., Any]:
        body, count, steps = node.attrs["body"], node.attrs["states"], node.attrs["steps"]
        calls: Dict[int, Callable[..., Any]] = {}
        self._make(body, calls)

        def step(args: List[Any]) -> List[Any]:
            values: Dict[int, Any] = dict(enumerate(args))
            for index, inner in enumerate(body.nodes[len(args) :], start=len(args)):
                read = [values[t.node][t.output] if _many(values[t.node]) else values[t.node] for t in inner.inputs]
                values[index] = calls[index](*read)
            found = [(values[end.node], end.output) for end in node.attrs["ends"]]
            return [value[output] if _many(value) else value for value, output in found]

        def scan(*args: Any) -> Any:
            def cut(sequence: Any) -> Any:
                array = tf.TensorArray(sequence.dtype, steps, element_shape=sequence.shape[:1] + sequence.shape[2:])
                return array.unstack(tf.transpose(sequence, [1, 0, 2]))

            slices = [cut(sequence) for sequence in args[count:]]
            trace = tf.TensorArray(args[0].dtype, steps, element_shape=args[0].shape)

            def advance(t: Any, trace: Any, *states: Any) -> Any:
                new = step([*states, *(array.read(t) for array in slices)])
                return (t + 1, trace.write(t, new[0]), *new)

            first = (tf.constant(0), trace, *args[:count])
            ended = tf.while_loop(lambda t, *_: t < steps, advance, first, maximum_iterations=steps)
            return tf.transpose(ended[1].stack(), [1, 0, 2])

        return scan


def _many(value: Any) -> bool:
    return isinstance(value, list)


def _constant(value: Any) -> Callable[[], Any]:
    return lambda: value


def _bound(draw: Callable[..., Any], shape: Any, dtype: Any) -> Callable[[], Any]:
    return lambda: draw(shape, dtype=dtype)


def _same(array: Any) -> Any:
    return array


def _transposed(array: Any) -> Any:
    return array.T


def _dense(to: Lowered, node: Node) -> Callable[..., Any]:
    layer = tf.keras.layers.Dense(node.shape[-1], use_bias=len(node.weights) > 1, dtype=to.policy)
    layer.build(node.inputs[0].shape)
    to.held[node.weights[0].name] = (layer.kernel, _transposed, _transposed)
    if len(node.weights) > 1:
        to.held[node.weights[1].name] = (layer.bias, _same, _same)
    return layer  # type: ignore[no-any-return]


def _conv(to: Lowered, node: Node) -> Callable[..., Any]:
    filters, groups, stride = node.shape[1], node.attrs["groups"], node.attrs["stride"]
    channels, size = node.inputs[0].shape[1], node.weights[0].shape[2]
    depthwise = groups == channels
    shape = (size, size, channels, filters // groups) if depthwise else (size, size, channels // groups, filters)
    held_as = tf.float32 if to.policy.startswith("mixed") else to.compute
    kernel = tf.Variable(tf.zeros(shape, held_as))

    def native(array: Any) -> Any:
        return array.transpose(2, 3, 1, 0).reshape(shape)

    def back(array: Any) -> Any:
        return array.reshape(size, size, channels // groups, filters).transpose(3, 2, 0, 1)

    to.held[node.weights[0].name] = (kernel, native, back)
    bias = None
    if len(node.weights) > 1:
        bias = tf.Variable(tf.zeros((filters,), held_as))
        to.held[node.weights[1].name] = (bias, _same, _same)
    pads = "SAME" if node.attrs["same"] else [[0, 0], *map(list, node.attrs["pads"]), [0, 0]]

    def convolve(x: Any) -> Any:
        weight = tf.cast(kernel, to.compute)
        if depthwise:
            x = x if pads == "SAME" else tf.pad(x, pads)
            padding = "SAME" if pads == "SAME" else "VALID"
            out = tf.nn.depthwise_conv2d(x, weight, [1, stride, stride, 1], padding)
        elif groups == 1:
            out = tf.nn.conv2d(x, weight, stride, pads)
        else:
            # TensorFlow's CPU kernel for grouped convolution has no gradient, and is far slower
            # than one convolution a group.
            parts = zip(tf.split(x, groups, axis=3), tf.split(weight, groups, axis=3))
            out = tf.concat([tf.nn.conv2d(part, w, stride, pads) for part, w in parts], axis=3)
        return out if bias is None else tf.nn.bias_add(out, tf.cast(bias, to.compute))

    return convolve


def _hold_gates(to: Lowered, node: Node, layer: Any, kind: str) -> None:
    def native(array: Any) -> Any:
        return regate(array, kind).T

    def back(array: Any) -> Any:
        return regate(array.T, kind)

    to.held[node.weights[0].name] = (layer.kernel, native, back)
    to.held[node.weights[1].name] = (layer.recurrent_kernel, native, back)
    if kind != "gru" and len(node.weights) > 2:
        to.held[node.weights[2].name] = (layer.bias, native, back)


def _cell_layer(kind: str, hidden: int, bias: bool, policy: str, whole: bool) -> Any:
    # Zeros: the values come later, and the usual orthogonal start has no 16-bit kernel.
    options: Dict[str, Any] = {"use_bias": bias, "dtype": policy, "recurrent_initializer": "zeros"}
    layers = tf.keras.layers
    if kind == "gru":
        options["reset_after"] = True
    if kind == "lstm":
        options["unit_forget_bias"] = False
    if whole:
        return {"rnn": layers.SimpleRNN, "lstm": layers.LSTM, "gru": layers.GRU}[kind](
            hidden, return_sequences=True, **options
        )
    return {"rnn": layers.SimpleRNNCell, "lstm": layers.LSTMCell, "gru": layers.GRUCell}[kind](hidden, **options)


class _GRUBias:
    """Keras keeps both biases of a GRU in one variable, (2, 3 * hidden); this is one row of it."""

    def __init__(self, variable: Any, row: int) -> None:
        self.variable, self.row = variable, row
        self.dtype = variable.dtype

    def assign(self, value: Any) -> None:
        rows = [tf.cast(tf.convert_to_tensor(self.variable)[i], self.dtype) for i in range(2)]
        rows[self.row] = tf.cast(value, self.dtype)
        self.variable.assign(tf.stack(rows))

    def __tf_tensor__(self, dtype: Any = None, name: Any = None) -> Any:
        return tf.convert_to_tensor(self.variable)[self.row]


def _recurrent(kind: str, whole: bool) -> Callable[[Lowered, Node], Callable[..., Any]]:
    def make(to: Lowered, node: Node) -> Callable[..., Any]:
        layer = _cell_layer(kind, node.shape[-1], len(node.weights) > 2, to.policy, whole)
        layer.build(node.inputs[0].shape)
        cell = layer.cell if whole else layer
        _hold_gates(to, node, cell, kind)
        if kind == "gru" and len(node.weights) > 2:
            for row in (0, 1):
                to.held[node.weights[2 + row].name] = (
                    _GRUBias(cell.bias, row),
                    lambda array: regate(array, "gru"),
                    lambda array: regate(array, "gru"),
                )
        if whole:
            return layer  # type: ignore[no-any-return]
        return lambda x, *states: list(layer(x, list(states))[1])

    return make


LAYERS: Dict[str, Callable[[Lowered, Node], Callable[..., Any]]] = {
    "dense": _dense,
    "conv": _conv,
    **{kind: _recurrent(kind, True) for kind in ("rnn", "lstm", "gru")},
    **{f"{kind}_cell": _recurrent(kind, False) for kind in ("rnn", "lstm", "gru")},
}
FUNCTIONS: Dict[str, Callable[[Node], Callable[..., Any]]] = {
    "last": lambda node: lambda x: x[:, -1],
    "add": lambda node: tf.add,
    "sub": lambda node: tf.subtract,
    "mul": lambda node: tf.multiply,
    "log": lambda node: tf.math.log,
    "relu": lambda node: tf.nn.relu,
    "affine": lambda node: lambda x: node.attrs["scale"] * x + node.attrs["shift"],
    "where_less": lambda node: lambda a, b, then, other: tf.where(a < b, then, other),
}


def loss(node: Node, output: Any, labels: List[Any]) -> Any:
    """The loss of a batch, in fp32."""
    output = tf.cast(output, tf.float32)
    if node.op == "mean":
        return tf.reduce_mean(output)
    if node.op == "softmax_cross_entropy":
        return tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(labels[0], output))
    if node.op == "squared_error":
        return tf.reduce_mean(tf.math.squared_difference(output, labels[0]))
    if node.op == "flat_softmax_nll":
        batch, steps, features = node.inputs[0].shape
        flat = tf.nn.log_softmax(tf.reshape(tf.transpose(output, [1, 0, 2]), [steps, batch * features]))
        turned = tf.transpose(tf.reshape(flat, [steps, batch, features]), [1, 0, 2])
        return -tf.reduce_sum(tf.gather(turned, labels[0], axis=2, batch_dims=2))
    batch = node.inputs[0].shape[0]
    flat = tf.nn.softmax(tf.reshape(output, [batch, -1]))
    return tf.reduce_sum(tf.math.squared_difference(flat, tf.reshape(labels[0], [batch, -1])))

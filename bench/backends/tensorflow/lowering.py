"""Graph to Keras layers and TensorFlow operations, called one after the other inside a tf.function.

Sequences stay (batch, time, features), which is all that Keras takes; images are (batch, height,
width, channels), the only layout in which TensorFlow convolves on a CPU.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Mapping, Tuple

import numpy as np
import tensorflow as tf

from bench.backends.tensorflow import images, sequences
from bench.graph import Graph, Node, Weight

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


def native_input(array: Any, compute: Any) -> Any:
    """An input on the host, in the type and the layout of the device: a view where it has them already. `compute` is
    the type of its real numbers; integers stay."""
    if array.dtype.kind in "iu":
        compute = tf.uint8 if array.dtype == "uint8" else tf.int32
    return np.ascontiguousarray(to_native(array), compute.as_numpy_dtype)


def canonical(array: Any) -> Any:
    array = np.asarray(array, np.float64)
    return array.transpose(0, 3, 1, 2) if array.ndim == 4 else array


class Lowered:
    """The layers of a graph, and which variable holds which weight.

    held      a weight's name to (variable, from the graph's layout, to the graph's layout)
    training  what is being traced: norms use the batch's statistics, and dropout drops
    frozen    networks read their weights as constants: `load` shows in what is traced afterwards
    moved     variables and their new values, gathered while a training pass is traced
    grouped   whether the device's convolution of groups has a gradient of its own
    """

    grouped = False

    def __init__(self, graph: Graph, weights: Dict[str, Any], precision: str, frozen: bool = False) -> None:
        self.graph = graph
        self.policy = POLICIES[precision]
        self.compute = {"float32": tf.float32, "mixed_float16": tf.float16, "mixed_bfloat16": tf.bfloat16}.get(
            self.policy, tf.as_dtype(self.policy.replace("mixed_", ""))
        )
        self.training, self.frozen = False, frozen
        self.held: Dict[str, Held] = {}
        self.moved: List[Tuple[Any, Any]] = []
        self.calls: Dict[int, Callable[..., Any]] = {}
        self._seed: Any = None
        self._seeds = 0
        self._make(graph, self.calls)
        self.load(weights)

    def load(self, weights: Mapping[str, Any]) -> None:
        for name, (variable, native, _) in self.held.items():
            variable.assign(np.asarray(native(weights[name]), tf.as_dtype(variable.dtype).as_numpy_dtype))

    def arrays(self) -> Dict[str, Any]:
        return {n: back(np.asarray(v.numpy(), np.float64)) for n, (v, _, back) in self.held.items()}

    def variables(self) -> List[Tuple[Any, Weight]]:
        """The variables behind the weights, each once, as TensorFlow's own, and a weight that each holds."""
        found: Dict[int, Tuple[Any, Weight]] = {}
        for weight in self.graph.weights:
            variable = self.held[weight.name][0]
            own: Any = getattr(variable, "variable", variable)  # a row of one
            own = own if callable(getattr(own, "value", None)) else own.value  # Keras 3 wraps it
            found[id(own)] = own, weight
        return list(found.values())

    def variable(self, weight: Weight, shape: Any, native: Any = None, back: Any = None) -> Any:
        """A variable for a weight, of the type in which the precision holds weights."""
        kind = tf.float32 if self.policy.startswith("mixed") else self.compute
        made = tf.Variable(tf.zeros(shape, kind), trainable=weight.trained)
        self.held[weight.name] = (made, native or _same, back or _same)
        return made

    def value(self, variable: Any, kind: Any = None) -> Any:
        """What a variable holds, in the type of the arithmetic or `kind`."""
        if self.frozen:
            with tf.init_scope():
                variable = tf.cast(variable, kind or self.compute).numpy()
            return tf.constant(variable)
        return tf.cast(variable, kind or self.compute)

    def moves(self, out: Any, pairs: List[Tuple[Any, Any]]) -> Any:
        """Note the new values of variables, which come with a result; return that result."""
        self.moved += pairs
        return out

    def makers(self) -> Dict[str, Callable[[Any, Node], Callable[..., Any]]]:
        return LAYERS

    def seed(self) -> Any:
        """Another seed at every place and in every step; a block that runs again gets what it got."""
        self._seeds += 1
        return self._seed + self._seeds

    def output(self, inputs: Dict[str, Any], training: bool = False) -> Any:
        """Trace the graph up to its output; a training pass moves the running statistics as well."""
        nodes = dict(enumerate(self.graph.nodes[: self.graph.output.node + 1]))
        values = {index: inputs[f"input{index}"] for index, node in nodes.items() if node.op == "input"}
        self.training, self.moved, self._seeds = training, [], 0
        if any(node.op == "dropout" for node in nodes.values()):
            self._seed = tf.random.uniform([2], maxval=2**30, dtype=tf.int32)
        for part in self.graph.recompute_segments(nodes):
            if len(part) > 1:
                self._recompute(part, values)
            else:
                self._walk(part, values)
        for variable, new in self.moved:
            variable.assign(tf.cast(new, variable.dtype))
        return values[self.graph.output.node]

    def _walk(self, nodes: Dict[int, Node], values: Dict[int, Any]) -> None:
        for index, node in nodes.items():
            if index not in values:
                values[index] = self.calls[index](*[values[t.node] for t in node.inputs])

    def _recompute(self, part: Dict[int, Node], values: Dict[int, Any]) -> None:
        """Run a block that keeps nothing but what it reads, and runs again in the backward pass.

        New statistics are results of the block: assigned within it, they would move twice.
        """
        read = self.graph.inputs_of(part)
        wanted = [tensor.node for tensor in self.graph.results_of(part)]
        before, seeds = self.moved, self._seeds
        variables: List[Any] = []

        def block(*args: Any) -> List[Any]:
            inner = dict(zip(read, args))
            self.moved, self._seeds = [], seeds
            self._walk(part, inner)
            variables[:] = [variable for variable, _ in self.moved]
            return [inner[index] for index in wanted] + [new for _, new in self.moved]

        results = tf.recompute_grad(block)(*[values[index] for index in read])
        values.update(zip(wanted, results))
        self.moved = before + list(zip(variables, results[len(wanted) :]))

    def _make(self, graph: Graph, calls: Dict[int, Callable[..., Any]]) -> None:
        for index, node in enumerate(graph.nodes):
            if node.op in self.makers():
                calls[index] = self.makers()[node.op](self, node)
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


LAYERS: Dict[str, Callable[[Lowered, Node], Callable[..., Any]]] = {
    "dense": _dense,
    **images.LAYERS,
    **sequences.LAYERS,
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
    if node.op == "cross_entropy":
        return images.cross_entropy(node.attrs, output, *labels)
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

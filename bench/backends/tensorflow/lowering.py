"""A graph as Keras layers and TensorFlow operations, called in order inside a tf.function.

Sequences are (batch, time, features), the only layout that Keras takes. Images are (batch, height, width,
channels), the only layout in which TensorFlow convolves on a CPU.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Mapping, Tuple

import numpy as np
import tensorflow as tf

from bench.backends.tensorflow import images, sequences
from bench.graph import Graph, Node, Tensor, Weight, naming

# A variable, and the conversions of its value from and to the layout of the graph.
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
    """An input in the type and layout of the device, still on the host; a view if it has them already.

    compute   the type of real numbers; integers stay integers
    """
    if array.dtype.kind in "iu":
        compute = tf.uint8 if array.dtype == "uint8" else tf.int32
    return np.ascontiguousarray(to_native(array), compute.as_numpy_dtype)


def canonical(array: Any) -> Any:
    """An output in float64 and in the layout of the graph."""
    array = np.asarray(array, np.float64)
    return array.transpose(0, 3, 1, 2) if array.ndim == 4 else array


class Lowered:
    """The layers of a graph, and the variables of its weights.

    held      for each name of a weight: the variable, and the conversions from and to the graph's layout
    training  whether a training pass is traced: norms use the batch's statistics, and dropout is active
    frozen    weights are constants in the traced functions: after `load`, trace again
    moved     running statistics and their new values, collected while a training pass is traced
    grouped   whether the device's kernel for grouped convolution has a gradient
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
        """Each tf.Variable once, with one of the weights that it holds."""
        variables: Dict[int, Tuple[Any, Weight]] = {}
        for weight in self.graph.weights:
            holder = self.held[weight.name][0]
            variable: Any = getattr(holder, "variable", holder)  # GRUBias is a row of a variable
            variable = variable if callable(getattr(variable, "value", None)) else variable.value  # Keras 3 wraps it
            variables[id(variable)] = variable, weight
        return list(variables.values())

    def variable(self, weight: Weight, shape: Any, native: Any = None, back: Any = None) -> Any:
        """A new variable for a weight, in the type of weights of the precision."""
        kind = tf.float32 if self.policy.startswith("mixed") else self.compute
        variable = tf.Variable(tf.zeros(shape, kind), trainable=weight.trained)
        self.held[weight.name] = (variable, native or _same, back or _same)
        return variable

    def value(self, variable: Any, kind: Any = None) -> Any:
        """The value of a variable, cast to `kind` or to the type of the arithmetic."""
        if self.frozen:
            with tf.init_scope():
                variable = tf.cast(variable, kind or self.compute).numpy()
            return tf.constant(variable)
        return tf.cast(variable, kind or self.compute)

    def moves(self, out: Any, pairs: List[Tuple[Any, Any]]) -> Any:
        """Collect new values of variables, which are assigned after the pass; return `out`."""
        self.moved += pairs
        return out

    def makers(self) -> Dict[str, Callable[[Any, Node], Callable[..., Any]]]:
        """The functions that make the layer of a node, by primitive."""
        return LAYERS

    def seed(self) -> Any:
        """A different seed for each call and each step. A recomputed block gets the same seeds again."""
        self._seeds += 1
        return self._seed + self._seeds

    def output(self, inputs: Dict[str, Any], training: bool = False) -> Any:
        """Trace the graph up to its output. A training pass also updates the running statistics."""
        nodes = dict(enumerate(self.graph.nodes[: self.graph.output.node + 1]))
        values = {index: inputs[f"input{index}"] for index, node in nodes.items() if node.op == "input"}
        self.training, self.moved, self._seeds = training, [], 0
        if any(node.op == "dropout" for node in nodes.values()):
            self._seed = tf.random.uniform([2], maxval=2**30, dtype=tf.int32)
        for segment in self.graph.recompute_segments(nodes):
            if len(segment) > 1:
                self._recompute(segment, values)
            else:
                self._walk(segment, values)
        for variable, new in self.moved:
            variable.assign(tf.cast(new, variable.dtype))
        return values[self.graph.output.node]

    def _walk(self, nodes: Dict[int, Node], values: Dict[int, Any]) -> None:
        for index, node in nodes.items():
            if index not in values:
                with tf.name_scope(naming.scope(index, node)):
                    values[index] = self.calls[index](*[values[t.node] for t in node.inputs])

    def _recompute(self, segment: Dict[int, Node], values: Dict[int, Any]) -> None:
        """Run a block that saves only its inputs, and is computed again in the backward pass.

        New running statistics are returned by the block: if it assigned them, they would be updated twice.
        """
        inputs = self.graph.inputs_of(segment)
        results = [tensor.node for tensor in self.graph.results_of(segment)]
        moved_before, seeds = self.moved, self._seeds
        variables: List[Any] = []

        def block(*args: Any) -> List[Any]:
            block_values = dict(zip(inputs, args))
            self.moved, self._seeds = [], seeds
            self._walk(segment, block_values)
            variables[:] = [variable for variable, _ in self.moved]
            return [block_values[index] for index in results] + [new for _, new in self.moved]

        returned = tf.recompute_grad(block)(*[values[index] for index in inputs])
        values.update(zip(results, returned))
        self.moved = moved_before + list(zip(variables, returned[len(results) :]))

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
                calls[index] = _source(draw, node.shape, self.compute)
            elif node.op == "scan":
                calls[index] = self._scan(node)

    def _scan(self, node: Node) -> Callable[..., Any]:
        body, count, steps = node.attrs["body"], node.attrs["states"], node.attrs["steps"]
        calls: Dict[int, Callable[..., Any]] = {}
        self._make(body, calls)

        def step(args: List[Any]) -> List[Any]:
            values: Dict[int, Any] = dict(enumerate(args))
            for index, operation in enumerate(body.nodes[len(args) :], start=len(args)):
                values[index] = calls[index](*[_output(values, tensor) for tensor in operation.inputs])
            return [_output(values, end) for end in node.attrs["ends"]]

        def scan(*args: Any) -> Any:
            def by_step(sequence: Any) -> Any:
                array = tf.TensorArray(sequence.dtype, steps, element_shape=sequence.shape[:1] + sequence.shape[2:])
                return array.unstack(tf.transpose(sequence, [1, 0, 2]))

            slices = [by_step(sequence) for sequence in args[count:]]
            trace = tf.TensorArray(args[0].dtype, steps, element_shape=args[0].shape)

            def advance(t: Any, trace: Any, *states: Any) -> Any:
                new = step([*states, *(array.read(t) for array in slices)])
                return (t + 1, trace.write(t, new[0]), *new)

            first = (tf.constant(0), trace, *args[:count])
            ended = tf.while_loop(lambda t, *_: t < steps, advance, first, maximum_iterations=steps)
            return tf.transpose(ended[1].stack(), [1, 0, 2])

        return scan


def _output(values: Mapping[int, Any], tensor: Tensor) -> Any:
    """The value of a tensor. A node with several outputs has a list of values."""
    value = values[tensor.node]
    return value[tensor.output] if isinstance(value, list) else value


def _constant(value: Any) -> Callable[[], Any]:
    return lambda: value


def _source(draw: Callable[..., Any], shape: Any, dtype: Any) -> Callable[[], Any]:
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
    "where_less": lambda node: lambda a, b, then, otherwise: tf.where(a < b, then, otherwise),
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
        logs = tf.transpose(tf.reshape(flat, [steps, batch, features]), [1, 0, 2])
        return -tf.reduce_sum(tf.gather(logs, labels[0], axis=2, batch_dims=2))
    batch = node.inputs[0].shape[0]
    flat = tf.nn.softmax(tf.reshape(output, [batch, -1]))
    return tf.reduce_sum(tf.math.squared_difference(flat, tf.reshape(labels[0], [batch, -1])))

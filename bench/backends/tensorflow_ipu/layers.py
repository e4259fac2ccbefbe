"""The lowering of `tensorflow/lowering.py` for IPUs, cut into the stages of a pipeline.

Differences from other devices: LSTM, GRU and group norm are PopLibs's layers. Grouped convolutions have a gradient.
Running statistics are updated by the optimiser, together with the weights, because a pipeline allows no other
assignment. For that, the norm gives each a gradient of its own, which is its old value minus its new one.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Mapping, Sequence, Tuple

import tensorflow as tf

from bench.backends import _ipu
from bench.backends.tensorflow import lowering, sequences
from bench.backends.tensorflow_ipu.config import poplib_options
from bench.cases.case import Case, Settings
from bench.cases.ipu_rules import stages
from bench.graph import Graph, Node

Stage = Callable[..., List[Any]]


class Network(lowering.Lowered):
    """The layers of a graph, in stages.

    running   the variables of running statistics, each with its momentum: the share of a new value
    nodes     of each stage, the graph's nodes by index
    read      of each stage, the indices of the nodes whose values it takes
    """

    grouped = True

    def __init__(self, graph: Graph, weights: Dict[str, Any], case: Case, settings: Settings) -> None:
        self.settings, self.case = settings, case
        self.in_training = case.mode == "training"
        super().__init__(graph, weights, case.precision)
        self.running = [
            (self.held[weight.name][0], float(node.attrs["momentum"]))
            for node in graph.nodes
            for weight in node.weights
            if not weight.trained and self.in_training
        ]
        self.loss_node = graph.nodes[graph.loss.node] if graph.loss.node >= 0 else None
        self.labels = [tensor.node for tensor in self.loss_node.inputs[1:]] if self.loss_node else []
        self.nodes = self._by_stage(_ipu.stage_of_block(graph, case, settings) if graph.blocks else {})
        self.read = [self._read(stage) for stage in range(len(self.nodes))]

    def makers(self) -> Dict[str, Callable[[Any, Node], Callable[..., Any]]]:
        return {**super().makers(), "lstm": _popnn("lstm"), "gru": _popnn("gru"), "group_norm": _group_norm}

    def moves(self, out: Any, pairs: List[Tuple[Any, Any]]) -> Any:
        for variable, new in pairs:
            held = tf.convert_to_tensor(variable)
            out = _with_gradient(out, held, tf.stop_gradient(held - tf.cast(new, held.dtype)))
        return out

    def stage(self, number: int) -> Stage:
        """A function of the values that a stage takes: the inputs of the batch, or what the previous stage returns.
        The last stage returns the loss, if there is one, and the output."""
        nodes, read, last = self.nodes[number], self.read[number], number == len(self.nodes) - 1

        def run(*args: Any) -> List[Any]:
            values = dict(zip(read, args))
            self.training, self._seeds = self.in_training, 0
            if any(node.op == "dropout" for node in nodes.values()):
                self._seed = tf.random.uniform([2], maxval=2**30, dtype=tf.int32)
            self._walk(nodes, values)
            if not last:
                return [values[index] for index in self.read[number + 1]]
            output = values[self.graph.output.node]
            if self.loss_node is None:
                return [output]
            return [lowering.loss(self.loss_node, output, [values[index] for index in self.labels]), output]

        return run

    def predicted(self, names: Sequence[str]) -> Callable[..., Any]:
        """A function of the named inputs that returns the logits of inference. The network must have one stage."""

        def logits(*args: Any) -> Any:
            values = dict(zip((int(name[len("input") :]) for name in names), args))
            in_training, self.in_training, self.training = self.in_training, False, False
            try:
                self._walk(self.nodes[0], values)
            finally:
                self.in_training = in_training
            return values[self.graph.output.node]

        return logits

    def _walk(self, nodes: Dict[int, Node], values: Dict[int, Any]) -> None:
        if not self.in_training or self.settings.recipe.recompute != "manual":
            super()._walk(nodes, values)
            return
        from tensorflow.python.ipu.ops import pipelining_ops

        # Everything without a checkpoint is recomputed. Blocks without recomputation have one at every value, others at
        # the values that other blocks read.
        for index, node in nodes.items():
            super()._walk({index: node}, values)
            readers = {reader.block for reader in self.graph.nodes for t in reader.inputs if t.node == index}
            if not self.settings.recipe.recomputes(node.block) or readers - {node.block}:
                values[index] = pipelining_ops.recomputation_checkpoint(values[index])

    def _by_stage(self, of_block: Mapping[str, int]) -> List[Dict[int, Node]]:
        """The nodes of each stage, without inputs. A node outside of blocks is in the earliest possible stage."""
        stage_of: Dict[int, int] = {}
        by_stage: List[Dict[int, Node]] = [{} for _ in range(stages(self.settings))]
        for index, node in enumerate(self.graph.nodes[: self.graph.output.node + 1]):
            earliest = max((stage_of[tensor.node] for tensor in node.inputs), default=0)
            stage_of[index] = max(earliest, of_block.get(node.block, 0))
            if node.op != "input":
                by_stage[stage_of[index]][index] = node
        return by_stage

    def _read(self, stage: int) -> List[int]:
        """The nodes whose values a stage takes: all inputs in the first stage, and in a later one the values of earlier
        stages that it or a later stage reads."""
        inputs = [index for index, node in enumerate(self.graph.nodes) if node.op == "input"]
        if stage == 0:
            return inputs
        later = [node for nodes in self.nodes[stage:] for node in nodes.values()]
        wanted = {tensor.node for node in later for tensor in node.inputs} | set(self.labels)
        wanted.add(self.graph.output.node)
        computed = {index for nodes in self.nodes[stage:] for index in nodes}
        return sorted(wanted - computed)


@tf.custom_gradient  # type: ignore[untyped-decorator]
def _with_gradient(out: Any, held: Any, back: Any) -> Any:
    """`out`, with `back` as the gradient of `held`, whatever the loss."""

    def gradient(up: Any) -> Any:
        return up, back, tf.zeros_like(back)

    return tf.identity(out), gradient


def _popnn(kind: str) -> Callable[[Any, Node], Callable[..., Any]]:
    """The maker of PopLibs's recurrent layer, which always has a bias."""

    def make(to: Any, node: Node) -> Callable[..., Any]:
        from ipu_tensorflow_addons.keras import layers

        shares = to.settings.poplar.available_memory_proportion
        _, options = poplib_options(to.settings, shares[0] if shares else None)
        half = options.pop("partialsType", "") == "half" and to.compute == tf.float16
        arguments = {
            **{"return_sequences": True, "dtype": to.compute.name, "recurrent_initializer": "zeros"},
            **{"partials_dtype": tf.float16 if half else tf.float32, "options": options, "options_bwd": options},
            **({"unit_forget_bias": False} if kind == "lstm" else {}),
        }
        layer = {"lstm": layers.LSTM, "gru": layers.GRU}[kind](node.shape[-1], **arguments)
        layer.build(node.inputs[0].shape)
        variables, call = _of_layer(to, layer, ("kernel", "recurrent_kernel", "biases"))
        _hold(to, node, kind, variables)
        return call

    return make


def _group_norm(to: Any, node: Node) -> Callable[..., Any]:
    from ipu_tensorflow_addons.keras import layers

    rows, channels, height, width = node.shape
    layer = layers.GroupNormalization(
        groups=node.attrs["groups"],
        channels_axis=-1,
        epsilon=node.attrs["eps"],
        strided_channel_grouping=node.attrs["strided"],
        beta_initializer="zeros",
        gamma_initializer="ones",
        dtype=to.compute.name,
    )
    layer.build((rows, height, width, channels))
    variables, call = _of_layer(to, layer, ("gamma", "beta"))
    for weight, variable in zip(node.weights, variables):
        to.held[weight.name] = (variable, lambda array: array, lambda array: array)
    return call


def _of_layer(to: Any, layer: Any, names: Sequence[str]) -> Tuple[List[Any], Callable[..., Any]]:
    """The variables of a layer of PopLibs that hold its weights of these names, and a function that calls it.

    The layer's weights have the compute type. For wider weights, it gets a cast of separate variables in every call.
    """
    held = {name: getattr(layer, name) for name in names}
    mixed = to.policy.startswith("mixed")
    if mixed:
        held = {name: tf.Variable(tf.zeros(variable.shape)) for name, variable in held.items()}

    def call(x: Any) -> Any:
        if mixed:
            for name, variable in held.items():
                setattr(layer, name, tf.cast(variable, to.compute))
        # The layer takes Keras's own learning phase, which is a number, for training.
        return layer(x, training=bool(to.training))

    return list(held.values()), call


def _hold(to: Any, node: Node, kind: str, variables: Sequence[Any]) -> None:
    def native(array: Any) -> Any:
        return sequences.regate(array, kind).T

    def back(array: Any) -> Any:
        return sequences.regate(array.T, kind)

    def gates(array: Any) -> Any:
        return sequences.regate(array, kind)

    for weight, variable in zip(node.weights, variables):
        to.held[weight.name] = (variable, native, back)
    for row, weight in enumerate(node.weights[2:]):
        bias = sequences.GRUBias(variables[2], row) if kind == "gru" else variables[2]
        to.held[weight.name] = (bias, gates, gates)

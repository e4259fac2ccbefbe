"""A graph as TensorFlow operations on IPUs: that of `tensorflow/lowering.py`, cut into the stages of a pipeline.

What differs from other devices: LSTM and GRU are PopLibs's own layers; convolutions of groups have a gradient; and
running statistics move where the weights do, by the optimiser, because a pipeline forbids any other place. For that
their gradient, through a detour in the norm, is the way back to where they were.
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

    running   the variables of running statistics, each with the share of a new value
    stage     a function a stage: of the batch's inputs, or of what the stage before returns. The last one returns the
              loss, where there is one, and the output
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
        return {**super().makers(), "lstm": _popnn("lstm"), "gru": _popnn("gru")}

    def moves(self, out: Any, pairs: List[Tuple[Any, Any]]) -> Any:
        for variable, new in pairs:
            held = tf.convert_to_tensor(variable)
            out = _with_gradient(out, held, tf.stop_gradient(held - tf.cast(new, held.dtype)))
        return out

    def stage(self, number: int) -> Stage:
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
        """A function of the inputs of these names: the logits as a trained network gives them, in one stage."""

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

        # All is recomputed but what is marked: every value of a block that is kept, and what leaves one that is not.
        for index, node in nodes.items():
            super()._walk({index: node}, values)
            inside = {reader.block for reader in self.graph.nodes for t in reader.inputs if t.node == index}
            if not self.settings.recipe.recomputes(node.block) or inside - {node.block}:
                values[index] = pipelining_ops.recomputation_checkpoint(values[index])

    def _by_stage(self, of_block: Mapping[str, int]) -> List[Dict[int, Node]]:
        """The nodes of each stage, but for the inputs; what belongs to no block runs where it is known first."""
        of: Dict[int, int] = {}
        found: List[Dict[int, Node]] = [{} for _ in range(stages(self.settings))]
        for index, node in enumerate(self.graph.nodes[: self.graph.output.node + 1]):
            earliest = max((of[tensor.node] for tensor in node.inputs), default=0)
            of[index] = max(earliest, of_block.get(node.block, 0))
            if node.op != "input":
                found[of[index]][index] = node
        return found

    def _read(self, stage: int) -> List[int]:
        """What a stage is given: the first all inputs, a later one what it or one behind it reads."""
        inputs = [index for index, node in enumerate(self.graph.nodes) if node.op == "input"]
        if stage == 0:
            return inputs
        later = [node for nodes in self.nodes[stage:] for node in nodes.values()]
        wanted = {tensor.node for node in later for tensor in node.inputs} | set(self.labels)
        wanted.add(self.graph.output.node)
        made = {index for nodes in self.nodes[stage:] for index in nodes}
        return sorted(wanted - made)


@tf.custom_gradient  # type: ignore[untyped-decorator]
def _with_gradient(out: Any, held: Any, back: Any) -> Any:
    """`out`, with `back` as the gradient of `held` whatever the loss is."""

    def gradient(up: Any) -> Any:
        return up, back, tf.zeros_like(back)

    return tf.identity(out), gradient


def _popnn(kind: str) -> Callable[[Any, Node], Callable[..., Any]]:
    """PopLibs's recurrent layer. It has a bias, used or not, and holds its weights in the type of its arithmetic;
    where those are to be wider, they are ours, and the layer gets them cast in every call."""

    def make(to: Any, node: Node) -> Callable[..., Any]:
        from ipu_tensorflow_addons.keras import layers

        shares = to.settings.poplar.available_memory_proportion
        _, options = poplib_options(to.settings, shares[0] if shares else None)
        half = options.pop("partialsType", "") == "half" and to.compute == tf.float16
        told = {
            **{"return_sequences": True, "dtype": to.compute.name, "recurrent_initializer": "zeros"},
            **{"partials_dtype": tf.float16 if half else tf.float32, "options": options, "options_bwd": options},
            **({"unit_forget_bias": False} if kind == "lstm" else {}),
        }
        layer = {"lstm": layers.LSTM, "gru": layers.GRU}[kind](node.shape[-1], **told)
        layer.build(node.inputs[0].shape)
        names = ("kernel", "recurrent_kernel", "biases")
        held = {name: getattr(layer, name) for name in names}
        mixed = to.policy.startswith("mixed")
        if mixed:
            held = {name: tf.Variable(tf.zeros(variable.shape)) for name, variable in held.items()}
        _hold(to, node, kind, [held[name] for name in names])

        def call(x: Any) -> Any:
            if mixed:
                for name, variable in held.items():
                    setattr(layer, name, tf.cast(variable, to.compute))
            return layer(x)

        return call

    return make


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

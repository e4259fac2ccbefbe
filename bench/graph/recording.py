"""A list of operations with their shapes, weights and costs, and what such a list tells.

`bench/graph/primitives.py` has the operations themselves. No numpy here: the harness records graphs to refuse
impossible sizes, and must stay light.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, FrozenSet, List, Mapping, Optional, Sequence, Tuple, Union

from bench.cache import fingerprint
from bench.cases.recipe import PLAIN, Recipe

Shape = Tuple[int, ...]

# What a graph, or the body of a loop, is given.
SOURCES = ("input", "state", "slice")
# How a weight's values are drawn: `bench/graph/draws.py` has the numbers. Running statistics are not trained.
UNTRAINED = ("mean", "variance")


@dataclass(frozen=True)
class Weight:
    """One array of a layer; `kind` and `fan_in` say how its values are drawn."""

    name: str
    shape: Shape
    fan_in: float
    kind: str = "uniform"

    @property
    def trained(self) -> bool:
        return self.kind not in UNTRAINED


@dataclass(frozen=True)
class Tensor:
    """One result of one node: (index of the node, index of the result) and its shape."""

    node: int
    output: int
    shape: Shape


@dataclass(frozen=True)
class Node:
    """One primitive: what it reads, how it is set, what it weighs and costs."""

    op: str
    inputs: Tuple[Tensor, ...]
    shapes: Tuple[Shape, ...]
    attrs: Dict[str, Any] = field(default_factory=dict)
    weights: Tuple[Weight, ...] = ()
    flops: int = 0
    block: str = ""

    @property
    def shape(self) -> Shape:
        return self.shapes[0]


class Recording:
    """The nodes in the order in which they were recorded; `output` and `loss` are two of their results.

    random_as_inputs   draws of random numbers become inputs, so that a result can be checked; without
                       it they are primitives, as they are when timed
    training           a graph that is trained: norms use the batch's statistics, dropout drops
    recipe             how it is trained: images may be blended, labels smoothed
    sample             records a small copy for inference, with the same weights, which are measured there when drawn
    """

    def __init__(
        self,
        batch_size: int,
        random_as_inputs: bool = False,
        training: bool = False,
        recipe: Recipe = PLAIN,
        prefix: str = "",
    ) -> None:
        self.batch_size = batch_size
        self.random_as_inputs = random_as_inputs
        self.training = training
        self.recipe = recipe
        self.prefix = prefix
        self.block = ""
        self.nodes: List[Node] = []
        self.output = Tensor(-1, 0, ())
        self.loss = Tensor(-1, 0, ())
        self.sample: Optional[Callable[[], Any]] = None

    @property
    def inputs(self) -> Dict[str, Node]:
        """The arrays that are fed, by name, in order; `labels` may be among them."""
        return {name: node for name, node in self._named("input")}

    @property
    def label_inputs(self) -> List[str]:
        """The names of the inputs that the loss compares with."""
        compared = self.nodes[self.loss.node].inputs[1:] if self.loss.node >= 0 else ()
        return [f"input{tensor.node}" for tensor in compared]

    @property
    def forward_inputs(self) -> List[str]:
        """The names of the other inputs, which the forward pass reads."""
        labels = self.label_inputs
        return [name for name in self.inputs if name not in labels]

    @property
    def weights(self) -> List[Weight]:
        return [weight for node in self.nodes for weight in node.weights]

    @property
    def parameters(self) -> int:
        """Trained numbers; running statistics are not among them."""
        return sum(math.prod(weight.shape) for weight in self.weights if weight.trained)

    @property
    def blocks(self) -> List[str]:
        """The names of the blocks, in order."""
        return list(dict.fromkeys(node.block for node in self.nodes if node.block))

    @property
    def flops(self) -> int:
        """Of one forward pass over the batch."""
        return sum(node.flops for node in self.nodes)

    @property
    def elements_moved(self) -> int:
        """Inputs, weights and output, each once: what must cross the memory bus at the least."""
        inputs = sum(math.prod(node.shape) for node in self.inputs.values())
        return inputs + sum(math.prod(weight.shape) for weight in self.weights) + math.prod(self.output.shape)

    @property
    def operations(self) -> FrozenSet[str]:
        """The operations that a backend lowers, those within loops too."""
        ops = {node.op for node in self.nodes if node.op not in SOURCES}
        return frozenset(ops).union(*(node.attrs["body"].operations for node in self.nodes if node.op == "scan"))

    @property
    def fingerprint(self) -> str:
        """Twelve hex digits that change when what is computed changes."""
        return fingerprint(self._plain())

    def parts(self, nodes: Mapping[int, Node]) -> List[Dict[int, Node]]:
        """Some nodes one by one, but for the blocks that run again in the backward pass, which stay whole."""
        found: List[Dict[int, Node]] = [{index: node} for index, node in nodes.items() if node.op in SOURCES]
        for index, node in nodes.items():
            if node.op in SOURCES:
                continue
            last = next(iter(found[-1].values())) if found else node
            joined = self.training and self.recipe.recomputes(node.block)
            if joined and last is not node and last.op not in SOURCES and last.block == node.block:
                found[-1][index] = node
            else:
                found.append({index: node})
        return found

    def read_by(self, nodes: Mapping[int, Node]) -> List[int]:
        """The nodes, in order, whose results some nodes read and do not make."""
        return sorted({tensor.node for node in nodes.values() for tensor in node.inputs if tensor.node not in nodes})

    def read_of(self, nodes: Mapping[int, Node]) -> List[Tensor]:
        """The results of some nodes, in order, that others read."""
        later = [tensor for node in self.nodes[max(nodes) + 1 :] for tensor in node.inputs]
        found = {tensor.node: tensor for tensor in [*later, self.output] if tensor.node in nodes}
        return [found[index] for index in sorted(found)]

    def _plain(self) -> List[Any]:
        rows: List[Any] = []
        for node in self.nodes:
            attrs = {k: v for k, v in node.attrs.items() if k not in ("body", "ends")}
            body = None
            if node.op == "scan":
                body = [node.attrs["body"]._plain(), [[end.node, end.output] for end in node.attrs["ends"]]]
            inputs = [[t.node, t.output] for t in node.inputs]
            weights = [list(weight.shape) for weight in node.weights]
            rows.append([node.op, inputs, [list(s) for s in node.shapes], attrs, weights, body])
        return [rows, [self.output.node, self.output.output], self.loss.node]

    def _named(self, op: str) -> List[Tuple[str, Node]]:
        return [(f"{op}{i}", node) for i, node in enumerate(self.nodes) if node.op == op]

    def _weight(self, name: str, shape: Shape, fan_in: float, kind: str = "uniform", label: str = "") -> Weight:
        """A weight of the node about to be recorded; its layer's `label`, or else the node's number, names it."""
        return Weight(f"{self.prefix}{label or f'n{len(self.nodes)}'}.{name}", shape, fan_in, kind)

    def _source(self, op: str, shape: Sequence[int], **attrs: Any) -> Tensor:
        return self._add(op, [], [(self.batch_size, *shape)], attrs, flops=0)

    def _alike(self, op: str, inputs: Sequence[Tensor], shape: Shape) -> Tensor:
        if len({tensor.shape for tensor in inputs}) > 1:
            shapes = ", ".join(str(tensor.shape) for tensor in inputs)
            raise ValueError(f"{op} takes operands of one shape, not {shapes}")
        return self._add(op, inputs, [shape], flops=0)

    def _add(
        self,
        op: str,
        inputs: Sequence[Tensor],
        shapes: Sequence[Shape],
        attrs: Union[Dict[str, Any], None] = None,
        weights: Sequence[Weight] = (),
        *,
        flops: int,
    ) -> Tensor:
        """Record a node and return its first result.

        flops   of one forward pass over the batch; every primitive states them. Elementwise work, pools and norms: 0
        """
        self.nodes.append(Node(op, tuple(inputs), tuple(shapes), attrs or {}, tuple(weights), flops, self.block))
        return Tensor(len(self.nodes) - 1, 0, shapes[0])

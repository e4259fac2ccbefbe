"""A list of operations with their shapes, weights and costs, and what such a list tells.

`bench/graph.py` has the operations themselves. No numpy here: the harness records graphs to refuse
impossible sizes, and must stay light.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, field
from typing import Any, Dict, List, Sequence, Tuple, Union

Shape = Tuple[int, ...]

ELEMENTWISE_OPS = {"add": 1, "sub": 1, "mul": 1, "log": 1, "relu": 1, "affine": 2, "where_less": 1}


@dataclass(frozen=True)
class Weight:
    """One trainable array; its values are drawn uniformly within +-1 / sqrt(fan_in)."""

    name: str
    shape: Shape
    fan_in: int


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

    @property
    def shape(self) -> Shape:
        return self.shapes[0]


class Recording:
    """The nodes in the order in which they were recorded; `output` and `loss` are two of their results."""

    def __init__(self, batch_size: int, prefix: str = "") -> None:
        self.batch_size = batch_size
        self.prefix = prefix
        self.nodes: List[Node] = []
        self.output = Tensor(-1, 0, ())
        self.loss = Tensor(-1, 0, ())

    @property
    def inputs(self) -> Dict[str, Node]:
        """The arrays that are fed, by name, in order; `labels` may be among them."""
        return {name: node for name, node in self._named("input")}

    @property
    def weights(self) -> List[Weight]:
        return [weight for node in self.nodes for weight in node.weights]

    @property
    def parameters(self) -> int:
        return sum(math.prod(weight.shape) for weight in self.weights)

    @property
    def flops(self) -> int:
        """Of one forward pass over the batch."""
        return sum(node.flops for node in self.nodes)

    @property
    def elementwise(self) -> int:
        """Elementwise operations of one forward pass over the batch, losses left out."""
        total = 0
        for node in self.nodes:
            total += ELEMENTWISE_OPS.get(node.op, 0) * math.prod(node.shape)
            if node.op == "scan":
                total += node.attrs["steps"] * node.attrs["body"].elementwise
        return total

    @property
    def elements_moved(self) -> int:
        """Inputs, weights and output, each once: what must cross the memory bus at the least."""
        inputs = sum(math.prod(node.shape) for node in self.inputs.values())
        return inputs + self.parameters + math.prod(self.output.shape)

    @property
    def fingerprint(self) -> str:
        """Twelve hex digits that change when what is computed changes."""
        return hashlib.sha256(json.dumps(self._plain(), sort_keys=True).encode()).hexdigest()[:12]

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

    def _weight(self, name: str, shape: Shape, fan_in: int) -> Weight:
        return Weight(f"{self.prefix}n{len(self.nodes)}.{name}", shape, fan_in)

    def _alike(self, op: str, inputs: Sequence[Tensor], shape: Shape) -> Tensor:
        if len({tensor.shape for tensor in inputs}) > 1:
            shapes = ", ".join(str(tensor.shape) for tensor in inputs)
            raise ValueError(f"{op} takes operands of one shape, not {shapes}")
        return self._add(op, inputs, [shape])

    def _add(
        self,
        op: str,
        inputs: Sequence[Tensor],
        shapes: Sequence[Shape],
        attrs: Union[Dict[str, Any], None] = None,
        weights: Sequence[Weight] = (),
        flops: int = 0,
    ) -> Tensor:
        """Record a node and return its first result."""
        self.nodes.append(Node(op, tuple(inputs), tuple(shapes), attrs or {}, tuple(weights), flops))
        return Tensor(len(self.nodes) - 1, 0, shapes[0])

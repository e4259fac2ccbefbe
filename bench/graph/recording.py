"""The parts of a recorded graph: nodes, tensors and weights.

`bench/graph/primitives.py` has the operations. No numpy is imported here: the harness records graphs to refuse
impossible sizes, and must start fast.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Dict, Tuple

Shape = Tuple[int, ...]

# The operations that stand for the inputs of a graph, or of the body of a loop.
SOURCES = ("input", "state", "slice")
# The kinds of weights that are running statistics, which are not trained.
UNTRAINED = ("mean", "variance")


@dataclass(frozen=True)
class Weight:
    """One array of a layer; `kind` and `fan_in` set the distribution of its values (`bench/graph/draws.py`)."""

    name: str
    shape: Shape
    fan_in: float
    kind: str = "uniform"

    @property
    def trained(self) -> bool:
        return self.kind not in UNTRAINED


@dataclass(frozen=True)
class Tensor:
    """One result of one node: the index of the node, the index of the result, and the shape."""

    node: int
    output: int
    shape: Shape


@dataclass(frozen=True)
class Node:
    """One primitive: its inputs, the shapes of its results, attributes, weights, FLOP of a forward pass, and block."""

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

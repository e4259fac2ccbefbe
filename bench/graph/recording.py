"""What a recorded graph consists of: nodes, their tensors and weights.

`bench/graph/primitives.py` has the operations themselves. No numpy here: the harness records graphs to refuse
impossible sizes, and must stay light.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Dict, Tuple

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

"""One dense layer, as wide as its input.

    y = x W' + b, with an optional ReLU

Shapes   in (batch, units), out (batch, units)
Item     one row
Source   Graphcore's TensorFlow kernel benchmarks, SDK 1.2 to 3.0: dense.py and its tests
"""

from __future__ import annotations

from bench.cases.dimension import Dimension
from bench.graph import Graph, Tensor

ITEM = "row"
DIMENSIONS = {
    "units": Dimension("u", "width of a dense layer and of its input", maximum=65536),
    "activation": Dimension("", "the activation after the dense layer", choices=("none", "relu")),
}
SIZES = (
    {"batch_size": 32, "units": 1024},
    {"batch_size": 128, "units": 256, "activation": "relu"},
    {"batch_size": 4, "units": 128},
)
TINY = {"units": 8, "activation": "relu"}
LEARNING_RATE = 0.01


def build(net: Graph, *, units: int, activation: str) -> Tensor:
    """Add the layer to `net` and return its output."""
    y = net.dense(net.input(units), units)
    return net.relu(y) if activation == "relu" else y


def loss(net: Graph, output: Tensor, **size: object) -> Tensor:
    return net.mean(output)

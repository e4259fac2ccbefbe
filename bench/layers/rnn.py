"""One tanh RNN layer, run over whole sequences from a zero state.

    h <- tanh(W x + R h + b)

Shapes   in (batch, timesteps, hidden_size), out (batch, timesteps, hidden_size)
Item     one sequence
Source   Graphcore's TensorFlow kernel benchmarks, SDK 1.2 to 3.0: rnn.py and its tests
"""

from __future__ import annotations

from bench.graph import Graph, Tensor
from bench.size import HIDDEN_SIZE, RNN_IMPL, TIMESTEPS

ITEM = "sequence"
DIMENSIONS = {"hidden_size": HIDDEN_SIZE, "timesteps": TIMESTEPS, "rnn_impl": RNN_IMPL}
SIZES = (
    {"hidden_size": 128, "timesteps": 5},
    {"batch_size": 256, "hidden_size": 1024, "timesteps": 25},
    {"batch_size": 128, "hidden_size": 1536, "timesteps": 50},
    {"batch_size": 64, "hidden_size": 2048, "timesteps": 25},
    {"batch_size": 1024, "hidden_size": 256, "timesteps": 150},
    {"batch_size": 64, "hidden_size": 512, "timesteps": 25},
)
TINY = {"hidden_size": 8, "timesteps": 3}
LEARNING_RATE = 0.01


def build(net: Graph, *, hidden_size: int, timesteps: int, rnn_impl: str) -> Tensor:
    """Add the layer to `net` and return its output."""
    x = net.input(timesteps, hidden_size)
    if rnn_impl == "fused":
        return net.rnn(x, hidden_size)
    zero = net.fill(0.0, hidden_size)
    return net.scan(lambda net, states, x: net.cell("rnn", x[0], states), [zero], [x])


def loss(net: Graph, output: Tensor, **size: object) -> Tensor:
    return net.softmax_cross_entropy(output, net.labels(*output.shape[1:], values="distribution"))

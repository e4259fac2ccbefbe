"""One tanh RNN layer, run over whole sequences from a zero state.

    h <- tanh(W x + R h + b)

Shapes   in (batch, timesteps, hidden_size), out (batch, timesteps, hidden_size)
Item     one sequence
Source   Graphcore's TensorFlow kernel benchmarks, SDK 1.2 to 3.0: rnn.py and its tests
"""

from __future__ import annotations

from bench.cases.dimension import HIDDEN_SIZE, RNN_IMPL, TIMESTEPS
from bench.graph import Graph, Tensor
from bench.workloads.layers import _recurrent

ITEM = "sequence"
DIMENSIONS = {"hidden_size": HIDDEN_SIZE, "timesteps": TIMESTEPS, "rnn_impl": RNN_IMPL}
SIZES = ({"hidden_size": 128, "timesteps": 5}, *_recurrent.GRAPHCORE_SIZES)
TINY = {"hidden_size": 8, "timesteps": 3}
LEARNING_RATE = 0.01


def build(net: Graph, *, hidden_size: int, timesteps: int, rnn_impl: str) -> Tensor:
    """Add the layer to `net` and return its output."""
    x = net.input(timesteps, hidden_size)
    return _recurrent.layer(net, "rnn", x, hidden_size, rnn_impl)


def loss(net: Graph, output: Tensor, **size: object) -> Tensor:
    return net.softmax_cross_entropy(output, net.labels(*output.shape[1:], values="distribution"))

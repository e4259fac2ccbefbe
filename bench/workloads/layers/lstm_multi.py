"""A stack of LSTM layers. A dense layer of one unit follows on the last state of the top layer.

Shapes   in (batch, timesteps, input_size), out (batch, 1)
Item     one sequence
Source   Graphcore's TensorFlow kernel benchmarks, SDK 1.2 to 3.0: lstm_multi.py. Its published runs
         had batch sizes from 1 to 512
"""

from __future__ import annotations

from bench.cases.dimension import HIDDEN_SIZE, INPUT_SIZE, RNN_IMPL, TIMESTEPS, Dimension
from bench.graph import Graph, Tensor
from bench.workloads.layers import _recurrent

ITEM = "sequence"
DIMENSIONS = {
    "num_layers": Dimension("n", "LSTM layers in the stack", maximum=1000),
    "hidden_size": HIDDEN_SIZE,
    "input_size": INPUT_SIZE,
    "timesteps": TIMESTEPS,
    "rnn_impl": RNN_IMPL,
}
SIZES = ({"num_layers": 2, "hidden_size": 256, "input_size": 16, "timesteps": 200},)
TINY = {"num_layers": 2, "hidden_size": 8, "input_size": 5, "timesteps": 3}
LEARNING_RATE = 0.01


def build(net: Graph, *, num_layers: int, hidden_size: int, input_size: int, timesteps: int, rnn_impl: str) -> Tensor:
    """Add the stack to `net` and return its output."""
    x = net.input(timesteps, input_size)
    for _ in range(num_layers):
        x = _recurrent.layer(net, "lstm", x, hidden_size, rnn_impl)
    return net.dense(net.last(x), 1)


def loss(net: Graph, output: Tensor, **size: object) -> Tensor:
    return net.squared_error(output, net.labels(1, values="normal"))

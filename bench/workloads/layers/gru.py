"""One GRU layer, run over whole sequences from a zero state.

    r, z = sigmoid(W x + b + R h + b')      n = tanh(W x + b + r * (R h + b'))
    h <- (1 - z) * n + z * h

Shapes   in (batch, timesteps, input_size), out (batch, timesteps, hidden_size)
Item     one sequence
Source   Cho et al. 2014, with the reset gate after the product, as in cuDNN, torch, Keras and ONNX. That
         form has two biases, so it has 3 x hidden_size more parameters than the original program
Sizes    Graphcore's TensorFlow kernel benchmarks, SDK 1.2 to 3.0: gru.py and its tests, which had the
         default input size of 128 at all hidden sizes
"""

from __future__ import annotations

from bench.cases.dimension import HIDDEN_SIZE, INPUT_SIZE, RNN_IMPL, TIMESTEPS
from bench.graph import Graph, Tensor
from bench.workloads.layers import _recurrent

ITEM = "sequence"
DIMENSIONS = {
    "hidden_size": HIDDEN_SIZE,
    "input_size": INPUT_SIZE,
    "timesteps": TIMESTEPS,
    "rnn_impl": RNN_IMPL,
}
SIZES = tuple(
    {**size, "input_size": 128} for size in ({"hidden_size": 128, "timesteps": 5}, *_recurrent.GRAPHCORE_SIZES)
)
TINY = {"hidden_size": 8, "input_size": 5, "timesteps": 3}
LEARNING_RATE = 0.01


def build(net: Graph, *, hidden_size: int, input_size: int, timesteps: int, rnn_impl: str) -> Tensor:
    """Add the layer to `net` and return its output."""
    x = net.input(timesteps, input_size)
    return _recurrent.layer(net, "gru", x, hidden_size, rnn_impl)


def loss(net: Graph, output: Tensor, **size: object) -> Tensor:
    return net.softmax_cross_entropy(output, net.labels(*output.shape[1:], values="distribution"))

"""One LSTM layer, run over whole sequences from a zero state.

    i, f, o = sigmoid(W x + R h + b)      g = tanh(W x + R h + b)
    c <- f * c + i * g                    h <- o * tanh(c)

Shapes   in (batch, timesteps, hidden_size), out (batch, timesteps, hidden_size)
Item     one sequence
Source   Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000; no peepholes
Sizes    Graphcore's kernel benchmarks and their tests. TensorFlow's (SDK 1.2 to 3.0) have a bias and a
         softmax over the features; PopART's (SDK 1.2 to 3.1) have neither: their loss, `nll`, has a
         softmax over batch and features together
"""

from __future__ import annotations

from bench.cases.dimension import BIAS, HIDDEN_SIZE, RNN_IMPL, TIMESTEPS, Dimension
from bench.graph import Graph, Tensor
from bench.workloads.layers import _recurrent

ITEM = "sequence"
DIMENSIONS = {
    "hidden_size": HIDDEN_SIZE,
    "timesteps": TIMESTEPS,
    "bias": BIAS,
    "loss": Dimension("", "the loss of an LSTM layer", choices=("cross_entropy", "nll")),
    "rnn_impl": RNN_IMPL,
}
_POPART = {"bias": "off", "loss": "nll"}
SIZES = (
    {"hidden_size": 128, "timesteps": 5},
    *_recurrent.GRAPHCORE_SIZES,
    {"hidden_size": 32, "timesteps": 1, **_POPART},
    *({**size, **_POPART} for size in _recurrent.GRAPHCORE_SIZES[:4]),
    {"batch_size": 1024, "hidden_size": 512, "timesteps": 25, **_POPART},
)
TINY = {"hidden_size": 8, "timesteps": 3}
LEARNING_RATE = 0.01


def build(net: Graph, *, hidden_size: int, timesteps: int, bias: str, loss: str, rnn_impl: str) -> Tensor:
    """Add the layer to `net` and return its output."""
    x = net.input(timesteps, hidden_size)
    return _recurrent.layer(net, "lstm", x, hidden_size, rnn_impl, bias=bias == "on")


def loss(net: Graph, output: Tensor, *, loss: str, **size: object) -> Tensor:
    if loss == "nll":
        return net.flat_softmax_nll(output, net.labels(output.shape[1], values="classes"))
    return net.softmax_cross_entropy(output, net.labels(*output.shape[1:], values="distribution"))

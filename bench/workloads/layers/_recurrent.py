"""Shared by the recurrent layers: two implementations, and the sizes of the original tests."""

from __future__ import annotations

from bench.graph import Graph, Tensor

STATES = {"rnn": 1, "gru": 1, "lstm": 2}

# Graphcore's tests of the TensorFlow kernel benchmarks, with their batch sizes.
GRAPHCORE_SIZES = (
    {"batch_size": 256, "hidden_size": 1024, "timesteps": 25},
    {"batch_size": 128, "hidden_size": 1536, "timesteps": 50},
    {"batch_size": 64, "hidden_size": 2048, "timesteps": 25},
    {"batch_size": 1024, "hidden_size": 256, "timesteps": 150},
    {"batch_size": 64, "hidden_size": 512, "timesteps": 25},
)


def layer(net: Graph, kind: str, x: Tensor, hidden_size: int, rnn_impl: str, bias: bool = True) -> Tensor:
    """Add one layer of `kind` (rnn, lstm or gru) over `x` and return all its states, (batch, time, hidden_size).

    rnn_impl   fused: the framework's recurrent layer; cell: its cell in an explicit loop over time
    """
    if rnn_impl == "fused":
        whole = {"rnn": net.rnn, "lstm": net.lstm, "gru": net.gru}[kind]
        return whole(x, hidden_size, bias=bias)
    zero = net.fill(0.0, hidden_size)
    return net.scan(lambda net, states, x: net.cell(kind, x[0], states, bias=bias), [zero] * STATES[kind], [x])

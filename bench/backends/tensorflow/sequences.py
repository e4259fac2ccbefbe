"""The recurrent layers of Keras and their cells. Sequences are (batch, time, features)."""

from __future__ import annotations

from typing import Any, Callable, Dict

import numpy as np
import tensorflow as tf

from bench.graph import Node


def regate(array: Any, kind: str) -> Any:
    """Reorder the gates of a (gates * hidden, ...) weight from torch's order to Keras's, or back.

    Keras's LSTM has the order of torch, i f c o. Its GRU has z r h, and torch's r z n.
    """
    if kind != "gru":
        return array
    r, z, n = np.split(array, 3)
    return np.concatenate([z, r, n])


def _hold_gates(to: Any, node: Node, layer: Any, kind: str) -> None:
    def native(array: Any) -> Any:
        return regate(array, kind).T

    def back(array: Any) -> Any:
        return regate(array.T, kind)

    to.held[node.weights[0].name] = (layer.kernel, native, back)
    to.held[node.weights[1].name] = (layer.recurrent_kernel, native, back)
    if kind != "gru" and len(node.weights) > 2:
        to.held[node.weights[2].name] = (layer.bias, native, back)


def _cell_layer(kind: str, hidden: int, bias: bool, policy: str, whole: bool) -> Any:
    # Zeros: the weights are loaded later, and the default, orthogonal, has no 16-bit kernel.
    options: Dict[str, Any] = {"use_bias": bias, "dtype": policy, "recurrent_initializer": "zeros"}
    layers = tf.keras.layers
    if kind == "gru":
        options["reset_after"] = True
    if kind == "lstm":
        options["unit_forget_bias"] = False
    if whole:
        return {"rnn": layers.SimpleRNN, "lstm": layers.LSTM, "gru": layers.GRU}[kind](
            hidden, return_sequences=True, **options
        )
    return {"rnn": layers.SimpleRNNCell, "lstm": layers.LSTMCell, "gru": layers.GRUCell}[kind](hidden, **options)


class GRUBias:
    """One bias of a Keras GRU, which has both in one variable, (2, 3 * hidden)."""

    def __init__(self, variable: Any, row: int) -> None:
        self.variable, self.row = variable, row
        self.dtype = variable.dtype

    def assign(self, value: Any) -> None:
        rows = np.array(self.variable.numpy())
        rows[self.row] = value
        self.variable.assign(rows)

    def numpy(self) -> Any:
        return self.variable.numpy()[self.row]


def _recurrent(kind: str, whole: bool) -> Callable[[Any, Node], Callable[..., Any]]:
    def make(to: Any, node: Node) -> Callable[..., Any]:
        layer = _cell_layer(kind, node.shape[-1], len(node.weights) > 2, to.policy, whole)
        layer.build(node.inputs[0].shape)
        cell = layer.cell if whole else layer
        _hold_gates(to, node, cell, kind)
        if kind == "gru" and len(node.weights) > 2:
            for row in (0, 1):
                to.held[node.weights[2 + row].name] = (
                    GRUBias(cell.bias, row),
                    lambda array: regate(array, "gru"),
                    lambda array: regate(array, "gru"),
                )
        if whole:
            return layer  # type: ignore[no-any-return]
        return lambda x, *states: list(layer(x, list(states))[1])

    return make


LAYERS: Dict[str, Callable[[Any, Node], Callable[..., Any]]] = {
    **{kind: _recurrent(kind, True) for kind in ("rnn", "lstm", "gru")},
    **{f"{kind}_cell": _recurrent(kind, False) for kind in ("rnn", "lstm", "gru")},
}

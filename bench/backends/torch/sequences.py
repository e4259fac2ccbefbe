"""Recurrent layers, scans and sources as torch modules. Sequences are (time, batch, features)."""

from __future__ import annotations

from typing import Any, Dict, Tuple

import torch
from torch import nn


class RNN(nn.RNN):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x)[0]


class LSTM(nn.LSTM):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x)[0]


class GRU(nn.GRU):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x)[0]


class Last(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[-1]


class Fill(nn.Module):
    """A constant in a buffer, which follows the type and device of the module."""

    def __init__(self, shape: Tuple[int, ...], value: float) -> None:
        super().__init__()
        self.register_buffer("value", torch.full(shape, value))

    def forward(self) -> torch.Tensor:
        return self.value


class Random(nn.Module):
    """New random numbers in every call, (time, batch, features), in the type and on the device of the module."""

    def __init__(self, shape: Tuple[int, ...], values: str) -> None:
        super().__init__()
        self.register_buffer("like", torch.empty(shape).transpose(0, 1).contiguous())
        self.draw = torch.randn_like if values == "normal" else torch.rand_like

    def forward(self) -> torch.Tensor:
        return self.draw(self.like)


class CellLoop(nn.Module):
    """An nn.RNNCell or nn.GRUCell, called once a time step."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, h: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        trace = []
        for step in x:
            h = self.cell(step, h)
            trace.append(h)
        return torch.stack(trace)


class LSTMLoop(nn.Module):
    """An nn.LSTMCell, called once a time step."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, h: torch.Tensor, c: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        trace = []
        for step in x:
            h, c = self.cell(step, (h, c))
            trace.append(h)
        return torch.stack(trace)


class Scan(nn.Module):
    """A scan with any body, which is called once a time step."""

    def __init__(self, body: nn.Module, states: int) -> None:
        super().__init__()
        self.body = body
        self.states = states

    def forward(self, *args: torch.Tensor) -> torch.Tensor:
        states, trace = args[: self.states], []
        for slices in zip(*args[self.states :]):
            ends = self.body(*states, *slices)
            states = ends if isinstance(ends, tuple) else (ends,)
            trace.append(states[0])
        return torch.stack(trace)


LAYERS: Dict[str, Any] = {"rnn": RNN, "lstm": LSTM, "gru": GRU}
CELLS: Dict[str, Any] = {"rnn_cell": nn.RNNCell, "lstm_cell": nn.LSTMCell, "gru_cell": nn.GRUCell}

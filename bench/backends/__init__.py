"""The contract of a file in backends/, and what every backend can be asked without loading its framework."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Dict, FrozenSet, Mapping, Optional, Tuple

from bench import registry
from bench.cases.case import Case, Settings
from bench.graph import Graph
from bench.program import Program

# The primitives that every backend lowers. One that has more says PRIMITIVES = CORE | {"layer_norm"}.
CORE = frozenset(
    (
        *("dense", "rnn", "lstm", "gru", "rnn_cell", "lstm_cell", "gru_cell", "scan", "last"),
        *("add", "sub", "mul", "affine", "log", "relu", "where_less", "random", "fill"),
        *("conv", "batch_norm", "group_norm", "max_pool", "global_mean", "pooled", "normalise", "pad_channels"),
        *("relu6", "sigmoid", "silu", "hardsigmoid", "hardswish", "gate", "dropout", "blend"),
        *("mean", "softmax_cross_entropy", "squared_error", "cross_entropy"),
        *("flat_softmax_nll", "flat_softmax_squared_error"),
    )
)


@dataclass(frozen=True)
class Backend:
    """What the module of a backend holds; constants are in capitals there.

    package      what must be importable
    devices, modes   what it can do at all
    unsupported  (precision, mode, device): why this framework cannot run so, or None; without loading it
    environment  (settings, device): variables that must be set before the framework is loaded, thread counts first
    version      load the framework and return its version
    compile      (graph, weights, inputs, case, settings): lower `graph` for `case`. In training the program runs one
                 weight update; the learning rate comes later. Raises Unavailable where the framework turns out to
                 be unable
    primitives   the operations of a graph that it lowers
    all_reduce   `compile` takes a `group` too: replicas that average their gradients
    checkable    (case, settings): the settings of the program that is checked; None: of the timed one
    exported     (graph, weights): the ONNX model of a graph, as a file has it; None: it makes none
    """

    package: str
    devices: Tuple[str, ...]
    modes: Tuple[str, ...]
    unsupported: Callable[[str, str, str], Optional[str]]
    environment: Callable[[Settings, str], Dict[str, str]]
    version: Callable[[], str]
    compile: Callable[..., Program]
    primitives: FrozenSet[str] = CORE
    all_reduce: bool = False
    checkable: Optional[Callable[[Case, Settings], Settings]] = None
    exported: Optional[Callable[[Graph, Mapping[str, Any]], bytes]] = None


def names() -> Tuple[str, ...]:
    return tuple(registry.names(__name__))


def load(name: str) -> Backend:
    """Import one backend, without its framework."""
    return registry.filled(Backend, registry.load(__name__, name))

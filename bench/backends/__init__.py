"""The interface of a module in backends/. Importing such a module does not load its framework."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
from dataclasses import dataclass
from typing import Any, Callable, Dict, FrozenSet, Mapping, Optional, Sequence, Tuple

from bench import registry
from bench.cases.case import Case, Settings
from bench.graph import Graph
from bench.program import Program

# The primitives that every backend lowers. A backend with more of them sets PRIMITIVES.
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
    """The names that the module of a backend defines; constants are in capitals there.

    package      the Python package that must be importable
    devices, modes   those that the backend supports
    unsupported  (precision, mode, device): why the framework cannot run this combination, or None
    environment  (settings, device): the variables to set before the framework is loaded, such as thread counts
    version      loads the framework and returns its version
    compile      (graph, weights, inputs, case, settings): the program of `graph` for `case`. In training one run is one
                 weight update, and the learning rate is set later. Raises Unavailable if the framework cannot run it
    primitives   the primitives that it lowers
    extra        the extra of pyproject.toml that installs the package; empty: it has the backend's name
    all_reduce   whether `compile` also takes `group`, the replicas that average their gradients
    checkable    (case, settings): the settings of the program that is checked; None: those of the timed program
    libraries    other distributions whose version changes a rate; numpy's is always recorded
    copies       (device, size): functions that copy or read `size` bytes and return when the device is done, on the
                 threads of a case: they show the bandwidth of the device; None: the framework's products show it
    exported     (graph, weights): the bytes of an ONNX file of the graph; None: the backend uses no ONNX
    """

    package: str
    devices: Tuple[str, ...]
    modes: Tuple[str, ...]
    unsupported: Callable[[str, str, str], Optional[str]]
    environment: Callable[[Settings, str], Dict[str, str]]
    version: Callable[[], str]
    compile: Callable[..., Program]
    primitives: FrozenSet[str] = CORE
    extra: str = ""
    all_reduce: bool = False
    libraries: Tuple[str, ...] = ()
    checkable: Optional[Callable[[Case, Settings], Settings]] = None
    copies: Optional[Callable[[str, int], Sequence[Callable[[], Any]]]] = None
    exported: Optional[Callable[[Graph, Mapping[str, Any]], bytes]] = None


def installed(name: str) -> str:
    """The installed version of a backend's package; empty: not installed. Nothing is loaded.

    The name of a package may differ from that of its module.
    """
    package = load(name).package
    for distribution in (package, f"{package}-cpu", f"{package}-gpu"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(distribution)
    return ""


def names() -> Tuple[str, ...]:
    return registry.names(__name__)


@functools.lru_cache(maxsize=None)
def load(name: str) -> Backend:
    """Import the module of one backend, without its framework."""
    return registry.filled(Backend, registry.load(__name__, name))

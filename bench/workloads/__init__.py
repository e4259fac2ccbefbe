"""The contract of a workload, and the graphs of cases: a workload records primitives in a Graph."""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Callable, Dict, FrozenSet, Iterable, Mapping, Optional, Tuple

from bench import registry
from bench.cases import dimension
from bench.cases.case import Case
from bench.cases.dimension import Dimension, Value
from bench.cases.recipe import DEFAULT_RECIPE, Recipe
from bench.graph import Graph, Tensor
from bench.workloads import host_pipeline, network, own

LAYERS = "bench.workloads.layers"
# Rows of the small copy of a graph on which its weights are scaled.
SAMPLED_ROWS = 4


@dataclass(frozen=True)
class Workload:
    """What a file in layers/, or a user's file, holds; constants are in capitals there.

    item         one item in one word: row, sequence, image, transition
    dimensions   its dimensions, in the order in which they name a size
    sizes        the named sizes, the default first; `batch_size` in a size is its default batch size, else 1
    build        (net, **size): adds the workload to a graph and returns its output; ValueError for an impossible size

    What follows has a default.

    tiny         a size for tests, which are checked by hand or take no time; the suite's workloads need it
    loss         (net, output, **size): adds the loss and returns it; None: inference only
    learning_rate   the base learning rate; a loss needs it
    unsupported  (mode, precision): why such a case is meaningless, or None
    items        (batch_size=, **size): the items of a batch
    canonical    (size): the one form of sizes that make the same graph
    checked_size   the dimensions that are smaller in the check
    checked      (size, batch_size, mode): the size and the batch size of the check
    sampled      (size): a small size with the same weights, on which they are scaled
    implausible  (output, **size): what is wrong with the output of a timed step that draws random numbers, or None

    For --protocol tensorflow_layers:

    program_items   (batch_size=, **size): the items of a batch as the original program counts them; None: `items`
    averages_seconds   the original program averages seconds instead of rates
    """

    item: str
    dimensions: Mapping[str, Dimension]
    sizes: Tuple[Mapping[str, Value], ...]
    build: Callable[..., Tensor]
    tiny: Mapping[str, Value] = field(default_factory=dict)
    loss: Optional[Callable[..., Tensor]] = None
    learning_rate: float = 0.0
    unsupported: Callable[[str, str], Optional[str]] = lambda mode, precision: None
    items: Callable[..., int] = lambda *, batch_size, **size: batch_size
    canonical: Callable[[Dict[str, Value]], Dict[str, Value]] = lambda size: size
    checked_size: Mapping[str, Value] = field(default_factory=dict)
    checked: Callable[..., Tuple[Dict[str, Value], int]] = lambda size, batch_size, mode: (size, batch_size)
    sampled: Callable[[Mapping[str, Value]], Mapping[str, Value]] = lambda size: size
    implausible: Optional[Callable[..., Optional[str]]] = None
    program_items: Optional[Callable[..., int]] = None
    averages_seconds: bool = False


# The modules of users' files by the names of their workloads.
_users: Dict[str, ModuleType] = {}


def names(kind: str = "") -> Tuple[str, ...]:
    """The suite's workloads, all or those of a kind: layers, cnns or pipelines."""
    kinds = {"layers": registry.names(LAYERS), "cnns": list(network.models()), "pipelines": [host_pipeline.NAME]}
    return tuple(kinds[kind] if kind else itertools.chain(*kinds.values()))


def load(name: str) -> Workload:
    """Import one workload. Raises ValueError, with the choices, for an unknown name."""
    return _filled(_source(name))


@functools.lru_cache(maxsize=None)
def _filled(source: Any) -> Workload:
    """The options alone ask for each network's dimensions some thirty times."""
    return registry.filled(Workload, source)


def _source(name: str) -> Any:
    """The module or the model that holds a workload."""
    if name in _users:
        return _users[name]
    if name in network.models():
        return network.models()[name]
    return host_pipeline if name == host_pipeline.NAME else registry.load(LAYERS, name)


def add(module: ModuleType) -> str:
    """Add the workload of a user's module and return its name: that of the file without `test_`.

    Raises ValueError if it is not a workload or its name is taken.
    """
    name = module.__name__.rsplit(".", 1)[-1]
    name = name[len("test_") :] if name.startswith("test_") else name
    known = _users.get(name)
    fault = own.fault(module, name)
    if known is not None and known.__file__ != module.__file__:
        fault = f"there is a workload {name!r} in {known.__file__} already; rename the file"
    elif name in names():
        fault = f"the suite has a workload {name!r} of its own; rename the file"
    if fault:
        raise ValueError(fault)
    _users[name] = module
    return name


def received(plain: Mapping[str, Any]) -> Case:
    """A case from another process. The workload of a user's file is loaded from the text that came with the case.

    Raises Refused, in one line, if that fails.
    """
    case = Case(**plain)
    if case.own and case.workload not in _users:
        _users[case.workload] = own.load(case.own)
    return case


def named_sizes(workload: Workload) -> Dict[str, Dict[str, Value]]:
    """The sizes of a workload by name, with values for all dimensions and `batch_size`."""
    sizes = {}
    for values in workload.sizes:
        size = workload.canonical(dimension.with_defaults(workload.dimensions, values))
        sizes[dimension.name(workload.dimensions, size)] = {"batch_size": values.get("batch_size", 1), **size}
    return sizes


def unsupported(name: str, mode: str, precision: str) -> Optional[str]:
    """Why no backend can run this mode and precision of a workload, or None."""
    workload = load(name)
    if mode != "inference" and workload.loss is None:
        return f"{name} has no loss, so inference only"
    return workload.unsupported(mode, precision)


def record(
    workload: Workload,
    size: Mapping[str, Value],
    batch_size: int,
    mode: str,
    random_as_inputs: bool = False,
    recipe: Recipe = DEFAULT_RECIPE,
) -> Graph:
    """Return the graph of a workload: its output, and its loss in eval and training.

    Raises ValueError, with the dimension, if the size is impossible.
    """
    net = Graph(batch_size, random_as_inputs, mode == "training", recipe)
    net.sample = functools.partial(_sample, workload, size)
    net.output = _tensor("build", workload.build(net, **size))
    if mode != "inference":
        assert workload.loss is not None, "`unsupported` refuses this mode"
        net.loss = _tensor("loss", workload.loss(net, net.output, **size))
    return net


def _sample(workload: Workload, size: Mapping[str, Value]) -> Graph:
    """An inference graph of a few rows of a small size, with the same weights."""
    return record(workload, workload.sampled(size), SAMPLED_ROWS, "inference", random_as_inputs=True)


def _tensor(function: str, result: Any) -> Tensor:
    if not isinstance(result, Tensor):
        raise ValueError(f"{function} returned {result!r}; it has to return one of the graph's tensors")
    return result


def of_case(case: Case, recipe: Recipe = DEFAULT_RECIPE) -> Graph:
    """The graph that is timed."""
    return record(load(case.workload), case.dimensions, case.batch_size, case.mode, recipe=recipe)


def primitives(case: Case) -> FrozenSet[str]:
    """The primitives of a case's graph, which a backend has to lower."""
    return of_case(case).operations


def checked(case: Case, recipe: Recipe = DEFAULT_RECIPE) -> Graph:
    """The graph that is checked: as the timed one, but random numbers are inputs, and the size may be smaller."""
    workload = load(case.workload)
    size, batch_size = workload.checked({**case.dimensions, **workload.checked_size}, case.batch_size, case.mode)
    return record(workload, size, batch_size, case.mode, random_as_inputs=True, recipe=recipe)


def items(case: Case) -> int:
    """The items of one batch of one replica."""
    return int(load(case.workload).items(batch_size=case.batch_size, **case.dimensions))


def dimensions(workloads: Iterable[str]) -> Dict[str, Dimension]:
    """All dimensions of these workloads, by name."""
    first: Dict[str, Dimension] = {}
    for name in workloads:
        for key, value in load(name).dimensions.items():
            first.setdefault(key, value)
    return first

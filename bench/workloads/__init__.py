"""A workload is a module that records a Graph: what it must hold, and how its graph is recorded."""

from __future__ import annotations

import functools
import itertools
from types import ModuleType
from typing import Any, Dict, FrozenSet, Iterable, Mapping, Optional, Protocol, Tuple, cast

from bench import registry
from bench.cases import dimension
from bench.cases.case import Case
from bench.cases.dimension import Dimension, Value
from bench.cases.recipe import DEFAULT_RECIPE, Recipe
from bench.graph import Graph, Tensor
from bench.workloads import host_pipeline, network, own

LAYERS = "bench.workloads.layers"
# Rows of the small copy of a graph on which its weights are measured.
SAMPLED_ROWS = 4


class Workload(Protocol):
    """The contract of a file in layers/.

    ITEM           what one item is, in one word: row, sequence, image, transition
    DIMENSIONS     its dimensions, in the order in which its sizes are named
    SIZES          the named sizes, first the default; `batch_size` among them is their default batch
    TINY           a size that the tests can check by hand or in no time
    build          adds the workload to a graph and returns its output; ValueError: impossible size

    Optional: `loss` with LEARNING_RATE (without them there is inference only), `unsupported(mode,
    precision)`, `items(batch_size=, **size)` for other than one item per batch row, `canonical(size)` (what
    one dimension says about another), CHECKED_SIZE (dimensions made smaller for the check), `checked(size,
    batch_size, mode)` (the same by hand), `sampled(size)` (a small size with the same weights, which are
    measured there), `implausible(output, **size)`, which judges the numbers of a timed step that draws its
    own random numbers, and, for --protocol tensorflow_layers, `program_items(batch_size=, **size)` where the
    original program counts other items, and AVERAGES_SECONDS where it averages seconds. A module that is not
    one of the suite's needs no TINY (see `add`).
    """

    ITEM: str
    DIMENSIONS: Mapping[str, Dimension]
    SIZES: Tuple[Mapping[str, Value], ...]
    TINY: Mapping[str, Value]

    def build(self, net: Graph, **size: Any) -> Tensor: ...


# Workloads of files that are not the suite's, by name; `add` and `received` put them here.
_own: Dict[str, Workload] = {}


def names(kind: str = "") -> Tuple[str, ...]:
    """Every workload, or those of a kind: layers, cnns or pipelines."""
    found = {"layers": registry.names(LAYERS), "cnns": list(network.models()), "pipelines": [host_pipeline.NAME]}
    return tuple(found[kind] if kind else itertools.chain(*found.values()))


def load(name: str) -> Workload:
    """Import one workload. Raises ValueError with the choices when there is none of that name."""
    if name in _own:
        return _own[name]
    if name in network.models():
        return cast(Workload, network.models()[name])
    if name == host_pipeline.NAME:
        return cast(Workload, host_pipeline)
    return cast(Workload, registry.load(LAYERS, name))


def add(module: ModuleType) -> str:
    """Make a module that is not the suite's a workload, named as its file without `test_`; return the name.

    Raises ValueError where it is no workload or its name is taken.
    """
    name = module.__name__.rsplit(".", 1)[-1]
    name = name[len("test_") :] if name.startswith("test_") else name
    known = _own.get(name)
    fault = own.fault(module, name)
    if known is not None and getattr(known, "__file__", "") != module.__file__:
        fault = f"there is a workload {name!r} in {getattr(known, '__file__', '')} already; rename the file"
    elif name in names():
        fault = f"the suite has a workload {name!r} of its own; rename the file"
    if fault:
        raise ValueError(fault)
    _own[name] = cast(Workload, module)
    return name


def received(plain: Mapping[str, Any]) -> Case:
    """A case from another process; its workload is loaded from the text of its file where it is not one of the suite's.

    Raises Refused, in one line, where that fails.
    """
    case = Case(**plain)
    if case.own and case.workload not in _own:
        _own[case.workload] = cast(Workload, own.load(case.own))
    return case


def named_sizes(workload: Workload) -> Dict[str, Dict[str, Value]]:
    """The sizes of a workload by name, complete; `batch_size` is always there."""
    found = {}
    for values in workload.SIZES:
        size = canonical(workload, dimension.with_defaults(workload.DIMENSIONS, values))
        found[dimension.name(workload.DIMENSIONS, size)] = {"batch_size": values.get("batch_size", 1), **size}
    return found


def canonical(workload: Workload, size: Dict[str, Value]) -> Dict[str, Value]:
    """A size in the form that has one name for each network: what one dimension says about another is applied."""
    return cast(Dict[str, Value], workload.canonical(size)) if hasattr(workload, "canonical") else size


def unsupported(workload: Workload, mode: str, precision: str) -> Optional[str]:
    """Why no backend can run this mode and precision of a workload, or None."""
    if mode != "inference" and not hasattr(workload, "loss"):
        return f"{_name(workload)} has no loss, so inference only"
    if hasattr(workload, "unsupported"):
        return cast(Optional[str], workload.unsupported(mode, precision))
    return None


def record(
    workload: Workload,
    size: Mapping[str, Value],
    batch_size: int,
    mode: str,
    random_as_inputs: bool = False,
    recipe: Recipe = DEFAULT_RECIPE,
) -> Graph:
    """Return the graph of a workload: its output, and its loss in eval and training.

    Raises ValueError, naming the dimension, when the size is impossible.
    """
    net = Graph(batch_size, random_as_inputs, mode == "training", recipe)
    net.sample = functools.partial(_sample, workload, size)
    net.output = _tensor("build", workload.build(net, **size))
    if mode != "inference":
        net.loss = _tensor("loss", workload.loss(net, net.output, **size))  # type: ignore[attr-defined]
    return net


def _sample(workload: Workload, size: Mapping[str, Value]) -> Graph:
    """The graph of a few rows of a small size, with the same weights."""
    small = workload.sampled(size) if hasattr(workload, "sampled") else size
    return record(workload, small, SAMPLED_ROWS, "inference", random_as_inputs=True)


def _tensor(function: str, found: Any) -> Tensor:
    if not isinstance(found, Tensor):
        raise ValueError(f"{function} returned {found!r}; it has to return one of the graph's tensors")
    return found


def of_case(case: Case, recipe: Recipe = DEFAULT_RECIPE) -> Graph:
    """The graph that is timed."""
    return record(load(case.workload), case.dimensions, case.batch_size, case.mode, recipe=recipe)


def primitives(case: Case) -> FrozenSet[str]:
    """The operations of a case's graph, which a backend has to lower."""
    return of_case(case).operations


def checked(case: Case, recipe: Recipe = DEFAULT_RECIPE) -> Graph:
    """The graph that is checked: the timed one, unless it draws random numbers or is made smaller."""
    workload = load(case.workload)
    size, batch_size = {**case.dimensions, **getattr(workload, "CHECKED_SIZE", {})}, case.batch_size
    if hasattr(workload, "checked"):
        size, batch_size = workload.checked(size, batch_size, case.mode)
    return record(workload, size, batch_size, case.mode, random_as_inputs=True, recipe=recipe)


def items(case: Case) -> int:
    """Items in one batch of one replica."""
    workload = load(case.workload)
    if hasattr(workload, "items"):
        return int(workload.items(batch_size=case.batch_size, **case.dimensions))
    return case.batch_size


def dimensions(workloads: Iterable[str]) -> Dict[str, Dimension]:
    """Every dimension of some workloads, by name."""
    found: Dict[str, Dimension] = {}
    for name in workloads:
        found.update({k: v for k, v in load(name).DIMENSIONS.items() if k not in found})
    return found


def _name(workload: Workload) -> str:
    return cast(ModuleType, workload).__name__.rsplit(".", 1)[-1]

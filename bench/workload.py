"""A workload is a module that records a Graph: what it must hold, and how its graph is recorded."""

from __future__ import annotations

from types import ModuleType
from typing import Any, Dict, Iterable, Mapping, Optional, Protocol, Tuple, cast

from bench import layers, plugins
from bench import size as sizes
from bench.case import Case
from bench.graph import Graph, Tensor
from bench.size import Dimension, Value


class Workload(Protocol):
    """The contract of a file in layers/.

    ITEM           what one item is, in one word: row, sequence, image, transition
    DIMENSIONS     its dimensions, in the order in which its sizes are named
    SIZES          the named sizes, first the default; `batch_size` among them is their default batch
    TINY           a size that the tests can check by hand or in no time
    build          adds the workload to a graph and returns its output; ValueError: impossible size

    Optional: `loss` with LEARNING_RATE (without them there is inference only), `unsupported(mode,
    precision)`, `items(batch_size=, **size)` for other than one item per batch row, CHECKED
    (dimensions made smaller for the check) and `implausible(output)`, which judges the numbers of a
    timed step that draws its own random numbers.
    """

    ITEM: str
    DIMENSIONS: Mapping[str, Dimension]
    SIZES: Tuple[Mapping[str, Value], ...]
    TINY: Mapping[str, Value]

    def build(self, net: Graph, **size: Any) -> Tensor: ...


def names() -> Tuple[str, ...]:
    return tuple(plugins.names(layers))


def load(name: str) -> Workload:
    """Import one workload. Raises ValueError with the choices when there is none of that name."""
    return cast(Workload, plugins.load(layers, name))


def named_sizes(workload: Workload) -> Dict[str, Dict[str, Value]]:
    """The sizes of a workload by name, complete; `batch_size` is always there."""
    found = {}
    for values in workload.SIZES:
        size = sizes.completed(workload.DIMENSIONS, values)
        found[sizes.name(workload.DIMENSIONS, size)] = {"batch_size": values.get("batch_size", 1), **size}
    return found


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
) -> Graph:
    """Return the graph of a workload: its output, and its loss in eval and training.

    Raises ValueError, naming the dimension, when the size is impossible.
    """
    net = Graph(batch_size, random_as_inputs)
    net.output = workload.build(net, **size)
    if mode != "inference":
        net.loss = workload.loss(net, net.output, **size)  # type: ignore[attr-defined]
    return net


def of_case(case: Case) -> Graph:
    """The graph that is timed."""
    return record(load(case.workload), case.dimensions, case.batch_size, case.mode)


def checked(case: Case) -> Graph:
    """The graph that is checked: the timed one, unless it draws random numbers or is made smaller."""
    workload = load(case.workload)
    size = {**case.dimensions, **getattr(workload, "CHECKED", {})}
    return record(workload, size, case.batch_size, case.mode, random_as_inputs=True)


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
        found.update(load(name).DIMENSIONS)
    return found


def _name(workload: Workload) -> str:
    return cast(ModuleType, workload).__name__.rsplit(".", 1)[-1]

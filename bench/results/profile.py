"""The table of a profile: what each operation of the graph costs, whatever framework ran it.

A row is what a framework runs as one: the nodes of the graph that share a kernel, with all kernels of these nodes.
Shares are of the measured step. The profiled step is slower, so what is left for "outside operations", the last row,
can be negative: then the profiler's own cost is larger than the framework's.
"""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Optional, Sequence

from bench.graph import Graph, naming
from bench.graph.recording import SOURCES
from bench.profiling import Kernel, Run

Row = Dict[str, Any]
OUTSIDE, BETWEEN = "outside operations", "between kernels"
# Rows in a record, and kernels that a row names.
MOST_ROWS, MOST_KERNELS = 40, 3


def rows(graph: Graph, run: Run, step_s: float, passes: int) -> List[Row]:
    """The rows of a run, the largest first, and at last OUTSIDE.

    step_s   seconds of the measured run, without a profiler
    passes   how often the FLOP of a forward pass are computed in it
    """
    names, groups = naming.names(graph.nodes), _groups(graph, run.kernels)
    found: List[Row] = []
    for group in sorted(set(groups.values())):
        nodes = [index for index in sorted(groups) if groups[index] == group]
        kernels = [kernel for kernel in run.kernels if kernel.nodes and groups.get(kernel.nodes[0]) == group]
        flops = passes * sum(graph.nodes[index].flops for index in nodes)
        found.append(_row([names[index] for index in nodes], kernels, step_s, flops))
    found.sort(key=lambda row: -float(row["seconds"]))
    kept = found if len(found) <= MOST_ROWS else [*found[: MOST_ROWS - 1], _rest(found[MOST_ROWS - 1 :], step_s)]
    return [*kept, _outside(run, step_s, step_s - sum(float(row["seconds"]) for row in kept))]


def with_peak(found: Optional[Sequence[Row]], peak_flops: float, replicas: int) -> Optional[List[Row]]:
    """The rows with their share of a peak, which is that of all replicas. They are the rows of one replica."""
    if found is None:
        return None
    shares = [row["tflops"] and 100 * replicas * row["tflops"] * 1e12 / peak_flops for row in found]
    return [{**row, "percent_of_peak": share} for row, share in zip(found, shares)]


def _row(operations: List[str], kernels: Sequence[Kernel], step_s: float, flops: int) -> Row:
    seconds = sum(kernel.seconds for kernel in kernels)
    by_name: Dict[str, List[float]] = {}
    for kernel in kernels:
        totals = by_name.setdefault(kernel.name, [0.0, 0])
        totals[0] += kernel.seconds
        totals[1] += kernel.calls
    ordered = sorted(by_name, key=lambda name: -by_name[name][0])
    more = len(ordered) - MOST_KERNELS
    return {
        "operations": operations,
        "kernels": ordered[:MOST_KERNELS] + ([f"{more} more"] if more > 0 else []),
        "calls": int(by_name[ordered[0]][1]) if ordered else 0,
        "seconds": seconds,
        "share_percent": 100 * seconds / step_s,
        "flops": flops,
        "tflops": flops / seconds / 1e12 if flops and seconds > 0 else None,
        "percent_of_peak": None,
    }


def _outside(run: Run, step_s: float, seconds: float) -> Row:
    """What is left of the step: kernels of no operation, and the time between kernels."""
    unnamed = [kernel for kernel in run.kernels if not kernel.nodes]
    between_s = seconds - sum(kernel.seconds for kernel in unnamed)
    row = _row([OUTSIDE], [*unnamed, Kernel(BETWEEN, (), between_s)] if between_s > 0 else unnamed, step_s, 0)
    return {**row, "calls": None, "seconds": seconds, "share_percent": 100 * seconds / step_s}


def _rest(small: Sequence[Row], step_s: float) -> Row:
    """One row for several."""
    count = sum(len(row["operations"]) for row in small)
    kernels = [Kernel(", ".join(row["kernels"]), (0,), row["seconds"], row["calls"]) for row in small]
    return _row([f"{count} more operations"], kernels, step_s, sum(row["flops"] for row in small))


def _groups(graph: Graph, kernels: Sequence[Kernel]) -> Dict[int, int]:
    """The group of each node that computes something. Nodes of one kernel are one group.

    A node without a kernel was fused or removed. It joins the group that has its result or its reader.
    """
    groups: Dict[int, int] = {}
    order: Dict[int, int] = {}
    for position, kernel in enumerate(kernels):
        joined = {groups.get(index, index) for index in kernel.nodes}
        for index in list(groups):
            if groups[index] in joined:
                groups[index] = min(joined)
        groups.update(dict.fromkeys(kernel.nodes, min(joined, default=0)))
        order.update((index, position) for index in kernel.nodes if index not in order)
    used = _used(graph)
    for index in (index for index in used if index not in groups):
        other = _partner(graph, index, groups, order)
        # Without any partner, nodes that no kernel names are one group, as it is not known what ran them.
        groups[index] = groups[other] if other is not None else -1
        order[index] = order[other] if other is not None else -1
    return groups


def _used(graph: Graph) -> List[int]:
    """The nodes that the output or the loss depends on, in order, without inputs."""
    needed = {tensor.node for tensor in (graph.output, graph.loss) if tensor.node >= 0}
    for index in range(len(graph.nodes) - 1, -1, -1):
        if index in needed:
            needed.update(tensor.node for tensor in graph.nodes[index].inputs)
    return [index for index in sorted(needed) if graph.nodes[index].op not in SOURCES]


def _partner(graph: Graph, index: int, groups: Mapping[int, int], order: Mapping[int, int]) -> Optional[int]:
    """The node into whose kernel a node was fused.

    A product is fused with its readers, since a framework names the result after the last of them. Any other node is
    fused into what computes its arguments: the last one of these, which runs when the others are there.
    """
    sources = [tensor.node for tensor in graph.nodes[index].inputs if groups.get(tensor.node, -1) >= 0]
    readers = _readers(graph, index, groups)
    latest = max(sources, key=lambda source: order[source], default=None)
    earliest = min(readers, key=lambda reader: order[reader], default=None)
    first, second = (earliest, latest) if graph.nodes[index].flops else (latest, earliest)
    return first if first is not None else second


def _readers(graph: Graph, index: int, groups: Mapping[int, int]) -> List[int]:
    """The nearest nodes with kernels that read the result of a node, directly or through nodes without kernels."""
    found: List[int] = []
    open_nodes, seen = [index], {index}
    while open_nodes:
        source = open_nodes.pop()
        for reader in range(source + 1, len(graph.nodes)):
            if reader in seen or all(tensor.node != source for tensor in graph.nodes[reader].inputs):
                continue
            seen.add(reader)
            (found if groups.get(reader, -1) >= 0 else open_nodes).append(reader)
    return found

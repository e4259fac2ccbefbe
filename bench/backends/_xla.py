"""What the profiler of TensorFlow and of JAX measured: the time of every operation, and within XLA's programs of every
HLO.

The profiler writes an XSpace: planes of lines of events. The event of an operation is named `scope/name:type`, and its
scope starts with the name of the node. The event of an HLO names a module and an instruction, and the module has the
scope of each instruction. An event without a name of a node, such as a copy within a loop, belongs to the event around
it.
"""

from __future__ import annotations

import re
from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple

from bench.graph import Graph, naming
from bench.profiling import Event, Profile, Run, chrome_trace, kernels, merged

# The event around each profiled step.
STEP = "layerbench_step"
# scope/name:type
OPERATION = re.compile(r"^[^:]+:_?[A-Z]\w*$")
# The scopes of instructions, such as `n1_lstm/while/MatMul`, by module and instruction.
Scopes = Dict[Tuple[str, str], str]
# Instructions that do nearly all arithmetic.
PRODUCTS = ("dot", "convolution")


class Found(NamedTuple):
    """One event of the profiler, in seconds; `facts` are its stats."""

    plane: str
    line: str
    name: str
    start: float
    seconds: float
    facts: Dict[str, Any]


class Instruction(NamedTuple):
    """One instruction of a compiled module. `fused`: the computation that it runs, if it is a fusion."""

    module: str
    computation: str
    name: str
    opcode: str
    scope: str
    fused: str


def scopes_of(instructions: Iterable[Instruction]) -> Scopes:
    """The scope of each instruction. A fusion has that of its result: those of the products within it come before.

    Other instructions may be in several fusions, since XLA computes them anew where that is faster than to store them.
    """
    known = list(instructions)
    within: Dict[Tuple[str, str], str] = {}
    for each in known:
        if each.opcode in PRODUCTS:
            place = each.module, each.computation
            within[place] = f"{within.get(place, '')}{each.scope} "
    return {(each.module, each.name): within.get((each.module, each.fused), "") + each.scope for each in known}


def profile(events: Iterable[Found], scopes: Scopes, seconds: Sequence[float], graph: Graph) -> Profile:
    """The profile of the steps that took `seconds`."""
    found = sorted(events, key=lambda event: event.start)
    trace = chrome_trace((f"{each.plane} {each.line}", each.name, *each[3:]) for each in found)
    return Profile(runs(found, scopes, seconds, graph), trace)


def runs(found: Sequence[Found], scopes: Scopes, seconds: Sequence[float], graph: Graph) -> List[Run]:
    """The runs in the events, one for each STEP."""
    starts = [event.start for event in found if event.name.startswith(STEP)]
    lines: Dict[Tuple[str, str], List[Event]] = {}
    # Where a GPU computes, its planes have the kernels, and the host's only launch them.
    on_device = any(event.plane.startswith("/device:GPU") for event in found)
    for event in found:
        if event.plane.startswith("/device:GPU") == on_device:
            kernel = _kernel(event, scopes, graph)
            if kernel is not None:
                lines.setdefault((event.plane, event.line), []).append(kernel)
    within = []
    for index, (start, run_s) in enumerate(zip(starts, seconds)):
        end = starts[index + 1] if index + 1 < len(starts) else float("inf")
        parts = [kernels(event for event in line if start <= event.start < end) for line in lines.values()]
        within.append(Run(run_s, merged(part for line in parts for part in line)))
    return within


def _kernel(event: Found, scopes: Scopes, graph: Graph) -> Optional[Event]:
    """The event of an operation or an instruction; None for anything else."""
    instruction = event.facts.get("hlo_op")
    scope = event.name
    if instruction is not None:
        scope = scopes.get((str(event.facts.get("hlo_module")), str(instruction)), "") or scope
    elif "tf_op" in event.facts:
        scope = str(event.facts["tf_op"])
    elif not OPERATION.match(event.name):
        return None
    name = event.name if instruction is not None or "tf_op" in event.facts else event.name.rpartition(":")[2]
    nodes = tuple(index for index in naming.indexes(scope) if index < len(graph.nodes))
    return Event(name, event.start, event.start + event.seconds, nodes or None)

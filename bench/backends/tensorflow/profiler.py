"""A program under TensorFlow's profiler: the time of every operation, and within XLA's programs of every HLO.

The profiler writes an XSpace: planes of lines of events. The event of an operation is named `scope/name:type`, and its
scope starts with the name of the node. The event of an HLO names an instruction; the module, which the profiler stores
in a plane of its own, has the scope of each instruction. An event without a name of a node, such as a copy within a
loop, belongs to the event around it.
"""

from __future__ import annotations

import importlib
import re
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import tensorflow as tf

from bench.graph import Graph, naming
from bench.profiling import Event, Profile, Run, Unprofiled, chrome_trace, kernels, merged, timed

STEP = "layerbench_step"
# Versions of TensorFlow have these messages in different modules.
XPLANES = ("tensorflow.tsl.profiler.protobuf", "tsl.profiler.protobuf", "tensorflow.core.profiler.protobuf")
HLOS = ("tensorflow.compiler.xla.service", "xla.service")
# scope/name:type
OPERATION = re.compile(r"^[^:]+:_?[A-Z]\w*$")
# The scopes of instructions, by module and instruction.
Scopes = Dict[Tuple[str, str], str]


class _Found(NamedTuple):
    """One event of the profiler, in seconds; `facts` are its stats."""

    plane: str
    line: str
    name: str
    start: float
    seconds: float
    facts: Dict[str, Any]


def profile(run: Callable[[], None], steps: int, graph: Graph) -> Profile:
    """Run `steps` times, after one more."""
    run()
    seconds = []
    with tempfile.TemporaryDirectory(prefix="layerbench-") as folder:
        options = tf.profiler.experimental.ProfilerOptions(host_tracer_level=3, python_tracer_level=0)
        with tf.profiler.experimental.Profile(folder, options=options):
            for number in range(steps):
                with tf.profiler.experimental.Trace(STEP, step_num=number):
                    seconds.append(timed(run, perf_counter))
        files = sorted(Path(folder).rglob("*.xplane.pb"))
        if not files:
            raise Unprofiled("TensorFlow's profiler wrote no file")
        space = _message(XPLANES, "xplane_pb2").XSpace.FromString(files[0].read_bytes())
    found = sorted(_events(space), key=lambda event: event.start)
    trace = chrome_trace((f"{each.plane} {each.line}", each.name, *each[3:]) for each in found)
    return Profile(runs(found, scopes(space), seconds, graph), trace)


def _message(packages: Sequence[str], module: str) -> Any:
    for package in packages:
        try:
            return importlib.import_module(f"{package}.{module}")
        except ImportError:
            continue
    raise Unprofiled(f"TensorFlow {tf.__version__} has no module {module}")


def _events(space: Any) -> Iterator[_Found]:
    for plane in space.planes:
        for line in plane.lines:
            for event in line.events:
                start = line.timestamp_ns / 1e9 + event.offset_ps / 1e12
                name = plane.event_metadata[event.metadata_id].name
                facts = dict(_facts(plane, event.stats))
                yield _Found(plane.name, line.name, name, start, event.duration_ps / 1e12, facts)


def _facts(plane: Any, stats: Any) -> Iterator[Tuple[str, Any]]:
    for stat in stats:
        kind = stat.WhichOneof("value")
        value = getattr(stat, kind) if kind else None
        value = plane.stat_metadata[value].name if kind == "ref_value" else value
        yield plane.stat_metadata[stat.metadata_id].name, value


def scopes(space: Any) -> Scopes:
    """The scope of each instruction of XLA's programs, such as `n1_lstm/while/MatMul`."""
    found: Scopes = {}
    stats = [s for plane in space.planes for kind in plane.event_metadata.values() for s in kind.stats]
    protos = [stat.bytes_value for stat in stats if stat.bytes_value]
    for proto in protos:
        module = _message(HLOS, "hlo_pb2").HloProto.FromString(proto).hlo_module
        for computation in module.computations:
            found.update({(module.name, each.name): each.metadata.op_name for each in computation.instructions})
    return found


def runs(found: Sequence[_Found], known: Scopes, seconds: Sequence[float], graph: Graph) -> List[Run]:
    """The runs in the events, one for each STEP."""
    starts = [event.start for event in found if event.name.startswith(STEP)]
    lines: Dict[Tuple[str, str], List[Event]] = {}
    # Where a GPU computes, its planes have the kernels, and the host's only launch them.
    on_device = any(event.plane.startswith("/device:GPU") for event in found)
    for event in found:
        if event.plane.startswith("/device:GPU") == on_device:
            kernel = _kernel(event, known, graph)
            if kernel is not None:
                lines.setdefault((event.plane, event.line), []).append(kernel)
    within = []
    for index, (start, run_s) in enumerate(zip(starts, seconds)):
        end = starts[index + 1] if index + 1 < len(starts) else float("inf")
        parts = [kernels(event for event in line if start <= event.start < end) for line in lines.values()]
        within.append(Run(run_s, merged(part for line in parts for part in line)))
    return within


def _kernel(event: _Found, known: Scopes, graph: Graph) -> Optional[Event]:
    """The event of an operation or an instruction; None for anything else."""
    instruction = event.facts.get("hlo_op")
    scope = event.name
    if instruction is not None:
        scope = known.get((str(event.facts.get("hlo_module")), str(instruction)), "") or scope
    elif "tf_op" in event.facts:
        scope = str(event.facts["tf_op"])
    elif not OPERATION.match(event.name):
        return None
    name = event.name if instruction is not None or "tf_op" in event.facts else event.name.rpartition(":")[2]
    nodes = tuple(index for index in naming.indexes(scope) if index < len(graph.nodes))
    return Event(name, event.start, event.start + event.seconds, nodes or None)

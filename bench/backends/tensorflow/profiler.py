"""A program under TensorFlow's profiler."""

from __future__ import annotations

import importlib
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any, Callable, Iterator, List, Sequence, Tuple

import tensorflow as tf

from bench.backends import _xla
from bench.graph import Graph
from bench.profiling import Profile, Unprofiled, timed

# Versions of TensorFlow have these messages in different modules.
XPLANES = ("tensorflow.tsl.profiler.protobuf", "tsl.profiler.protobuf", "tensorflow.core.profiler.protobuf")
HLOS = ("tensorflow.compiler.xla.service", "xla.service")


def profile(run: Callable[[], None], steps: int, graph: Graph) -> Profile:
    """Run `steps` times, after one more."""
    run()
    seconds: List[float] = []
    with tempfile.TemporaryDirectory(prefix="layerbench-") as folder:
        options = tf.profiler.experimental.ProfilerOptions(host_tracer_level=3, python_tracer_level=0)
        with tf.profiler.experimental.Profile(folder, options=options):
            for number in range(steps):
                with tf.profiler.experimental.Trace(_xla.STEP, step_num=number):
                    seconds.append(timed(run, perf_counter))
        files = sorted(Path(folder).rglob("*.xplane.pb"))
        if not files:
            raise Unprofiled("TensorFlow's profiler wrote no file")
        space = _message(XPLANES, "xplane_pb2").XSpace.FromString(files[0].read_bytes())
    return _xla.profile(_events(space), _xla.scopes_of(_instructions(space)), seconds, graph)


def _message(packages: Sequence[str], module: str) -> Any:
    for package in packages:
        try:
            return importlib.import_module(f"{package}.{module}")
        except ImportError:
            continue
    raise Unprofiled(f"TensorFlow {tf.__version__} has no module {module}")


def _events(space: Any) -> Iterator[_xla.Found]:
    for plane in space.planes:
        for line in plane.lines:
            for event in line.events:
                start = line.timestamp_ns / 1e9 + event.offset_ps / 1e12
                name = plane.event_metadata[event.metadata_id].name
                facts = dict(_facts(plane, event.stats))
                yield _xla.Found(plane.name, line.name, name, start, event.duration_ps / 1e12, facts)


def _facts(plane: Any, stats: Any) -> Iterator[Tuple[str, Any]]:
    for stat in stats:
        kind = stat.WhichOneof("value")
        value = getattr(stat, kind) if kind else None
        value = plane.stat_metadata[value].name if kind == "ref_value" else value
        yield plane.stat_metadata[stat.metadata_id].name, value


def _instructions(space: Any) -> Iterator[_xla.Instruction]:
    """The instructions of XLA's programs, which the profiler stores in a plane of their own."""
    stats = [s for plane in space.planes for kind in plane.event_metadata.values() for s in kind.stats]
    for proto in [stat.bytes_value for stat in stats if stat.bytes_value]:
        module = _message(HLOS, "hlo_pb2").HloProto.FromString(proto).hlo_module
        names = {computation.id: computation.name for computation in module.computations}
        for computation in module.computations:
            for each in computation.instructions:
                fused = names[each.called_computation_ids[0]] if each.opcode == "fusion" else ""
                scope = each.metadata.op_name
                yield _xla.Instruction(module.name, computation.name, each.name, each.opcode, scope, fused)

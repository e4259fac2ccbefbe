"""A program under JAX's profiler."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any, Callable, Dict, Iterator, List, Sequence

import jax

from bench.backends import _xla
from bench.graph import Graph
from bench.profiling import Profile, Unprofiled, timed

# In the text of a compiled module: its first line, the first line of a computation, the name and the opcode of an
# instruction, its scope, and the computation that a fusion runs.
MODULE = re.compile(r"HloModule ([^\s,]+)")
COMPUTATION = re.compile(r"(?:ENTRY )?%?([^\s(]+) \(.*\{$")
INSTRUCTION = re.compile(r"\s+(?:ROOT )?%?(\S+) = (?:\(.*?\)|\S+) ([a-z][\w-]*)\(")
SCOPE = re.compile(r'\bop_name="([^"]*)"')
FUSED = re.compile(r"\bfusion\(.*\bcalls=%?([^\s,]+)")


def profile(run: Callable[[], None], steps: int, graph: Graph, modules: Sequence[str]) -> Profile:
    """Run `steps` times, after one more. `modules`: the texts of the compiled modules that a run calls."""
    if not hasattr(jax.profiler, "ProfileData") or not hasattr(jax.profiler, "ProfileOptions"):
        raise Unprofiled(f"jax {jax.__version__} cannot read its profiles")
    run()
    seconds: List[float] = []
    with tempfile.TemporaryDirectory(prefix="layerbench-") as folder:
        options = jax.profiler.ProfileOptions()
        options.host_tracer_level, options.python_tracer_level = 3, 0
        with jax.profiler.trace(folder, profiler_options=options):
            for _ in range(steps):
                with jax.profiler.TraceAnnotation(_xla.STEP):
                    seconds.append(timed(run, perf_counter))
        files = sorted(Path(folder).rglob("*.xplane.pb"))
        if not files:
            raise Unprofiled("JAX's profiler wrote no file")
        space = jax.profiler.ProfileData.from_serialized_xspace(files[0].read_bytes())
    scopes = _xla.scopes_of(instruction for text in modules for instruction in instructions(text))
    return _xla.profile(_events(space), scopes, seconds, graph)


def _events(space: Any) -> Iterator[_xla.Found]:
    for plane in space.planes:
        for line in plane.lines:
            for event in line.events:
                facts: Dict[str, Any] = dict(event.stats)
                seconds = event.duration_ns / 1e9
                yield _xla.Found(plane.name, line.name, event.name, event.start_ns / 1e9, seconds, facts)


def instructions(text: str) -> Iterator[_xla.Instruction]:
    """The instructions in the text of a compiled module."""
    module = computation = ""
    for line in text.splitlines():
        head = MODULE.match(line) or COMPUTATION.match(line)
        if head and not module:
            module = head[1]
        elif head:
            computation = head[1]
        found = INSTRUCTION.match(line)
        if found:
            scope, fused = SCOPE.search(line), FUSED.search(line)
            yield _xla.Instruction(
                module, computation, found[1], found[2], scope[1] if scope else "", fused[1] if fused else ""
            )

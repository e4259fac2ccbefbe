"""A program under torch.profiler: the time of every operator, and the node of the graph that it belongs to.

Eager     each node runs in a range with its name. An operator of the backward pass belongs to the node whose forward
          operator has the same sequence number
Compiled  Inductor's program keeps no names. Its calls are matched with the nodes (`bench/backends/torch/inductor.py`),
          and the functions that it generated get a range each, since torch does not time them by itself
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any, Callable, Dict, Iterator, List, Sequence, Tuple

import torch
from torch import fx
from torch.profiler import ProfilerActivity, record_function

from bench.backends.torch import inductor
from bench.graph import Graph, naming
from bench.profiling import Kernel, Profile, Run, merged, timed

# A range around each profiled step, and the event of torch around a compiled graph.
STEP, COMPILED = "layerbench step", "## Call CompiledFxGraph"
# The scope of an event of the backward pass (at::RecordScope::BACKWARD_FUNCTION).
BACKWARD = 1
Nodes = Tuple[int, ...]


def profile(program: Any, steps: int, compiled: bool) -> Profile:
    """Run `steps` times, after one more. `compiled`: the whole network is Inductor's."""
    on_device = program.case.device == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_device else [])]
    with generated_named() if compiled else marked(program):
        run = program.run
        run()
        seconds = []
        with torch.profiler.profile(activities=activities, record_shapes=compiled) as profiler:
            for _ in range(steps):
                with record_function(STEP):
                    seconds.append(timed(run, perf_counter))
    with tempfile.TemporaryDirectory(prefix="layerbench-") as folder:
        file = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(file))
        trace = file.read_bytes()
    return Profile(runs(profiler.events(), program.graph, seconds, compiled, on_device), trace)


# ---- ranges with the names of the nodes ----------------------------------------------------------


@contextlib.contextmanager
def marked(program: Any) -> Iterator[None]:
    """Within the context, each node of the program's graph runs in a range with its name."""
    graph: Graph = program.graph
    with contextlib.ExitStack() as stack:
        for module, nodes in program.lowered.layers:
            name = " ".join(naming.scope(index, graph.nodes[index]) for index in nodes)
            stack.enter_context(_replaced(module, "forward", _in_range(module.forward, name)))
        for module in program.lowered.traced:
            stack.enter_context(_replaced(module, "forward", _interpreted(module, graph)))
        if graph.loss.node >= 0:
            name = naming.scope(graph.loss.node, graph.nodes[graph.loss.node])
            stack.enter_context(_replaced(program, "loss_of", _in_range(program.loss_of, name)))
        yield


def _in_range(call: Callable[..., Any], name: str) -> Callable[..., Any]:
    def ranged(*args: Any) -> Any:
        with record_function(name):
            return call(*args)

    return ranged


class _Marking(fx.Interpreter):
    """Runs a traced module, each of its nodes in a range with the name of the graph's node."""

    def __init__(self, module: fx.GraphModule, graph: Graph) -> None:
        super().__init__(module)
        self.nodes = graph.nodes

    def run_node(self, n: fx.Node) -> Any:
        index = n.meta.get("layerbench")
        if index is None:
            return super().run_node(n)
        with record_function(naming.scope(index, self.nodes[index])):
            return super().run_node(n)


def _interpreted(module: fx.GraphModule, graph: Graph) -> Callable[..., Any]:
    return lambda *args: _Marking(module, graph).run(*args)


@contextlib.contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Within the context, an attribute of an object, in place of that of its class."""
    setattr(owner, name, value)
    try:
        yield
    finally:
        delattr(owner, name)


@contextlib.contextmanager
def generated_named() -> Iterator[None]:
    """Within the context, each function that Inductor generated for the CPU runs in a range with its name."""
    cache = sys.modules.get("torch._inductor.codecache")
    modules: Sequence[Any] = getattr(getattr(cache, "PyCodeCache", None), "modules", ())
    with contextlib.ExitStack() as stack:
        for module in modules:
            for name, function in list(vars(module).items()):
                if name.startswith("cpp_") and callable(function):
                    stack.callback(setattr, module, name, function)
                    setattr(module, name, _in_range(function, name))
        yield


# ---- the events of the profiler ------------------------------------------------------------------


def runs(events: Any, graph: Graph, seconds: Sequence[float], compiled: bool, on_device: bool) -> List[Run]:
    """The runs in the profiler's events, one for each range STEP."""
    on_cpu = [event for event in events if event.device_type == torch.autograd.DeviceType.CPU]
    on_cpu.sort(key=lambda event: event.time_range.start)
    starts = [event.time_range.start for event in on_cpu if event.name == STEP]
    owners = _Owners(on_cpu, graph, compiled)
    found: List[Run] = []
    for index, (start, run_s) in enumerate(zip(starts, seconds)):
        end = starts[index + 1] if index + 1 < len(starts) else float("inf")
        within = [event for event in on_cpu if start <= event.time_range.start < end and event.name != STEP]
        parts = [part for event in within for part in _parts(event, owners.of(event), on_device)]
        found.append(Run(run_s, merged(parts)))
    return found


def _parts(event: Any, nodes: Nodes, on_device: bool) -> List[Kernel]:
    """The kernels of one event: those that it launched, or on the CPU itself, without the events within it."""
    if on_device:
        return [Kernel(kernel.name, nodes, kernel.duration / 1e6) for kernel in event.kernels]
    seconds = event.self_cpu_time_total / 1e6
    # Around its operators, a range has what Python costs, and more than in a step without ranges.
    return [Kernel("Python", (), seconds) if naming.indexes(event.name) else Kernel(event.name, nodes, seconds)]


class _Owners:
    """The nodes that each event belongs to: those of the innermost event around it that names or matches any."""

    def __init__(self, events: Sequence[Any], graph: Graph, compiled: bool) -> None:
        self.known: Dict[int, Nodes] = {}
        self.forward: Dict[int, Nodes] = {}
        if compiled:
            self._match(events, graph)
        for event in events:
            if event.scope != BACKWARD and event.sequence_nr >= 0 and self.of(event):
                # Of several operators with one number, the last one has the backward operator.
                self.forward[event.sequence_nr] = self.of(event)

    def of(self, event: Any) -> Nodes:
        if event.id in self.known:
            return self.known[event.id]
        nodes = naming.indexes(event.name)
        if not nodes and event.scope == BACKWARD and event.sequence_nr in self.forward:
            nodes = self.forward[event.sequence_nr]
        elif not nodes and event.cpu_parent is not None:
            return self.of(event.cpu_parent)
        elif not nodes:
            return ()
        self.known[event.id] = nodes
        return nodes

    def _match(self, events: Sequence[Any], graph: Graph) -> None:
        """Match the calls in each run of the compiled graph with the nodes."""
        for region in (event for event in events if event.name.startswith(COMPILED)):
            calls = sorted(region.cpu_children, key=lambda event: event.time_range.start)
            shapes = [[tuple(shape) for shape in call.input_shapes or ()] for call in calls]
            nodes = inductor.matched(graph, list(zip((call.name for call in calls), shapes)))
            self.known.update({call.id: of_call for call, of_call in zip(calls, nodes)})

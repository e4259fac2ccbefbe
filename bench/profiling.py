"""What the profiler of a framework measured: the kernels of a few steps, and the framework's own trace.

A backend reads its profiler's events, and says which nodes of the graph each kernel computes
(`bench/graph/naming.py`). `bench/results/profile.py` makes the table from that.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterable, List, Optional, Sequence, Tuple

# Steps that are profiled: as many as take about a second.
FEWEST, MOST, PROFILED_S = 6, 20, 1.0
# One of so many profiled steps is shown.
NEAREST = 3


class Unprofiled(Exception):
    """A program cannot be profiled; the text says why."""


@dataclass(frozen=True)
class Kernel:
    """One kernel of a framework in one run.

    nodes     the indexes of the graph's nodes that it computes; empty: it computes none of them
    seconds   the time of all its calls, without that of kernels that it called
    """

    name: str
    nodes: Tuple[int, ...]
    seconds: float
    calls: int = 1


@dataclass(frozen=True)
class Run:
    """One profiled run of a program: its seconds, and its kernels in the order of their first calls."""

    seconds: float
    kernels: Sequence[Kernel]


@dataclass(frozen=True)
class Profile:
    """The profiled runs of a program, and the trace: a JSON file in the format of Chrome's trace viewer."""

    runs: Sequence[Run]
    trace: bytes

    def nearest(self, run_s: float) -> Run:
        """The mean of the third of the runs whose times are nearest to the measured one: they explain that best, if the
        machine was busy for some of them. Raises Unprofiled if there is no run."""
        if not self.runs:
            raise Unprofiled("the profiler reported no step")
        ordered = sorted(self.runs, key=lambda run: abs(run.seconds - run_s))
        chosen = ordered[: max(1, len(ordered) // NEAREST)]
        total = merged(kernel for run in chosen for kernel in run.kernels)
        count = len(chosen)
        means = [Kernel(k.name, k.nodes, k.seconds / count, max(1, round(k.calls / count))) for k in total]
        return Run(sum(run.seconds for run in chosen) / count, means)


@dataclass(frozen=True)
class Event:
    """One interval that a profiler reports of one thread, in seconds.

    nodes   those that its name names; None: those of the event around it
    """

    name: str
    start: float
    end: float
    nodes: Optional[Tuple[int, ...]] = None


def steps(run_s: float) -> int:
    """The number of steps to profile, if one takes `run_s` seconds."""
    return max(FEWEST, min(MOST, round(PROFILED_S / max(run_s, 1e-9))))


def kernels(events: Iterable[Event]) -> List[Kernel]:
    """The kernels of one thread. The time of an event within another one is not counted twice."""
    found: Dict[Tuple[str, Tuple[int, ...]], List[float]] = {}
    # The open events, outermost first: the end, the key, and the nodes.
    open_events: List[Tuple[float, Tuple[str, Tuple[int, ...]]]] = []
    for event in sorted(events, key=lambda event: (event.start, -event.end)):
        while open_events and open_events[-1][0] <= event.start:
            open_events.pop()
        around = open_events[-1] if open_events else None
        nodes = event.nodes if event.nodes is not None else around[1][1] if around else ()
        key, seconds = (event.name, nodes), event.end - event.start
        if around:
            # Clocks are rounded: an event may seem to end after the one around it.
            found[around[1]][0] -= min(seconds, around[0] - event.start)
        totals = found.setdefault(key, [0.0, 0])
        totals[0] += seconds
        totals[1] += 1
        open_events.append((event.end, key))
    return [Kernel(name, nodes, max(0.0, total), int(calls)) for (name, nodes), (total, calls) in found.items()]


def merged(parts: Iterable[Kernel]) -> List[Kernel]:
    """The kernels, with those of one name and the same nodes added up."""
    found: Dict[Tuple[str, Tuple[int, ...]], Kernel] = {}
    for part in parts:
        key = (part.name, part.nodes)
        known = found.get(key, Kernel(part.name, part.nodes, 0.0, 0))
        found[key] = Kernel(part.name, part.nodes, known.seconds + part.seconds, known.calls + part.calls)
    return list(found.values())


def chrome_trace(rows: Iterable[Tuple[str, str, float, float, Dict[str, Any]]]) -> bytes:
    """A file for Chrome's trace viewer. A row is a thread, a name, the start, the seconds, and more facts."""
    threads: Dict[str, int] = {}
    events: List[Dict[str, Any]] = []
    for thread, name, start, seconds, facts in rows:
        number = threads.setdefault(thread, len(threads) + 1)
        times = {"ts": 1e6 * start, "dur": 1e6 * seconds}
        events.append({"ph": "X", "pid": 1, "tid": number, "name": name, **times, "args": facts})
    named = [
        {"ph": "M", "pid": 1, "tid": number, "name": "thread_name", "args": {"name": thread}}
        for thread, number in threads.items()
    ]
    return json.dumps({"displayTimeUnit": "ms", "traceEvents": named + events}, default=str).encode()


def timed(call: Callable[[], Any], clock: Callable[[], float]) -> float:
    """The seconds that a call takes."""
    start = clock()
    call()
    return clock() - start

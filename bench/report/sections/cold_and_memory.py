"""What a case costs before its first sample, and the memory that it takes."""

from __future__ import annotations

import statistics
from typing import List, Optional, Sequence

from bench.report import bars, cases
from bench.report.bars import Bar
from bench.report.content import Block, Figure, Section, Table
from bench.report.reading import Result, Run, newest, number, text
from bench.results import cold, units
from bench.results.record import Record

POSITION = 90
TIMES = {"compile_s": "compile, load, first step", "warmup_s": "warm-up"}
MEMORY = ("before the case", "of the case")


def section(runs: Sequence[Run]) -> Optional[Section]:
    """None if no record has a time of compilation or a peak of memory."""
    results = newest(runs)
    axes = cases.differing([result.record for result in results]) if results else []
    times = [_bar(result, axes, [number(result.record, name) or 0.0 for name in TIMES]) for result in results]
    memory = [_bar(result, axes, _memory(result)) for result in results]
    pictures, captions = [], []
    if any(any(bar.parts) for bar in times):
        pictures.append(
            bars.picture("Time to the first sample", "time", [*TIMES.values()], _longest(times), units.seconds)
        )
        captions.append("Seconds from the graph to the first sample, longest first.")
    if any(any(bar.parts) for bar in memory):
        pictures.append(bars.picture("Peak memory", "memory", MEMORY, _longest(memory), units.size))
        captions.append(
            "Peak resident memory of the worker: what was there before the case is the framework, and what earlier"
            " cases in the same worker left."
        )
    if not pictures:
        return None
    if len(results) > bars.MOST:
        captions.append(f"The first {bars.MOST} of {len(results)} are drawn.")
    rows = [
        [*bars.row(of_time, units.seconds), *bars.row(of_memory, units.size)[2:]]
        for of_time, of_memory in zip(times, memory)
    ]
    table = Table(bars.columns([*TIMES.values(), *(f"memory {part}" for part in MEMORY)]), rows)
    return Section("Cold path and memory", [Figure(pictures, " ".join(captions), table), *_cold_path(results, axes)])


def _cold_path(results: Sequence[Result], axes: Sequence[str]) -> List[Block]:
    """What --cold measured: the phases of fresh processes, with empty and with filled caches."""
    found: List[Bar] = []
    for result in results:
        for state in cold.CACHES:
            medians = [_median(result.record, state, phase) for phase in cold.PHASES]
            if any(medians):
                found.append(_bar(result, axes, medians)._replace(label=f"{_label(result, axes)}, {state}"))
    if not found:
        return []
    caption = (
        "Seconds of each phase of a fresh process, the median of several. cold: the framework's caches were empty;"
        " warm: they were filled. The first step is a part of compile."
    )
    parts = [phase[: -len("_s")].replace("_", " ") for phase in cold.PHASES]
    picture = bars.picture("Phases of a fresh process", "time", parts, found, units.seconds)
    table = Table(bars.columns(parts), [bars.row(bar, units.seconds) for bar in found])
    return [Figure([picture], caption, table, brief=True)]


def _median(record: Record, state: str, phase: str) -> float:
    """The median seconds of a phase over the processes that know it; 0: none does."""
    states = record.get("cold")
    processes = states.get(state) if isinstance(states, dict) else None
    each = [process for process in processes if isinstance(process, dict)] if isinstance(processes, list) else []
    values = [value for value in (number(process, phase) for process in each) if value is not None]
    return max(0.0, statistics.median(values)) if values else 0.0


def _label(result: Result, axes: Sequence[str]) -> str:
    return cases.label(result.record, axes)


def _longest(found: Sequence[Bar]) -> List[Bar]:
    return sorted((bar for bar in found if any(bar.parts)), key=lambda bar: -sum(bar.parts))


def _bar(result: Result, axes: Sequence[str], parts: Sequence[float]) -> Bar:
    record = result.record
    return Bar(_label(result, axes), record["id"], text(record, "backend"), [max(0.0, part) for part in parts])


def _memory(result: Result) -> List[float]:
    """The two parts of the peak, in bytes."""
    peak = number(result.record, "memory_peak_bytes") or 0.0
    case = min(max(0.0, number(result.record, "memory_case_bytes") or 0.0), peak)
    return [peak - case, case]

"""What a case costs before its first sample, and the memory that it takes."""

from __future__ import annotations

from typing import List, Optional, Sequence

from bench.report import bars, cases
from bench.report.bars import Bar
from bench.report.content import Figure, Section, Table
from bench.report.reading import Result, Run, newest, number, text
from bench.results import units

POSITION = 90
COLD = {"compile_s": "compile, load, first step", "warmup_s": "warm-up"}
MEMORY = ("before the case", "of the case")


def section(runs: Sequence[Run]) -> Optional[Section]:
    """None if no record has a time of compilation or a peak of memory."""
    results = newest(runs)
    axes = cases.differing([result.record for result in results]) if results else []
    cold = [_bar(result, axes, [number(result.record, name) or 0.0 for name in COLD]) for result in results]
    memory = [_bar(result, axes, _memory(result)) for result in results]
    pictures, captions = [], []
    if any(any(bar.parts) for bar in cold):
        pictures.append(
            bars.picture("Time to the first sample", "time", [*COLD.values()], _longest(cold), units.seconds)
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
        for of_time, of_memory in zip(cold, memory)
    ]
    table = Table(bars.columns([*COLD.values(), *(f"memory {part}" for part in MEMORY)]), rows)
    return Section("Cold path and memory", [Figure(pictures, " ".join(captions), table)])


def _longest(found: Sequence[Bar]) -> List[Bar]:
    return sorted((bar for bar in found if any(bar.parts)), key=lambda bar: -sum(bar.parts))


def _bar(result: Result, axes: Sequence[str], parts: Sequence[float]) -> Bar:
    record = result.record
    return Bar(cases.label(record, axes), record["id"], text(record, "backend"), [max(0.0, part) for part in parts])


def _memory(result: Result) -> List[float]:
    """The two parts of the peak, in bytes."""
    peak = number(result.record, "memory_peak_bytes") or 0.0
    case = min(max(0.0, number(result.record, "memory_case_bytes") or 0.0), peak)
    return [peak - case, case]

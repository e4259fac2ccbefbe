"""What a case costs before its first sample, and the memory that it takes."""

from __future__ import annotations

from typing import List, Optional, Sequence

from bench.report import bars, cases
from bench.report.bars import Bar
from bench.report.content import Block, Section
from bench.report.reading import Result, Run, newest, number, text
from bench.results import units

POSITION = 90
COLD = {"compile_s": "compile, load, first step", "warmup_s": "warm-up"}
MEMORY = ("before the case", "of the case")


def section(runs: Sequence[Run]) -> Optional[Section]:
    """None if no record has a time of compilation or a peak of memory."""
    results = newest(runs)
    axes = cases.differing([result.record for result in results]) if results else []
    blocks: List[Block] = []
    compiled = [_bar(result, axes, [number(result.record, name) or 0.0 for name in COLD]) for result in results]
    compiled = [bar for bar in compiled if any(bar.parts)]
    if compiled:
        caption = "Seconds from the graph to the first sample, longest first."
        found = sorted(compiled, key=lambda bar: -sum(bar.parts))
        blocks.append(
            bars.figure("Time to the first sample", "time", list(COLD.values()), found, units.seconds, caption)
        )
    memory = [_bar(result, axes, _memory(result)) for result in results if number(result.record, "memory_peak_bytes")]
    if memory:
        caption = (
            "Peak resident memory of the worker. What was there before the case is the framework, and what earlier"
            " cases in the same worker left."
        )
        found = sorted(memory, key=lambda bar: -sum(bar.parts))
        blocks.append(bars.figure("Peak memory", "memory", MEMORY, found, units.size, caption))
    return Section("Cold path and memory", blocks) if blocks else None


def _bar(result: Result, axes: Sequence[str], parts: Sequence[float]) -> Bar:
    record = result.record
    return Bar(cases.label(record, axes), record["id"], text(record, "backend"), [max(0.0, part) for part in parts])


def _memory(result: Result) -> List[float]:
    """The two parts of the peak, in bytes."""
    peak = number(result.record, "memory_peak_bytes") or 0.0
    case = min(max(0.0, number(result.record, "memory_case_bytes") or 0.0), peak)
    return [peak - case, case]

"""The input pipeline: what an image costs in reading and decoding, in its way to the device, and in the network."""

from __future__ import annotations

from typing import List, Optional, Sequence

from bench.report import bars, cases
from bench.report.bars import Bar
from bench.report.content import Block, Figure, Note, Section, Table
from bench.report.reading import Run, newest, number, text
from bench.results import units

POSITION = 80
PARTS = ("pipeline", "transfer", "compute")


def section(runs: Sequence[Run]) -> Optional[Section]:
    """None if no case had real images."""
    results = [result for result in newest(runs) if number(result.record, "pipeline_items_per_s")]
    if not results:
        return None
    axes = cases.differing([result.record for result in results])
    found, notes = [], []
    for result in results:
        record, label = result.record, cases.label(result.record, axes)
        rate = number(record, "pipeline_items_per_s") or 0.0
        times = [1 / rate] + [number(record, f"{part}_s_per_item") or 0.0 for part in PARTS[1:]]
        found.append(Bar(label, record["id"], text(record, "backend"), [max(0.0, value) for value in times]))
        if text(record, "bound_by"):
            notes.append(Note(f"{label}, {text(record, 'backend')}: {text(record, 'bound_by')}."))
    caption = "Seconds of each part for one image. They run at the same time, so the longest one sets the rate."
    picture = bars.picture("Input pipeline", "time of an image", PARTS, found, units.seconds)
    table = Table(bars.columns(PARTS), [bars.row(bar, units.seconds) for bar in found])
    blocks: List[Block] = [Figure([picture], caption, table, brief=True), *notes[: bars.MOST]]
    return Section("Input pipeline", blocks)

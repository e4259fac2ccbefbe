"""The roofline: arithmetic over its intensity, below the peaks that were measured on the machine."""

from __future__ import annotations

from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

from bench.clock.roofline import LEVELS
from bench.report import cases
from bench.report.content import Block, Cell, Column, Figure, Section, Table
from bench.report.drawing import Plot, logarithmic, plain, style
from bench.report.reading import Result, Run, newest, number, text
from bench.results import units
from bench.results.record import Record

POSITION = 40
# A roof belongs to these: another precision, device or number of threads has another one.
ROOF = ("precision", "device", "replicas")
ROUNDING = 1.001
# Sources of roofs that a caption names.
MOST_SOURCES = 6
NAMES = ("tflops", "peak_tflops", "peak_gbytes_per_s", "flops_per_item", "bytes_per_item")


class Spot(NamedTuple):
    """A case under its roof. Rates are in FLOP/s and bytes/s; `intensity` is in FLOP/byte; `level` is in bytes."""

    record: Record
    intensity: float
    flops: float
    peak: float
    bandwidth: float
    level: int

    @property
    def roof(self) -> float:
        """The most FLOP/s that are possible at this intensity."""
        return min(self.peak, self.intensity * self.bandwidth)

    @property
    def above(self) -> bool:
        return self.flops > ROUNDING * self.roof


def section(runs: Sequence[Run]) -> Optional[Section]:
    """None if no record has its roof."""
    groups: Dict[Tuple[str, ...], List[Spot]] = {}
    for result in newest(runs):
        found = spot(result)
        if found is not None:
            key = (*(cases.axis(result.record, name) for name in ROOF), text(result.record, "threads"))
            groups.setdefault(key, []).append(found)
    blocks: List[Block] = [_figure(spots, len(groups) > 1) for spots in groups.values()]
    return Section("Roofline", blocks) if blocks else None


def spot(result: Result) -> Optional[Spot]:
    """The place of a case; None if its record lacks a rate or a peak."""
    record = result.record
    values = {name: number(record, name) for name in NAMES}
    if any(value is None or value <= 0 for value in values.values()):
        return None
    tflops, peak, bandwidth, flop, moved = (float(values[name] or 0) for name in NAMES)
    return Spot(record, flop / moved, tflops * 1e12, peak * 1e12, bandwidth * 1e9, _level(record, moved))


def _level(record: Record, bytes_per_item: float) -> int:
    """The working set by whose bandwidth the case was judged: the largest measured one that is not above its own."""
    batches = (number(record, "batches_per_step") or 1) * (number(record, "batches_in_flight") or 1)
    moved = bytes_per_item * (number(record, "items_per_step") or 0) / batches
    return max([level for level in LEVELS if level <= moved] or [LEVELS[0]])


def _levels(spots: Sequence[Spot]) -> Dict[int, float]:
    """The bandwidth of each working set. A case that raised it counts for all."""
    found: Dict[int, float] = {}
    for each in spots:
        found[each.level] = max(each.bandwidth, found.get(each.level, 0.0))
    return dict(sorted(found.items()))


def _figure(spots: Sequence[Spot], several: bool) -> Figure:
    records = [each.record for each in spots]
    threads = text(records[0], "threads")
    same = ", ".join(cases.axis(records[0], name) for name in ("precision", "device"))
    title = f"{same}, {threads} thread{'' if threads == '1' else 's'}"
    if records[0]["replicas"] != 1:
        title += f", {cases.axis(records[0], 'replicas')}"
    axes = cases.differing(records)
    peak, levels = max(each.peak for each in spots), _levels(spots)
    plot = Plot(f"Roofline: {title}", title)
    plot.legend(cases.backends([Result(record) for record in records]))
    plot.top += _key(plot, levels)
    intensities = [each.intensity for each in spots] + [peak / bandwidth for bandwidth in levels.values()]
    plot.x = logarithmic(intensities, plot.LEFT, plot.RIGHT, 1.8)
    plot.y = logarithmic([peak, *(each.flops for each in spots)], plot.BOTTOM, plot.top, 1.8)
    plot.axes("FLOP / byte", "FLOP / s", plain, plain)
    _roofs(plot, peak, levels)
    for each in sorted(spots, key=lambda one: one.above):
        name = f"{cases.label(each.record, axes)}, {text(each.record, 'backend')}: {_share(each)}"
        plot.mark(
            plot.x(each.intensity), plot.y(each.flops), style(each.record["backend"]), name, "bad" if each.above else ""
        )
    above = sum(each.above for each in spots)
    caption = f"{title}: a mark is a case. Roofs are the peaks measured on this machine, per size of the working set."
    sources = sorted({text(each.record, "peak_library", 90) for each in spots} - {""})
    if sources and len(sources) <= MOST_SOURCES:
        caption += f" They are from {'; '.join(sources)}."
    if above:
        caption += f" {above} above the roof, in red: the peak was measured too low, or the case does not do its work."
    return Figure([plot.svg()], caption, _table(spots, axes))


def _key(plot: Plot, levels: Dict[int, float]) -> float:
    """The names of the slanted roofs, two in a line below the legend. Returns the height that they take."""
    for index, (level, bandwidth) in enumerate(levels.items()):
        x, y = plot.LEFT + 200 * (index % 2), plot.top + 6 + 16 * (index // 2)
        plot.rule(x, y - 4, x + 28, y - 4, f"r r{LEVELS.index(level)}")
        plot.text(x + 34, y, f"{units.size(level)}: {units.si(bandwidth, 'B/s')}", "n")
    return 16.0 * ((len(levels) + 1) // 2) + 8


def _roofs(plot: Plot, peak: float, levels: Dict[int, float]) -> None:
    """The level roof with its name, and a slanted one for each size of the working set."""
    turn = peak / max(levels.values())
    plot.rule(plot.x.clipped(turn), plot.y(peak), plot.RIGHT, plot.y(peak), "r")
    plot.text(plot.RIGHT, plot.y(peak) - 6, f"peak {_flops(peak)}", "n", "end")
    for level, bandwidth in levels.items():
        low, end = max(plot.x.low, plot.y.low / bandwidth), peak / bandwidth
        if low < end:
            ends = plot.x(low), plot.y(low * bandwidth), plot.x(end), plot.y(peak)
            plot.rule(*ends, f"r r{LEVELS.index(level)}")


def _flops(value: float) -> str:
    return units.si(value, "FLOP/s")


def _share(each: Spot) -> str:
    return f"{100 * each.flops / each.roof:.3g} % of its roof"


def _table(spots: Sequence[Spot], axes: Sequence[str]) -> Table:
    heads = ("FLOP/byte", "FLOP/s", "roof", "of roof", "working set")
    rows = []
    for each in spots:
        rows.append(
            [
                Cell(cases.label(each.record, axes), case=each.record["id"]),
                Cell(text(each.record, "backend"), look=each.record["backend"]),
                Cell(f"{each.intensity:.3g}"),
                Cell(units.short(each.flops)),
                Cell(units.short(each.roof)),
                Cell(f"{100 * each.flops / each.roof:.3g} %", bad=each.above),
                Cell(units.size(each.level)),
            ]
        )
    return Table([Column("case"), Column("framework"), *(Column(head, number=True) for head in heads)], rows)

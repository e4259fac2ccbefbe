"""Frameworks by batch size: the rate over the batch, and the latency against the rate."""

from __future__ import annotations

from typing import Dict, List, Optional, Sequence, Tuple

from bench.report import cases
from bench.report.content import Block, Cell, Column, Figure, Note, Section, Table
from bench.report.drawing import Plot, logarithmic, plain, style
from bench.report.reading import Result, Run, newest, number, text
from bench.results import units
from bench.results.fields import nearest_rank

POSITION = 30
# The pictures of each kind.
MOST = 12
# The shares of the samples at the ends of a whisker.
ENDS = (0.1, 0.9)


def section(runs: Sequence[Run]) -> Optional[Section]:
    """None if no case was measured at several batch sizes."""
    groups = [group for group in cases.grouped(_with_rate(newest(runs)), cases.GROUP).values() if _varies(group)]
    if not groups:
        return None
    axes = cases.differing([result.record for group in groups for result in group], cases.GROUP)
    blocks: List[Block] = []
    for group in groups[:MOST]:
        label = cases.label(group[0].record, axes)
        latency = [result for result in group if number(result.record, "latency_p50_s")]
        pictures = [_rates(group, label), *([_latencies(latency, label)] if len(latency) > 1 else [])]
        blocks.append(Figure(pictures, _caption(group, label), _table(group)))
    if len(groups) > MOST:
        blocks.append(Note(f"{len(groups) - MOST} more are only in the table of results."))
    return Section("Frameworks by batch size", blocks)


def _with_rate(results: Sequence[Result]) -> List[Result]:
    return [result for result in results if (number(result.record, "items_per_s") or 0) > 0]


def _varies(group: Sequence[Result]) -> bool:
    return len({result.record["batch_size"] for result in group}) > 1


def _lines(group: Sequence[Result]) -> Dict[str, List[Result]]:
    """The results of each framework, by batch size."""
    lines: Dict[str, List[Result]] = {}
    for result in sorted(group, key=lambda each: number(each.record, "batch_size") or 0):
        lines.setdefault(text(result.record, "backend"), []).append(result)
    return dict(sorted(lines.items()))


def ends(result: Result) -> Optional[Tuple[float, float]]:
    """The rates that 80 % of the samples lie between, the lower one first; None: the file has no samples."""
    items = number(result.record, "items_per_step")
    if not result.samples or not items:
        return None
    ordered = sorted(result.samples)
    fast, slow = (nearest_rank(ordered, share) for share in ENDS)
    return items / slow, items / fast


def _value(result: Result, name: str) -> float:
    return number(result.record, name) or 0.0


def _rates(group: Sequence[Result], label: str) -> str:
    """The rate over the batch size, a line for each framework, with whiskers."""
    plot = Plot(f"Rate by batch size: {label}", f"{label}: rate by batch size")
    item = text(group[0].record, "item", 20)
    spans = {result.record["id"]: ends(result) for result in group}
    rates = [_value(result, "items_per_s") for result in group]
    rates += [rate for span in spans.values() if span for rate in span]
    batches = sorted({_value(result, "batch_size") for result in group})
    plot.x = logarithmic(batches, plot.LEFT + 10, plot.RIGHT - 10)
    plot.y = logarithmic(rates, plot.BOTTOM, plot.top)
    plot.legend(list(_lines(group)))
    plot.axes("batch size", f"{item}s / s", plain, plain, batches)
    lines = _lines(group)
    for index, (backend, line) in enumerate(lines.items()):
        look = style(backend)
        # Side by side, so that whiskers do not cover each other.
        aside = 3.0 * (index - (len(lines) - 1) / 2)
        points = [(plot.x(_value(each, "batch_size")) + aside, plot.y(_value(each, "items_per_s"))) for each in line]
        plot.line(points, look.colour)
        for result, (x, y) in zip(line, points):
            span = spans[result.record["id"]]
            name = f"{backend}, batch {result.record['batch_size']:g}: {units.rate(_value(result, 'items_per_s'))}"
            name += f" {item}s/s"
            if span:
                plot.whisker(x, plot.y(span[0]), plot.y(span[1]), look.colour)
                name += f" (80 %: {units.rate(span[0])} to {units.rate(span[1])})"
            plot.mark(x, y, look, name)
    return plot.svg()


def _latencies(group: Sequence[Result], label: str) -> str:
    """The latency against the rate: p50 as marks on a line, p99 as hollow marks above."""
    plot = Plot(f"Latency against rate: {label}", f"{label}: latency against rate")
    both = [_value(result, "latency_p50_s") for result in group]
    both += [value for value in (number(result.record, "latency_p99_s") for result in group) if value]
    plot.x = logarithmic([_value(result, "items_per_s") for result in group], plot.LEFT + 10, plot.RIGHT - 10)
    plot.y = logarithmic(both, plot.BOTTOM, plot.top)
    plot.legend(list(_lines(group)))
    item = text(group[0].record, "item", 20)
    plot.axes(f"{item}s / s", "latency of a batch", plain, units.seconds)
    for backend, line in _lines(group).items():
        look = style(backend)
        points = [(plot.x(_value(each, "items_per_s")), plot.y(_value(each, "latency_p50_s"))) for each in line]
        plot.line(points, look.colour)
        for result, (x, y) in zip(line, points):
            head = f"{backend}, batch {result.record['batch_size']:g}"
            p50, p99 = _value(result, "latency_p50_s"), number(result.record, "latency_p99_s")
            if p99:
                plot.whisker(x, y, plot.y(p99), look.colour, caps=False)
                plot.mark(x, plot.y(p99), look, f"{head}: p99 {units.seconds(p99)}", "o")
            plot.mark(x, y, look, f"{head}: p50 {units.seconds(p50)}")
    return plot.svg()


def _caption(group: Sequence[Result], label: str) -> str:
    caption = f"{label}. Whiskers span the rates of 80 % of the steps."
    if any(number(result.record, "latency_p50_s") for result in group):
        caption += " Filled marks are p50, hollow ones p99; a line goes from the smallest batch to the largest."
    return caption


def _table(group: Sequence[Result]) -> Table:
    heads = ("80 % from", "to", "p50", "p99")
    columns = [Column("framework"), Column("batch", number=True), Column("items/s", number=True)]
    columns += [Column(head, number=True) for head in heads]
    rows = []
    for backend, line in _lines(group).items():
        for result in line:
            span = ends(result) or (None, None)
            latencies = [number(result.record, f"latency_{rank}_s") for rank in ("p50", "p99")]
            rows.append(
                [
                    Cell(backend, case=result.record["id"], look=backend),
                    Cell(f"{result.record['batch_size']:g}"),
                    Cell(units.rate(_value(result, "items_per_s"))),
                    *(Cell("" if value is None else units.rate(value)) for value in span),
                    *(Cell("" if value is None else units.seconds(value)) for value in latencies),
                ]
            )
    return Table(columns, rows)

"""Data-parallel training: the rate by the number of replicas, how it scales, and what the exchange takes of a step."""

from __future__ import annotations

from typing import Dict, List, Optional, Sequence

from bench.report import cases
from bench.report.content import Block, Cell, Column, Figure, Section, Table
from bench.report.drawing import Plot, linear, logarithmic, percent, plain, style
from bench.report.reading import Result, Run, newest, number, text
from bench.results import units

POSITION = 70
AXES = tuple(name for name in cases.COMPARED if name != "replicas")


def section(runs: Sequence[Run]) -> Optional[Section]:
    """None if every case has one replica."""
    blocks: List[Block] = []
    groups = cases.grouped([result for result in newest(runs) if number(result.record, "items_per_s")], AXES)
    several = [group for group in groups.values() if any(result.record["replicas"] != 1 for result in group)]
    axes = cases.differing([result.record for group in several for result in group], AXES)
    for group in several:
        label = cases.label(group[0].record, axes)
        pictures = [_rates(group, label)]
        if any(_exchange(result) is not None for result in group):
            pictures.append(_exchanges(group, label))
        caption = f"{label}: rate of all replicas; the dashed line is that many times the rate of one."
        blocks.append(Figure(pictures, caption, _table(group), brief=True))
    return Section("Replicas", blocks) if blocks else None


def _lines(group: Sequence[Result]) -> Dict[str, List[Result]]:
    lines: Dict[str, List[Result]] = {}
    for result in sorted(group, key=lambda each: number(each.record, "replicas") or 0):
        lines.setdefault(text(result.record, "backend"), []).append(result)
    return dict(sorted(lines.items()))


def _value(result: Result, name: str) -> float:
    return number(result.record, name) or 0.0


def _exchange(result: Result) -> Optional[float]:
    return number(result.record, "all_reduce_percent")


def _rates(group: Sequence[Result], label: str) -> str:
    plot = Plot(f"Rate by replicas: {label}", label)
    counts = sorted({_value(result, "replicas") for result in group})
    item = text(group[0].record, "item", 20)
    ideal = {name: _ideal(line, counts) for name, line in _lines(group).items()}
    rates = [_value(result, "items_per_s") for result in group] + [rate for line in ideal.values() for rate in line]
    plot.x = logarithmic(counts, plot.LEFT + 10, plot.RIGHT - 10)
    plot.y = linear(rates, plot.BOTTOM, plot.top)
    plot.legend(list(_lines(group)))
    plot.axes("replicas", f"{item}s / s", plain, plain, counts)
    for backend, line in _lines(group).items():
        look = style(backend)
        if ideal[backend]:
            plot.line([(plot.x(n), plot.y(rate)) for n, rate in zip(counts, ideal[backend])], look.colour, "dash")
        points = [(plot.x(_value(each, "replicas")), plot.y(_value(each, "items_per_s"))) for each in line]
        plot.line(points, look.colour)
        for result, (x, y) in zip(line, points):
            name = f"{backend}, {cases.axis(result.record, 'replicas')}: {units.rate(_value(result, 'items_per_s'))}"
            scaling = number(result.record, "scaling_percent")
            plot.mark(x, y, look, f"{name} {item}s/s" + ("" if scaling is None else f", {scaling:.3g} % of ideal"))
    return plot.svg()


def _ideal(line: Sequence[Result], counts: Sequence[float]) -> List[float]:
    """The rate of one replica times each number; empty without that rate."""
    single = [_value(result, "items_per_s") for result in line if result.record["replicas"] == 1]
    return [count * single[0] for count in counts] if single else []


def _exchanges(group: Sequence[Result], label: str) -> str:
    plot = Plot(f"Share of the exchange: {label}", "exchange of gradients")
    counts = sorted({_value(result, "replicas") for result in group})
    known = [result for result in group if _exchange(result) is not None]
    plot.x = logarithmic(counts, plot.LEFT + 10, plot.RIGHT - 10)
    plot.y = linear([_exchange(result) or 0.0 for result in known], plot.BOTTOM, plot.top)
    plot.legend(list(_lines(known)))
    plot.axes("replicas", "share of a step", plain, percent, counts)
    for backend, line in _lines(known).items():
        look = style(backend)
        points = [(plot.x(_value(each, "replicas")), plot.y(_exchange(each) or 0.0)) for each in line]
        plot.line(points, look.colour)
        for result, (x, y) in zip(line, points):
            plot.mark(x, y, look, f"{backend}, {cases.axis(result.record, 'replicas')}: {_exchange(result):.3g} %")
    return plot.svg()


def _table(group: Sequence[Result]) -> Table:
    heads = ("replicas", "items/s", "of ideal", "exchange")
    rows = []
    for backend, line in _lines(group).items():
        for result in line:
            scaling, exchange = number(result.record, "scaling_percent"), _exchange(result)
            rows.append(
                [
                    Cell(backend, case=result.record["id"], look=backend),
                    Cell(f"{_value(result, 'replicas'):g}"),
                    Cell(units.rate(_value(result, "items_per_s"))),
                    Cell("" if scaling is None else f"{scaling:.3g} %"),
                    Cell("" if exchange is None else f"{exchange:.3g} %"),
                ]
            )
    return Table([Column("framework"), *(Column(head, number=True) for head in heads)], rows)

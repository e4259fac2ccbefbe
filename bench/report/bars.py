"""Rows of stacked bars, for the parts of one quantity."""

from __future__ import annotations

from typing import Callable, List, NamedTuple, Sequence

from bench.report.content import Cell, Column, Figure, Table
from bench.report.drawing import Rows, linear

# The rows of a picture.
MOST = 40


class Bar(NamedTuple):
    """A row: its label, the id of its case and its framework, and the value of each part, in order; 0: it has none."""

    label: str
    case: str
    backend: str
    parts: Sequence[float]


def figure(
    name: str, below: str, parts: Sequence[str], bars: Sequence[Bar], write: Callable[[float], str], caption: str
) -> Figure:
    """Stacked bars with their table. `parts` are the names of the parts; `below` is the title of the axis."""
    shown = bars[:MOST]
    picture = Rows(name, [f"{bar.label} {bar.backend}" for bar in shown])
    picture.x = linear([sum(bar.parts) for bar in shown], picture.left, picture.right - 8)
    picture.axis(below, write, picture.x.ticks(6))
    picture.legend([(part, None, f"s{index}") for index, part in enumerate(parts, 1)])
    for index, bar in enumerate(shown):
        start = 0.0
        for number, (part, value) in enumerate(zip(parts, bar.parts), 1):
            if value > 0:
                ends = picture.x(start), picture.x(start + value)
                title = f"{bar.label}, {bar.backend}, {part}: {write(value)}"
                picture.box(ends[0], picture.middle(index) - 8, ends[1], picture.middle(index) + 8, f"s{number}", title)
                start += value
    rows: List[List[Cell]] = []
    for bar in bars:
        cells = [Cell("" if not value else write(value), value) for value in (*bar.parts, sum(bar.parts))]
        rows.append([Cell(bar.label, case=bar.case), Cell(bar.backend, look=bar.backend), *cells])
    heads = (*parts, *(["sum"] if len(parts) > 1 else []))
    columns = [Column("case"), Column("framework"), *(Column(head, number=True) for head in heads)]
    return Figure([picture.svg()], caption, Table(columns, [row[: len(columns)] for row in rows]))

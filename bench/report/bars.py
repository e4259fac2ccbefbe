"""Rows of stacked bars, for the parts of one quantity."""

from __future__ import annotations

from typing import Callable, List, NamedTuple, Sequence

from bench.report.content import Cell, Column
from bench.report.drawing import Rows, linear

# The rows of a picture.
MOST = 16


class Bar(NamedTuple):
    """A row: its label, the id of its case and its framework, and the value of each part, in order; 0: it has none."""

    label: str
    case: str
    backend: str
    parts: Sequence[float]


def picture(name: str, below: str, parts: Sequence[str], bars: Sequence[Bar], write: Callable[[float], str]) -> str:
    """The first rows as stacked bars. `parts` are the names of the parts; `below` is the title of the axis."""
    shown = bars[:MOST]
    made = Rows(name, [f"{bar.label} {bar.backend}" for bar in shown])
    made.x = linear([sum(bar.parts) for bar in shown], made.left, made.right - 8)
    made.axis(below, write, made.x.ticks(6))
    made.legend([(part, None, f"s{index}") for index, part in enumerate(parts, 1)])
    for index, bar in enumerate(shown):
        start = 0.0
        for number, (part, value) in enumerate(zip(parts, bar.parts), 1):
            if value > 0:
                ends = made.x(start), made.x(start + value)
                title = f"{bar.label}, {bar.backend}, {part}: {write(value)}"
                made.box(ends[0], made.middle(index) - 8, ends[1], made.middle(index) + 8, f"s{number}", title)
                start += value
    return made.svg()


def row(bar: Bar, write: Callable[[float], str]) -> List[Cell]:
    """The row of a bar in a table: its case, its framework and its parts."""
    parts = [Cell(write(value) if value else "") for value in bar.parts]
    return [Cell(bar.label, case=bar.case), Cell(bar.backend, look=bar.backend), *parts]


def columns(parts: Sequence[str]) -> List[Column]:
    """The columns of such rows."""
    return [Column("case"), Column("framework"), *(Column(part, number=True) for part in parts)]

"""What each operation of a case costs, as --profile measured it, and what is outside of operations."""

from __future__ import annotations

from typing import Any, List, Mapping, Optional, Sequence

from bench.report import cases
from bench.report.content import Block, Cell, Column, Figure, Note, Section, Table
from bench.report.drawing import Rows, linear, percent, style
from bench.report.reading import Result, Run, newest, number, shortened, text
from bench.results import units

POSITION = 45
# The cases that are shown, the rows of a picture and those of a table.
CASES, DRAWN, LISTED = 12, 12, 40


def section(runs: Sequence[Run]) -> Optional[Section]:
    """None if no case was profiled."""
    results = [result for result in newest(runs) if _rows(result)]
    if not results:
        return None
    axes = [*cases.differing([result.record for result in results]), "backend"]
    blocks: List[Block] = [_figure(result, cases.label(result.record, axes)) for result in results[:CASES]]
    if len(results) > CASES:
        blocks.append(Note(f"{len(results) - CASES} more profiles are in the file."))
    return Section("Profile", blocks)


def _rows(result: Result) -> List[Mapping[str, Any]]:
    """The rows of a profile that have a share."""
    found = result.record.get("profile")
    rows = [row for row in found if isinstance(row, dict)] if isinstance(found, list) else []
    return [row for row in rows if number(row, "share_percent") is not None]


def _names(row: Mapping[str, Any], name: str) -> str:
    """Names of operations or kernels."""
    found = row.get(name)
    return shortened(", ".join(map(str, found)), 90) if isinstance(found, list) else ""


def _share(row: Mapping[str, Any]) -> float:
    return number(row, "share_percent") or 0.0


def _figure(result: Result, label: str) -> Figure:
    """The shares of the largest operations, and of what is outside of them, which is the last row of a profile."""
    *operations, outside = _rows(result)
    shown = [*operations[: DRAWN - 1], outside]
    picture = Rows(f"Profile of {label}", [_names(row, "operations") for row in shown])
    picture.x = linear([max(0.0, _share(row)) for row in shown], picture.left, picture.right - 8)
    picture.text(0, 18, label, "t")
    picture.axis("share of a step", percent)
    colour = style(text(result.record, "backend")).colour
    for index, row in enumerate(shown):
        ends = picture.x(0.0), picture.x(max(0.0, _share(row)))
        name = f"{_names(row, 'operations')}: {_share(row):.1f} %"
        picture.box(ends[0], picture.middle(index) - 7, ends[1], picture.middle(index) + 7, f"b c{colour}", name)
    step = number(result.record, "profile_step_s")
    caption = f"{label}: shares of a step{'' if step is None else f' of {units.seconds(step)}'}, the largest first."
    trace = text(result.record, "profile_trace", 80)
    if trace:
        caption += f" The framework's own trace is {trace}: open it at ui.perfetto.dev."
    return Figure([picture.svg()], caption, _table([*operations[: LISTED - 1], outside]))


def _table(rows: Sequence[Mapping[str, Any]]) -> Table:
    columns = [Column("operation"), Column("kernel")]
    columns += [Column(head, number=True) for head in ("share", "time", "calls", "of peak")]
    made = []
    for row in rows:
        seconds, peak = number(row, "seconds"), number(row, "percent_of_peak")
        made.append(
            [
                Cell(_names(row, "operations")),
                Cell(_names(row, "kernels")),
                Cell(f"{_share(row):.1f} %"),
                Cell("" if seconds is None else f"{'-' if seconds < 0 else ''}{units.seconds(abs(seconds))}"),
                Cell(text(row, "calls", 12)),
                Cell("" if peak is None else f"{peak:.3g} %"),
            ]
        )
    return Table(columns, made)

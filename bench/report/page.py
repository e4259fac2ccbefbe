"""Writes a report as one HTML file: style, script and pictures are in it, and it loads nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Dict, List, Mapping, NamedTuple, Sequence

from bench.report.content import Cell, Figure, Section, Table
from bench.report.drawing import STYLES
from bench.report.reading import Run, text

FOLDER = Path(__file__).resolve().parent
# A longer text in a cell is wrapped.
LONG = 48


class Prepared(NamedTuple):
    """A cell with its classes in page.css, and the id of the row that it links to."""

    cell: Cell
    classes: str
    link: str


class Row(NamedTuple):
    """A row of a table; `anchor` is its id."""

    anchor: str
    cells: List[Prepared]


def render(runs: Sequence[Run], sections: Mapping[str, Section]) -> str:
    """The page of these sections."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(str(FOLDER)),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    anchors = _anchors(sections)
    return environment.get_template("page.html.j2").render(
        title=title(runs),
        css=Markup((FOLDER / "page.css").read_text(encoding="utf-8")),
        script=Markup((FOLDER / "page.js").read_text(encoding="utf-8")),
        sections=sections,
        kind_of=lambda block: type(block).__name__,
        numbers=_numbers,
        prepared=lambda table: _rows(table, anchors),
    )


def title(runs: Sequence[Run]) -> str:
    """The title of a report: the machine and the date."""
    if not runs:
        return "layerbench report"
    run = runs[-1]
    cpu = run.machine.get("layerbench")
    model = text(cpu, "model", 60) if isinstance(cpu, dict) else ""
    return ", ".join(part for part in (f"layerbench report: {model or run.name}", run.when) if part)


def _anchors(sections: Mapping[str, Section]) -> Dict[str, str]:
    """The ids of the rows of cases, by the ids of the cases."""
    cases = [cell.row for table in tables(sections) for row in table.rows for cell in row if cell.row]
    return {case: f"r{index}" for index, case in enumerate(dict.fromkeys(cases))}


def tables(sections: Mapping[str, Section]) -> List[Table]:
    """All tables, with those of pictures."""
    blocks = [block for section in sections.values() for block in section.blocks]
    found = [block.table if isinstance(block, Figure) else block for block in blocks]
    return [each for each in found if isinstance(each, Table)]


def _rows(table: Table, anchors: Mapping[str, str]) -> List[Row]:
    rows = []
    for row in table.rows:
        cells = [Prepared(cell, _classes(cell), anchors.get(cell.case, "")) for cell in row]
        rows.append(Row(next((anchors[cell.row] for cell in row if cell.row), ""), cells))
    return rows


def _classes(cell: Cell) -> str:
    classes: List[str] = []
    if cell.look:
        classes.append(f"f{[*STYLES].index(cell.look) + 1 if cell.look in STYLES else 0}")
    if cell.bad:
        classes.append("bad")
    if len(cell.text) > LONG and not cell.code:
        classes.append("long")
    return " ".join(classes)


def _numbers(table: Table) -> str:
    """The classes that align the columns of numbers on the right."""
    return " ".join(f"n{index}" for index, column in enumerate(table.columns, 1) if column.number)

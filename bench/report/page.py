"""Writes a report as one HTML file: style, script and pictures are in it, and it loads nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence

from bench.report.content import Cell, Figure, Section, Table
from bench.report.drawing import MARKS, OTHER, STYLES, style
from bench.report.reading import Run, text

FOLDER = Path(__file__).resolve().parent


class Prepared(NamedTuple):
    """A cell with what the template needs: the value to sort by, the id of the row that it links to, its mark."""

    cell: Cell
    number: bool
    sorted: Optional[str]
    link: str
    look: str
    colour: int


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
    marks = {name: MARKS[look.mark] for name, look in {**STYLES, "other": OTHER}.items()}
    return environment.get_template("page.html.j2").render(
        title=title(runs),
        css=Markup((FOLDER / "page.css").read_text(encoding="utf-8")),
        script=Markup((FOLDER / "page.js").read_text(encoding="utf-8")),
        sections=sections,
        marks=marks,
        kind_of=lambda block: type(block).__name__,
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
    blocks: List[Any] = [block for section in sections.values() for block in section.blocks]
    return [
        block.table if isinstance(block, Figure) else block for block in blocks if isinstance(block, (Figure, Table))
    ]


def _rows(table: Table, anchors: Mapping[str, str]) -> List[Row]:
    rows = []
    for row in table.rows:
        cells = [_prepared(cell, column.number, anchors) for cell, column in zip(row, table.columns)]
        rows.append(Row(next((anchors[cell.row] for cell in row if cell.row), ""), cells))
    return rows


def _prepared(cell: Cell, number: bool, anchors: Mapping[str, str]) -> Prepared:
    look = (cell.look if cell.look in STYLES else "other") if cell.look else ""
    return Prepared(cell, number, _sorted(cell), anchors.get(cell.case, ""), look, style(cell.look).colour)


def _sorted(cell: Cell) -> Optional[str]:
    """The value that a cell is sorted by; None where it is what the text says."""
    if cell.value is None:
        return None
    try:
        same = float(cell.text.replace(",", "")) == float(f"{cell.value:.4g}")
    except ValueError:
        same = False
    return None if same else f"{cell.value:.6g}"

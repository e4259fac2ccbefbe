"""Writes a report as Markdown for a comment on a pull request or the summary of a CI job: tables, and no pictures."""

from __future__ import annotations

import re
from typing import List, Mapping, Sequence

from bench.report.content import Cell, Figure, Heading, Note, Section, Table
from bench.report.page import title
from bench.report.reading import Run

# GitHub refuses comments of more than 65,536 characters.
LONGEST = 60_000
# Rows of a table beyond these are folded away, and beyond those left out.
SHOWN, ROWS = 20, 150
# What has a meaning in Markdown or HTML; a bare address or a mention would become a link.
SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~&@$])")


def render(runs: Sequence[Run], sections: Mapping[str, Section]) -> str:
    """The Markdown of these sections, cut where it is too long for a comment."""
    parts = [f"## {escaped(title(runs))}"]
    for section in sections.values():
        blocks = _section(section)
        if blocks:
            parts += [f"### {escaped(section.title)}", *blocks]
    return _cut(parts)


def _cut(parts: Sequence[str]) -> str:
    kept: List[str] = []
    for part in parts:
        if sum(len(each) + 2 for each in (*kept, part)) > LONGEST:
            return "\n\n".join([*kept, "The rest is too long for a comment: see the page."]) + "\n"
        kept.append(part)
    return "\n\n".join(kept) + "\n"


def _section(section: Section) -> List[str]:
    parts: List[str] = []
    for block in section.blocks:
        if isinstance(block, Figure) and block.table and block.brief:
            parts += [escaped(block.caption), *_table(block.table)]
        elif isinstance(block, Table) and block.brief:
            parts += _table(block)
        elif isinstance(block, Note):
            parts.append(f"**{escaped(block.text)}**" if block.bad else escaped(block.text))
        elif isinstance(block, Heading):
            parts.append(f"#### {escaped(block.text)}")
    # A heading alone says nothing.
    following = [*parts[1:], "####"]
    return [part for part, after in zip(parts, following) if not (part.startswith("####") and after.startswith("####"))]


def _table(table: Table) -> List[str]:
    """A table; the commands of its rows are below it, folded away, and so are many rows."""
    codes = [index for index in range(len(table.columns)) if any(row[index].code for row in table.rows)]
    rows = table.rows[:ROWS]
    left = [f"{len(table.rows) - ROWS} more rows are on the page."] if len(table.rows) > ROWS else []
    shown, folded = rows[:SHOWN], rows[SHOWN:]
    parts = [_lines(table, shown, codes)]
    if folded:
        parts.append(_folded(f"{len(folded)} more rows", _lines(table, folded, codes)))
    commands = [row[index].text for row in rows for index in codes if row[index].text]
    if commands:
        parts.append(_folded("Commands that repeat each row", "```sh\n" + "\n".join(map(_code, commands)) + "\n```"))
    return [*parts, *left]


def _folded(summary: str, text: str) -> str:
    return f"<details><summary>{summary}</summary>\n\n{text}\n\n</details>"


def _lines(table: Table, rows: Sequence[Sequence[Cell]], without: Sequence[int]) -> str:
    columns = [(index, column) for index, column in enumerate(table.columns) if index not in without]
    lines = [" | ".join(escaped(column.head) for _, column in columns)]
    lines.append(" | ".join("---:" if column.number else "---" for _, column in columns))
    for row in rows:
        lines.append(" | ".join(_cell(row[index]) for index, _ in columns))
    return "\n".join(f"| {line} |" for line in lines)


def _cell(cell: Cell) -> str:
    return f"**{escaped(cell.text)}**" if cell.bad and cell.text else escaped(cell.text)


def escaped(text: str) -> str:
    """A text in which nothing is markup, a link or a mention."""
    text = SPECIAL.sub(lambda found: f"&#{ord(found[0])};", text)
    return text.replace("://", ":&#47;&#47;").replace("www.", "www&#46;")


def _code(text: str) -> str:
    """A line in a block of code, which it cannot end."""
    return text.replace("```", "'''")

"""What a report consists of: sections of pictures, tables and notes. `page.py` and `markdown.py` write them out.

Every text is plain: what writes it out escapes it. Only `Figure.svg` is markup, made by `drawing.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Callable, List, Optional, Sequence, Union

from bench.report.reading import Run


@dataclass(frozen=True)
class Cell:
    """One cell of a table.

    text    what is shown
    value   what the column is sorted by; None: the text
    code    it is a command, which is shown as such
    bad     it is shown as a failure
    """

    text: str
    value: Optional[float] = None
    code: bool = False
    bad: bool = False


@dataclass(frozen=True)
class Column:
    """One column. Numbers are aligned on the right. `hint` explains the heading."""

    head: str
    number: bool = False
    hint: str = ""


@dataclass(frozen=True)
class Table:
    """Rows of cells, as many as there are columns. `filtered`: a field above it filters the rows by text."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    filtered: bool = False


@dataclass(frozen=True)
class Figure:
    """A picture with the table that has its values. `caption` says what it shows and how to read it.

    folded   the table is folded away until it is asked for
    brief    the table is in the Markdown as well
    """

    svg: str
    caption: str
    table: Table
    folded: bool = True
    brief: bool = True


@dataclass(frozen=True)
class Note:
    """A sentence or two. `bad`: it says that something is wrong."""

    text: str
    bad: bool = False


@dataclass(frozen=True)
class Heading:
    """A heading within a section."""

    text: str


Block = Union[Figure, Table, Note, Heading]


@dataclass(frozen=True)
class Section:
    """One section: its title and what is below it, in order."""

    title: str
    blocks: List[Block] = field(default_factory=list)


@dataclass(frozen=True)
class Kind:
    """What a module in `sections/` has.

    POSITION   its place on the page; the smallest is first
    section    returns the section of these runs, oldest first; None: they have no data for it
    """

    position: int
    section: Callable[[Sequence[Run]], Optional[Section]]

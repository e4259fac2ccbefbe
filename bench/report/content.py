"""What a report consists of: sections of pictures, tables and notes. `page.py` and `markdown.py` write them out.

Every text is plain: what writes it out escapes it. Only `Figure.svgs` are markup, made by `drawing.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Callable, List, Optional, Sequence, Union

from bench.report.history import History
from bench.report.reading import Run


@dataclass(frozen=True)
class Cell:
    """One cell of a table.

    text    what is shown, and what the column is sorted by: a number is sorted with its unit
    code    it is a command, which is shown as such
    bad     it is shown as a failure
    case    the id of a case; the text is a link to its row in the table of results
    row     the id of a case; the row of this cell is that of the case in the table of results
    look    the name of a framework, whose mark is shown before the text
    """

    text: str
    code: bool = False
    bad: bool = False
    case: str = ""
    row: str = ""
    look: str = ""


@dataclass(frozen=True)
class Column:
    """One column. Numbers are aligned on the right. `hint` explains the heading."""

    head: str
    number: bool = False
    hint: str = ""


@dataclass(frozen=True)
class Table:
    """Rows of cells, as many as there are columns.

    filtered   a field above it filters the rows by text
    brief      it is in the Markdown as well
    """

    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    filtered: bool = False
    brief: bool = True


@dataclass(frozen=True)
class Figure:
    """Pictures with the table that has their values. `caption` says what they show and how to read them.

    Tables are folded away until they are asked for.
    table    None: the table that follows has the values
    brief    the table is in the Markdown as well
    """

    svgs: Sequence[str]
    caption: str
    table: Optional[Table] = None
    brief: bool = False


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
    of_history the same, of an index of all runs of a folder
    """

    position: int
    section: Callable[[Sequence[Run]], Optional[Section]]
    of_history: Callable[[History], Optional[Section]] = lambda history: None

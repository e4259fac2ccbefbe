"""The table at the end of a run: at most 100 columns wide, the fastest backend of each case first."""

from __future__ import annotations

import io
import textwrap
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench import workloads
from bench.clock.protocol import PROGRAMS
from bench.results import baseline
from bench.results.baseline import Verdict
from bench.results.fields import FIELDS, Field
from bench.results.record import Record

WIDTH = 100
IMAGE_NETWORKS = workloads.names("cnns")
# Axes that have one value throughout go into the title; the others are columns.
AXES = ("workload", "size", "mode", "batch_size", "precision", "replicas", "device", "backend")
NO_RATE = "-"
HEADS = {"batch_size": "batch"}
Row = Tuple[Record, Optional[Verdict]]


def render(rows: Sequence[Row], color: bool = False) -> str:
    """Return the table as text. Rows are a record and its verdict, if there is a baseline.

    A row a case where that fits; otherwise the case stands on a line of its own above its backends.
    """
    rows = sorted(_beside_best(rows), key=lambda row: _order(row[0]))
    varying = [axis for axis in AXES if len({record[axis] for record, _ in rows}) > 1 or axis == "backend"]
    title = textwrap.fill("layerbench: " + ", ".join(_title(rows, varying)), WIDTH, subsequent_indent="  ")
    lines = _lines(rows, varying, color)
    if max(len(Text.from_ansi(line).plain) for line in lines) > WIDTH:
        lines = _below_cases(rows, [axis for axis in varying if axis != "backend"], color)
    return "\n".join([title, *lines, *_notes(rows)])


def compared(file: str, rows: Sequence[Tuple[Record, Record]], strangers: Sequence[str]) -> str:
    """Rates beside those of a file of another run, of which pytest-benchmark's table tells the steps.

    rows        records of this run, each with the file's of the same case
    strangers   cases of this run of which the file has no record of the suite's
    """
    lines = []
    if rows:
        table = Table(box=SIMPLE_HEAD, padding=(0, 1), collapse_padding=True, pad_edge=False)
        for head in ("items/s", "then", "ratio"):
            table.add_column(head, justify="right", no_wrap=True)
        table.add_column("case", no_wrap=True)
        for now, then in rows:
            rates = now["items_per_s"], then.get("items_per_s")
            ratio = f"{rates[0] / rates[1]:.3f}" if rates[0] and rates[1] else "-"
            table.add_row(rate(rates[0]), rate(rates[1]), ratio, now["id"])
        lines += [
            f"layerbench: items/s now, and then in {file} (pytest-benchmark's OPS counts steps)",
            *_printed(table, False),
        ]
    for now, then in rows:
        different = [text.split(" ")[0] for text in baseline.differences(now, then)]
        if different:
            lines.append(f"measured in another way then: {now['id']}: {', '.join(different)}")
    if strangers:
        more = f" and {len(strangers) - 1} more" if len(strangers) > 1 else ""
        lines.append(f"{file} has no record of {strangers[0]}{more}, so no items/s")
    return "\n".join(lines)


def _printed(table: Table, color: bool) -> List[str]:
    out = io.StringIO()
    console = Console(file=out, width=400, force_terminal=color, no_color=not color, highlight=False)
    console.print(table)
    return [line.rstrip() for line in out.getvalue().splitlines() if line.strip()]


def _beside_best(rows: Sequence[Row]) -> List[Row]:
    """The rows, each with its share of the best rate of its case."""
    best: Dict[Tuple[Any, ...], float] = {}
    for record, _ in rows:
        best[_case(record)] = max(best.get(_case(record), 0.0), record["items_per_s"] or 0.0)
    return [
        ({**record, "of_best": _share(record["items_per_s"], best[_case(record)])}, verdict) for record, verdict in rows
    ]


def _share(rate: Optional[float], best: float) -> Optional[float]:
    return None if rate is None else rate / best


def _case(record: Record) -> Tuple[Any, ...]:
    return tuple(record[axis] for axis in AXES if axis != "backend")


def _lines(rows: Sequence[Row], axes: Sequence[str], color: bool) -> List[str]:
    """A header of three lines, a line a row."""
    columns = [column for column in COLUMNS if _is_shown(column, rows)]
    table = Table(box=SIMPLE_HEAD, padding=(0, 1), collapse_padding=True, pad_edge=False)
    for axis in axes:
        table.add_column(HEADS.get(axis, axis), justify="right" if axis == "batch_size" else "left", no_wrap=True)
    for head, _ in columns:
        table.add_column(head, justify="left" if head == "item" else "right", no_wrap=True)
    for record, verdict in rows:
        cells = [_value(record, axis) for axis in axes] + [cell(record, verdict) for _, cell in columns]
        table.add_row(*cells, style="red" if verdict and verdict.kind == "slower" else None)
    return _printed(table, color)


def _below_cases(rows: Sequence[Row], axes: Sequence[str], color: bool) -> List[str]:
    lines = _lines(rows, ["backend"], color)
    header = len(lines) - len(rows)
    grouped, last = [f"  {line}" for line in lines[:header]], ""
    for line, (record, _) in zip(lines[header:], rows):
        case = "  ".join(f"{HEADS.get(axis, '')} {_value(record, axis)}".strip() for axis in axes)
        if case != last:
            grouped.append(case)
            last = case
        grouped.append(f"  {line}")
    return grouped


def _order(record: Record) -> Tuple[Any, ...]:
    case = tuple(record[axis] for axis in AXES if axis not in ("backend", "device"))
    return (*case, -(record["items_per_s"] or 0.0))


def _title(rows: Sequence[Row], shown: Sequence[str]) -> List[str]:
    first = rows[0][0]
    common = [axis for axis in AXES if axis not in shown and (axis != "replicas" or first[axis] > 1)]
    parts = [f"{HEADS.get(axis, '')} {_value(first, axis)}".strip() for axis in common]
    threads = first["threads"]
    return [*parts, f"{threads} thread{'s' if threads > 1 else ''}"]


def _value(record: Record, axis: str) -> str:
    return f"x{record[axis]}" if axis == "replicas" else str(record[axis])


def _change(record: Record, verdict: Optional[Verdict]) -> str:
    if verdict is None:
        return ""
    change = "" if verdict.change_percent is None else f"{verdict.change_percent:+.1f}% "
    return f"{change}{verdict.kind}"


def _noise(record: Record, verdict: Optional[Verdict]) -> str:
    if record["samples"] == 1:
        return ""  # nothing to compare it with
    return "" if record["noise_percent"] is None else f"{record['noise_percent']:.1f}%" + "!" * record["disturbed"]


def seconds(value: float) -> str:
    """A time with its unit: 81.2 us, 4.05 ms, 1.3 s."""
    for factor, unit in ((1e9, "ns"), (1e6, "us"), (1e3, "ms")):
        rounded = float(f"{value * factor:.3g}")
        if rounded < 1000:
            return f"{rounded:g} {unit}"
    return f"{value:.3g} s" if value < 1000 else f"{value:,.0f} s"


def _notes(rows: Sequence[Row]) -> List[str]:
    notes = []
    for record, _ in rows:
        if record["source"] != "measured":
            notes.append(f"{record['id']}: {SOURCES[record['source']]}")
        notes += _of_program(record)
        # Of rows that learnt, scored or decoded images, one line each says what a column cannot.
        if record["loss_last"] is not None:
            notes.append(
                f"{record['id']}: {record['epochs']:.3g} epochs,"
                f" loss {record['loss_first']:.3g} to {record['loss_last']:.3g}"
            )
        if record["top1_percent"] is not None:
            notes.append(
                f"{record['id']}: top-1 {record['top1_percent']:.2f} %, top-5 {record['top5_percent']:.2f} %"
                f" of {record['images_scored']} images"
            )
        if record["bound_by"]:
            notes.append(f"{record['id']}: {record['bound_by']}")
        if record["weights_note"]:
            notes.append(f"{record['id']}: {record['weights_note']}")
        if record["images_skipped"]:
            notes.append(f"{record['id']}: {record['images_skipped']} bad images left out")
    for name in dict.fromkeys(record["protocol"] for record, _ in rows if record["protocol"] in PROGRAMS):
        notes.append(f"theirs: the rate as the program {name} has it")
    if any(record["disturbed"] for record, _ in rows):
        notes.append("! the machine was disturbed: a kernel of known time ran more than 1.5 times slower")
    if any(not record["steady"] for record, _ in rows):
        names = sorted(record["id"] for record, _ in rows if not record["steady"])
        notes += ["not steady after the warm-up:", *(f"  {name}" for name in names)]
    return notes


def _of_program(record: Record) -> List[str]:
    """What the program of --protocol prints besides its rate, or why it has none."""
    program = PROGRAMS.get(record["protocol"])
    if program is None or record["source"] != "measured":
        return []
    if record["protocol_items_per_s"] is None:
        dropped = f"{record['protocol']} drops the first {program.dropped} samples"
        return [f"{record['id']}: no rate of theirs: {dropped}, and there are {record['samples']}"]
    if not program.spread:
        return []
    kinds = ", ".join(f"{kind} {rate(record[f'protocol_{kind}_items_per_s'])}" for kind in ("min", "max", "std"))
    return [f"{record['id']}: theirs {kinds}"]


def _percent(value: float) -> str:
    return f"{value:.3g}%"


def rate(value: Optional[float]) -> str:
    """A rate to four figures; a dash where there is none."""
    if value is None:
        return NO_RATE
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def _single(rows: Sequence[Row]) -> bool:
    """Whether these are image networks in inference, of which the tail of single batches matters."""
    return any(record["mode"] == "inference" and record["workload"] in IMAGE_NETWORKS for record, _ in rows)


SOURCES = {
    "ipu_model": "checked on the IPU Model, a simulation: no rate",
    "fake": "a fake of the IPU's API stood in for it: no rate",
}
Cell = Callable[[Record, Optional[Verdict]], str]
# How a value is written, by its unit; a value that does not apply leaves its cell empty, but for a rate.
FORMATS: Dict[str, Callable[[Any], str]] = {"items/s": rate, "s": seconds, "%": _percent}
# Cells that say more than one field.
CELLS: Dict[str, Cell] = {"noise": _noise}
# Columns that are there in every table, and those that are there under a condition of their own; the others are there
# where a record has a value for them.
ALWAYS = ("items/s", "item", "step", "noise", "of peak")
SOMETIMES: Dict[str, Callable[[Sequence[Row]], bool]] = {
    "of best": lambda rows: any((record["of_best"] or 1) < 1 for record, _ in rows),
    "change": lambda rows: any(verdict for _, verdict in rows),
    "p99": _single,
    "theirs": lambda rows: any(record["protocol"] != "median" for record, _ in rows),
}


def _is_shown(column: Tuple[str, Cell], rows: Sequence[Row]) -> bool:
    head, cell = column
    if head in SOMETIMES:
        return SOMETIMES[head](rows)
    return head in ALWAYS or any(cell(record, verdict) not in ("", NO_RATE) for record, verdict in rows)


def _cell(field: Field) -> Cell:
    def cell(record: Record, verdict: Optional[Verdict]) -> str:
        value = record[field.name]
        if value is None:
            return NO_RATE if field.unit == "items/s" else ""
        return FORMATS.get(field.unit, str)(value)

    return CELLS.get(field.column, cell)


def _columns() -> List[Tuple[str, Cell]]:
    """Heads and cells: those of fields in the order of the fields, and what is worked out for the table alone."""
    of_best: Tuple[str, Cell] = (
        "of best",
        lambda record, verdict: "" if record["of_best"] is None else f"{record['of_best']:.2f}",
    )
    first, *others = [(field.column, _cell(field)) for field in FIELDS.values() if field.column]
    return [first, of_best, *others, ("change", _change)]


COLUMNS = _columns()

"""All measured cases in one table, and the share of each framework of the fastest one."""

from __future__ import annotations

from typing import Any, Callable, List, Mapping, Optional, Sequence, Tuple

from bench.report import cases, command
from bench.report.content import Block, Cell, Column, Figure, Note, Section, Table
from bench.report.drawing import Rows, Scale, parts, percent, style
from bench.report.reading import Result, Run, newest, newest_invalid, number, text
from bench.results import units
from bench.results.record import Record

POSITION = 20
# The cases that are drawn, and the rows of one picture, which fits on half a page.
MOST, ROWS = 60, 20


def section(runs: Sequence[Run]) -> Optional[Section]:
    """The table, the fastest framework of each case first; None: no case was measured."""
    results, invalid = newest(runs), newest_invalid(runs)
    if not results and not invalid:
        return None
    shares = {result.record["id"]: share for result, share in _with_shares(results)}
    same = cases.described([*(result.record for result in results), *invalid])
    blocks: List[Block] = [Note(f"All cases: {same}.")] if same else []
    if any(share is not None and share < 1 for share in shares.values()):
        blocks.append(_overview(results, shares))
    blocks.append(_table(results, invalid, shares))
    return Section("Results", blocks)


def _with_shares(results: Sequence[Result]) -> List[Tuple[Result, Optional[float]]]:
    """Each result with its share of the best rate of its case, or None if it has no rate."""
    found = []
    for group in cases.grouped(results, cases.COMPARED).values():
        rates = [number(result.record, "items_per_s") for result in group]
        best = max((rate for rate in rates if rate), default=None)
        found += [(result, rate / best if rate and best else None) for result, rate in zip(group, rates)]
    return found


def _overview(results: Sequence[Result], shares: Mapping[str, Optional[float]]) -> Figure:
    """A row for each case, with the share of each framework."""
    groups = [group for group in cases.grouped(results, cases.COMPARED).values() if len(group) > 1]
    shown = [result for group in groups[:MOST] for result in group]
    records = [result.record for result in shown]
    axes = cases.differing(records)
    widest = max(len(cases.label(record, axes)) for record in records)
    pictures = [_shares(part, axes, shares, widest) for part in parts(groups[:MOST], ROWS)]
    same = cases.described(records)
    caption = f"Each framework's rate as a share of the fastest one's in the same case{f' ({same})' if same else ''}."
    return Figure(pictures, f"{caption} The first {MOST} are drawn." if len(groups) > MOST else caption)


def _shares(
    groups: Sequence[Sequence[Result]], axes: Sequence[str], shares: Mapping[str, Optional[float]], widest: int
) -> str:
    labels = [cases.label(group[0].record, axes) for group in groups]
    picture = Rows("Rate of each framework as a share of the fastest one", labels, widest)
    picture.x = Scale(0.0, 100.0, picture.left, picture.right - 6)
    picture.axis("rate, in percent of the fastest framework's", percent)
    names = cases.backends([result for group in groups for result in group])
    picture.legend([(name, style(name), "") for name in names])
    for index, group in enumerate(groups):
        for result in group:
            share, record = shares[result.record["id"]], result.record
            if share is not None:
                name = f"{labels[index]}, {text(record, 'backend')}: {100 * share:.3g} %"
                picture.mark(picture.x(100 * share), picture.middle(index), style(record["backend"]), name)
    return picture.svg()


def _measured(name: str, write: Callable[[float], str]) -> Callable[[Record], Cell]:
    """The cell of a number of the record; empty if it is null."""

    def cell(record: Record) -> Cell:
        value = number(record, name)
        return Cell("" if value is None else write(value))

    return cell


def _items(record: Record) -> Cell:
    rate = number(record, "items_per_s")
    if record.get("validity") == "INVALID":
        return Cell("INVALID", bad=True)
    return Cell(units.rate(rate))


def _noise(record: Record) -> Cell:
    value = number(record, "noise_percent")
    shown = "" if value is None else f"{value:.1f} %"
    return Cell(f"{shown}{' !' if record.get('disturbed') is True else ''}")


def _peak(record: Record) -> Cell:
    value = number(record, "percent_of_peak")
    return Cell("" if value is None else f"{value:.3g} %", bad=value is not None and value > 100)


# A column that is empty in all rows is left out.
COLUMNS: Sequence[Tuple[Column, Callable[[Record], Cell]]] = (
    (Column("items/s", True, "the rate: items of a step / median time of a step"), _items),
    (Column("item"), lambda record: Cell(text(record, "item", 20))),
    (Column("step", True, "median time of a step"), _measured("step_median_s", units.seconds)),
    (Column("p50", True, "median latency of one batch"), _measured("latency_p50_s", units.seconds)),
    (Column("p99", True, "99th percentile of the latency of one batch"), _measured("latency_p99_s", units.seconds)),
    (Column("noise", True, "half the range of the medians of six blocks of samples; !: disturbed"), _noise),
    (Column("of peak", True, "rate as a share of the roofline"), _peak),
)


def _table(results: Sequence[Result], invalid: Sequence[Record], shares: Mapping[str, Optional[float]]) -> Table:
    """All cases, and what repeats each."""
    records = sorted([*(result.record for result in results), *invalid], key=lambda record: _order(record, shares))
    axes = [name for name in ("workload", "size", *cases.differing(records)) if name != "backend"]
    axes = list(dict.fromkeys(axes))
    cells = [(column, [make(record) for record in records]) for column, make in COLUMNS]
    shown = [(column, values) for column, values in cells if any(cell.text for cell in values)]
    # The median of a step is that of a batch, where a step is one batch.
    texts = {column.head: [cell.text for cell in values] for column, values in shown}
    if texts.get("step") == texts.get("p50"):
        shown = [entry for entry in shown if entry[0].head != "step"]
    of_best = any(share is not None and share < 1 for share in shares.values())
    columns = [*(Column(_head(name), number=name in ("batch_size", "replicas")) for name in axes), Column("framework")]
    columns += [column for column, _ in shown]
    if of_best:
        columns.insert(len(axes) + 2, Column("of best", True, "share of the fastest framework's rate in this case"))
    columns.append(Column("repeat it"))
    rows = []
    for index, record in enumerate(records):
        row = [_axis(record, name) for name in axes]
        row[0] = Cell(row[0].text, row=record["id"])
        row.append(Cell(text(record, "backend"), look=record["backend"]))
        row += [values[index] for _, values in shown]
        if of_best:
            share = shares.get(record["id"])
            row.insert(len(axes) + 2, Cell("" if share is None else f"{share:.2f}"))
        row.append(Cell(command.of(record), code=True))
        rows.append(row)
    return Table(columns, rows, filtered=True)


def _order(record: Record, shares: Mapping[str, Optional[float]]) -> Tuple[Any, ...]:
    axes = tuple(record[name] for name in cases.COMPARED)
    return (*axes, -(shares.get(record["id"]) or 0.0))


def _head(name: str) -> str:
    return "batch" if name == "batch_size" else name


def _axis(record: Record, name: str) -> Cell:
    value = number(record, name)
    return Cell(f"{value:g}") if value is not None else Cell(text(record, name, 60))

"""The table at the end of a run. It is at most 100 columns wide, with the fastest backend of each case first."""

from __future__ import annotations

import io
import textwrap
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench import workloads
from bench.clock import canary, neighbours
from bench.clock.protocol import PROGRAMS
from bench.results import fingerprints
from bench.results.comparison import CaseVerdict
from bench.results.fields import FIELDS, Field
from bench.results.record import Record, is_valid
from bench.results.self_check import SLOWDOWNS, highest_rate
from bench.results.units import NO_RATE, rate, seconds
from bench.results.verdict import CHANGED, Verdict, percent

WIDTH = 100
IMAGE_NETWORKS = workloads.names("cnns")
# Axes with one value in all rows are in the title; the others are columns.
AXES = ("workload", "size", "mode", "batch_size", "precision", "replicas", "device", "backend")
HEADS = {"batch_size": "batch"}
# The rate over the whole timed section is named where it differs from the median's by more than this factor.
SECTION_FACTOR = 1.5
Row = Tuple[Record, Optional[Verdict]]


def render(rows: Sequence[Row], color: bool = False) -> str:
    """Return the table as text. A row is a record and, with a baseline, its verdict.

    If the table is too wide, the axes of a case are on a separate line above its backends.
    """
    rows = sorted(_with_share_of_best(rows), key=lambda row: _order(row[0]))
    varying = [axis for axis in AXES if len({record[axis] for record, _ in rows}) > 1 or axis == "backend"]
    title = textwrap.fill("layerbench: " + ", ".join(_title(rows, varying)), WIDTH, subsequent_indent="  ")
    lines = _lines(rows, varying, color)
    if max(len(Text.from_ansi(line).plain) for line in lines) > WIDTH:
        lines = _below_cases(rows, [axis for axis in varying if axis != "backend"], color)
    return "\n".join([title, *lines, *_notes(rows)])


def compared(file: str, rows: Sequence[Tuple[Record, Record]], missing: Sequence[str]) -> str:
    """Return a table of the rates of this run and of a stored run, for --benchmark-compare.

    rows      the records of this run, each with the stored record of the same case
    missing   the ids of cases of this run without a stored record
    """
    lines = []
    if rows:
        table = Table(box=SIMPLE_HEAD, padding=(0, 1), collapse_padding=True, pad_edge=False)
        for head in ("items/s", "then", "ratio"):
            table.add_column(head, justify="right", no_wrap=True)
        table.add_column("case", no_wrap=True)
        for now, stored in rows:
            rates = now["items_per_s"], stored.get("items_per_s")
            ratio = f"{rates[0] / rates[1]:.3f}" if rates[0] and rates[1] else "-"
            table.add_row(rate(rates[0]), rate(rates[1]), ratio, now["id"])
        lines += [
            f"layerbench: items/s now, and then in {file} (pytest-benchmark's OPS counts steps)",
            *printed(table, False),
        ]
    for now, stored in rows:
        different = [difference.name for difference in fingerprints.differences(now, stored)]
        if different:
            lines.append(f"measured in another way then: {now['id']}: {', '.join(different)}")
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        lines.append(f"{file} has no record of {missing[0]}{more}, so no items/s")
    return "\n".join(lines)


def of_sides(rows: Sequence[Tuple[str, CaseVerdict]], color: bool = False) -> str:
    """Return a table of the verdicts of --against: a line for each case, and one for each other metric that decided."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1), collapse_padding=True, pad_edge=False)
    table.add_column("verdict", no_wrap=True)
    for head in ("change", "interval", "pairs", "would see"):
        table.add_column(head, justify="right", no_wrap=True)
    confidences, notes, names = set(), [], []
    for case, judged in rows:
        for metric, verdict in judged.metrics.items():
            if metric != "rate" and verdict.kind != "slower":
                continue
            names.append(case if metric == "rate" else f"{case} ({metric})")
            cells = _of_verdict(verdict)
            confidences.add(verdict.confidence if verdict.interval else 0.0)
            table.add_row(verdict.kind, *cells, style="red" if verdict.kind == "slower" else None)
        if not judged.metrics:
            names.append(case)
            table.add_row(judged.kind, "", "", "", "", style="red")
        if judged.kind == "undecided":
            notes.append(judged.text)
    known = sorted(confidence for confidence in confidences if confidence)
    if known:
        span = " to ".join(dict.fromkeys(f"{100 * confidence:.3g}" for confidence in (known[0], known[-1])))
        notes.insert(0, f"interval: holds the true change in {span} %; would see: the smallest loss seen 9 times in 10")
    return "\n".join([*_below_names(table, names, color), *notes])


def of_self_check(found: Mapping[str, Any], color: bool = False) -> str:
    """Return a table of a self-check: a line for each case, with the verdicts without a change and with slow-downs."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1), collapse_padding=True, pad_edge=False)
    slowdowns = [f"{slowdown:g}" for slowdown in SLOWDOWNS]
    for head in ("unchanged", "false", "undecided", *(f"{slowdown} %" for slowdown in slowdowns)):
        table.add_column(head, justify="right", no_wrap=True)
    for head in ("spread", "would see", "verdict"):
        table.add_column(head, justify="right", no_wrap=True)
    for _, facts in sorted(found["cases"].items()):
        counts = facts["counts"]
        unchanged = counts["0"]
        seen = [f"{counts[name]['slower']}/{counts[name]['comparisons']}" for name in slowdowns]
        false = unchanged["slower"] + unchanged["faster"]
        table.add_row(
            str(unchanged["comparisons"]),
            str(false),
            str(unchanged["undecided"]),
            *seen,
            "-" if facts["spread"] is None else f"{100 * facts['spread']:.2g} %",
            "-" if facts["smallest_percent"] is None else f"-{facts['smallest_percent']:.2g} %",
            "-" if unchanged["seconds"] is None else seconds(unchanged["seconds"]),
            style="red" if false else None,
        )
    most = 100 * highest_rate(found["false"], found["comparisons"]) if found["comparisons"] else 100.0
    return "\n".join(
        [
            f"layerbench: self-check, false verdicts: {found['false']} of {found['comparisons']} comparisons without a"
            f" change (at most {most:.2g} %),",
            f"  {found['false_runs']} of {found['runs']} runs of all cases",
            *_below_names(table, sorted(found["cases"]), color),
            "2 to 20 %: slow-downs that were called slower; spread: of pairs without a change; would see: the smallest",
            "loss seen 9 times in 10; verdict: seconds of the pairs of one, the median",
        ]
    )


def _below_names(table: Table, names: Sequence[str], color: bool) -> List[str]:
    """The table as lines, with a line above each row that names it: ids of cases are too long for a column."""
    lines = printed(table, color)
    header = len(lines) - len(names)
    named = [line for name, row in zip(names, lines[header:]) for line in (name, f"  {row}")]
    return [*(f"  {line}" for line in lines[:header]), *named]


def _of_verdict(verdict: Verdict) -> List[str]:
    """The cells of a verdict: its estimate, interval, pairs and resolution."""
    if verdict.estimate is None or verdict.interval is None:
        return ["", "", str(verdict.count), ""]
    low, high = map(percent, verdict.interval)
    interval = f"{low:+.1f} to {high:+.1f} %" if verdict.confidence else ""
    smallest = "" if verdict.smallest is None else f"{percent(verdict.smallest):+.1f} %"
    change = f"{percent(verdict.estimate):+.1f} %"
    return [change, interval, str(verdict.count), smallest]


def printed(table: Table, color: bool) -> List[str]:
    """The lines of a table of rich."""
    out = io.StringIO()
    console = Console(file=out, width=400, force_terminal=color, no_color=not color, highlight=False)
    console.print(table)
    return [line.rstrip() for line in out.getvalue().splitlines() if line.strip()]


def _with_share_of_best(rows: Sequence[Row]) -> List[Row]:
    """Add to each record its share of the best rate of its case."""
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
    """The table as lines: a header of three lines, and one line for each row."""
    columns = [column for column in COLUMNS if _is_shown(column, rows)]
    table = Table(box=SIMPLE_HEAD, padding=(0, 1), collapse_padding=True, pad_edge=False)
    for axis in axes:
        table.add_column(HEADS.get(axis, axis), justify="right" if axis == "batch_size" else "left", no_wrap=True)
    for head, _ in columns:
        table.add_column(head, justify="left" if head == "item" else "right", no_wrap=True)
    for record, verdict in rows:
        cells = [_value(record, axis) for axis in axes] + [cell(record, verdict) for _, cell in columns]
        failed = not is_valid(record) or (verdict and verdict.kind == "slower")
        table.add_row(*cells, style="red" if failed else None)
    return printed(table, color)


def _below_cases(rows: Sequence[Row], axes: Sequence[str], color: bool) -> List[str]:
    """The table as lines, with a separate line for the axes of each case."""
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


def _title(rows: Sequence[Row], columns: Sequence[str]) -> List[str]:
    first = rows[0][0]
    common = [axis for axis in AXES if axis not in columns and (axis != "replicas" or first[axis] > 1)]
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


def _rate_of_case(record: Record, verdict: Optional[Verdict]) -> str:
    return rate(record["items_per_s"]) if is_valid(record) else "INVALID"


def _noise(record: Record, verdict: Optional[Verdict]) -> str:
    noise = record["noise_percent"]
    return ("" if noise is None else f"{noise:.1f}%") + ("!" if record["disturbed"] else "")


def _notes(rows: Sequence[Row]) -> List[str]:
    notes = []
    for record, _ in rows:
        if record["source"] != "measured":
            notes.append(f"{record['id']}: {SOURCES[record['source']]}")
        if not is_valid(record):
            notes += [f"{record['id']} is INVALID, so it has no rate:", *_indented(record["invalid_reasons"])]
        notes += _protocol_notes(record)
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
        notes += _of_section(record)
        if record["weights_note"]:
            notes.append(f"{record['id']}: {record['weights_note']}")
        if record["images_skipped"]:
            notes.append(f"{record['id']}: {record['images_skipped']} bad images left out")
    notes += _confounded(rows)
    notes += _of_machine([record for record, _ in rows])
    for name in dict.fromkeys(record["protocol"] for record, _ in rows if record["protocol"] in PROGRAMS):
        notes.append(f"theirs: the rate as the program {name} has it")
    notes += _disturbances([record for record, _ in rows if record["disturbed"]])
    notes += sorted({f"peak of {record['peak_library']}" for record, _ in rows if record["peak_library"]})
    raised = sorted({record["id"] for record, _ in rows if record["peak_raised"]})
    if raised:
        notes += ["above the measured peak, which was raised:", *(f"  {name}" for name in raised)]
    if any(not record["steady"] for record, _ in rows):
        names = sorted({record["id"] for record, _ in rows if not record["steady"]})
        notes += ["not steady after the warm-up:", *(f"  {name}" for name in names)]
    return notes


def _confounded(rows: Sequence[Row]) -> List[str]:
    """What differs from the baseline, with the cases whose change can come from it as well."""
    cases: Dict[str, List[str]] = {}
    for record, verdict in rows:
        if verdict is not None and verdict.confounded:
            what = "changed, so not compared" if verdict.kind == CHANGED else "compared, and a change can come from it"
            cases.setdefault(f"{what}: {', '.join(verdict.confounded)}:", []).append(f"  {record['id']}")
    return [line for reason, names in cases.items() for line in (reason, *names)]


def _indented(sentences: Sequence[str]) -> List[str]:
    return [textwrap.fill(f"  {sentence}", WIDTH, subsequent_indent="    ") for sentence in sentences]


def _of_section(record: Record) -> List[str]:
    """The rate over the whole timed section, where it is another than that of the median step."""
    median, whole = record["items_per_s"], record["section_items_per_s"]
    if not median or not whole or max(median / whole, whole / median) <= SECTION_FACTOR:
        return []
    return [
        f"{rate(whole)} items/s over the whole timed section, and {rate(median)} by the median:",
        f"  {record['id']}",
    ]


def _of_machine(records: Sequence[Record]) -> List[str]:
    """What the machine, or the environment, does to several cases: a line each."""
    notes = []
    for reason in dict.fromkeys(record["not_compiled"] for record in records if record["not_compiled"]):
        count = sum(record["not_compiled"] == reason for record in records)
        notes.append(f"not compiled, so slower: {count} case{'s' if count > 1 else ''}, since {reason}")
    removed = sorted({name for record in records for name in record["removed_variables"] or ()})
    if removed:
        notes.append(f"not passed on to workers, which are bound by --pin: {', '.join(removed)}")
    for threads, cores in sorted({(record["threads"], _cores(record)) for record in records}):
        if cores is not None and threads > cores:
            notes.append(f"warning: {threads} threads share {cores} core{'s' if cores > 1 else ''} (--threads, --pin)")
    return notes


def _cores(record: Record) -> Optional[int]:
    """The cores that the threads of a case have; None: not known."""
    bound, present = str(record["cores"] or ""), record.get("device_cores")
    return len(bound.split(",")) if bound else present


def _disturbances(records: Sequence[Record]) -> List[str]:
    """What disturbed which cases: how much slower each kind of canary was, and what others took of the cores."""
    reasons: Dict[str, List[Tuple[float, str]]] = {}
    for record in records:
        slowdown = max(record["canary_slowdown_before"] or 0, record["canary_slowdown_after"] or 0)
        if slowdown > canary.limit(record["canary_kind"]):
            reason = f"{canary.KINDS[record['canary_kind']]} up to {{:.2g}} times slower than known"
            reasons.setdefault(reason, []).append((slowdown, record["id"]))
        if (record["others_percent"] or 0) > neighbours.MOST_PERCENT:
            reason = "others took up to {:.0f} % of the cores"
            reasons.setdefault(reason, []).append((record["others_percent"], record["id"]))
    notes = []
    for reason, cases in sorted(reasons.items()):
        notes.append(f"! the machine was disturbed: {reason.format(max(cases)[0])}:")
        notes += sorted({f"  {name}" for _, name in cases})
    return notes


def _protocol_notes(record: Record) -> List[str]:
    """What the original program of --protocol prints besides its rate, or why it has no rate."""
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


def _have_tail_latency(rows: Sequence[Row]) -> bool:
    """Whether rows are of image networks in inference. Their tail latency is a column."""
    return any(record["mode"] == "inference" and record["workload"] in IMAGE_NETWORKS for record, _ in rows)


SOURCES = {
    "ipu_model": "checked on the IPU Model, a simulation: no rate",
    "fake": "a fake of the IPU's API stood in for it: no rate",
}
Cell = Callable[[Record, Optional[Verdict]], str]
# The format of a value, by its unit. The cell of a null is empty, except for a rate.
FORMATS: Dict[str, Callable[[Any], str]] = {"items/s": rate, "s": seconds, "%": _percent}
# Cells with more than the value of one field.
CELLS: Dict[str, Cell] = {"items/s": _rate_of_case, "noise": _noise}
# Columns of every table, and columns with a condition. Other columns are shown if a record has a value for them.
ALWAYS = ("items/s", "item", "step", "noise", "of peak")
SOMETIMES: Dict[str, Callable[[Sequence[Row]], bool]] = {
    "of best": lambda rows: any((record["of_best"] or 1) < 1 for record, _ in rows),
    "change": lambda rows: any(verdict for _, verdict in rows),
    "p99": _have_tail_latency,
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
    """Headings and cells of all columns: those of fields, in order, and two that only the table has."""
    of_best: Tuple[str, Cell] = (
        "of best",
        lambda record, verdict: "" if record["of_best"] is None else f"{record['of_best']:.2f}",
    )
    first, *others = [(field.column, _cell(field)) for field in FIELDS.values() if field.column]
    return [first, of_best, *others, ("change", _change)]


COLUMNS = _columns()

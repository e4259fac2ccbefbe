"""The profile of a case on the terminal: its largest operations, at most 100 columns wide."""

from __future__ import annotations

from typing import Any, List, Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from bench.results import table
from bench.results.record import Record
from bench.results.units import seconds

MOST_ROWS = 10
OPERATION_WIDTH, KERNEL_WIDTH = 38, 24
# A profiled step whose time differs by more is marked.
LARGEST_CHANGE_PERCENT = 10
VIEWERS = "open it at ui.perfetto.dev or chrome://tracing"


def render(record: Record, folder: str, color: bool = False) -> str:
    """The profile of a record as text; why there is none; or an empty text, if none was asked for."""
    if not record.get("profile"):
        note = record.get("profile_note")
        return f"{record['id']}: {note}" if note else ""
    run_s = record["profile_step_s"]
    profiled_s = record["profile_profiled_s"]
    title = (
        f"{record['id']}: a step takes {seconds(run_s)}, under the profiler {seconds(profiled_s)};"
        f" shares of {seconds(run_s)}"
    )
    *rows, outside = record["profile"]
    largest, rest = rows[:MOST_ROWS], rows[MOST_ROWS:]
    lines = [title, *table.printed(_table([*largest, *_summed(rest), outside]), color)]
    change = 100 * (profiled_s / run_s - 1)
    if abs(change) > LARGEST_CHANGE_PERCENT:
        why = "the profiler or the machine slowed it" if change > 0 else "the machine was less busy"
        lines.append(f"! the profiled step differs by {change:+.0f} %, so the shares are uncertain: {why}")
    if record.get("profile_trace"):
        lines.append(f"trace: {folder}/{record['profile_trace']} ({VIEWERS})")
    return "\n".join(lines + ([str(record["profile_note"])] if record.get("profile_note") else []))


def _summed(rows: Sequence[Mapping[str, Any]]) -> List[Mapping[str, Any]]:
    """One row for those that are not shown."""
    if not rows:
        return []
    total = {name: sum(row[name] for row in rows) for name in ("seconds", "share_percent")}
    return [{"operations": [f"{len(rows)} more rows"], "kernels": [], "calls": None, "percent_of_peak": None, **total}]


def _table(rows: Sequence[Mapping[str, Any]]) -> Table:
    grid = Table(box=SIMPLE_HEAD, padding=(0, 1), collapse_padding=True, pad_edge=False)
    for head in ("share", "time", "calls", "of peak"):
        grid.add_column(head, justify="right", no_wrap=True)
    for head in ("operation", "kernel"):
        grid.add_column(head, no_wrap=True)
    for row in rows:
        peak = row["percent_of_peak"]
        cells = (
            f"{row['share_percent']:.1f}%",
            _seconds(row["seconds"]),
            str(row["calls"] or ""),
            "" if peak is None else f"{peak:.3g}%",
            cut(joined(row["operations"]), OPERATION_WIDTH),
            cut(", ".join(row["kernels"]), KERNEL_WIDTH),
        )
        # Text, not str: names of a user's network are no markup.
        grid.add_row(*map(Text, cells))
    return grid


def joined(operations: Sequence[str]) -> str:
    """The names of operations that ran as one; a block that they share is written once: layer1.0.conv1+bn1+relu3."""
    first, *others = operations
    block = first.rpartition(".")[0]
    while block and not all(name.startswith(f"{block}.") for name in others):
        block = block.rpartition(".")[0]
    return "+".join([first, *(name[len(block) + 1 :] if block else name for name in others)])


def cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."


def _seconds(value: float) -> str:
    return f"-{seconds(-value)}" if value < 0 else seconds(value)

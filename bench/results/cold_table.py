"""The cold path of cases on the terminal: two lines a case, with empty and with filled caches."""

from __future__ import annotations

from typing import Any, Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from bench.results import cold, table
from bench.results.record import Record
from bench.results.units import seconds

HEADS = {
    "total_s": "total",
    "process_start_s": "start",
    "import_s": "import",
    "graph_s": "graph",
    "weights_s": "weights",
    "compile_s": "compile",
    "first_step_s": "1st step",
    "second_step_s": "2nd step",
    "memory_floor_bytes": "floor",
    "memory_loaded_bytes": "loaded",
}
NOTES = (
    "cold: each process had an empty folder for its framework's caches; warm: the folder of the last cold one",
    "total: from the start of the process to the end of the first step, median (range); others: median",
    "memory: resident after the import, and after the second step",
)


def render(records: Sequence[Record], color: bool = False) -> str:
    """The table of the cases that --cold has measured."""
    grid = Table(box=SIMPLE_HEAD, padding=(0, 1), collapse_padding=True, pad_edge=False)
    grid.add_column("caches", no_wrap=True)
    for head in HEADS.values():
        grid.add_column(head, justify="right", no_wrap=True)
    for record in records:
        for state in cold.CACHES:
            grid.add_row(state, *(_cell(record["cold"][state], name) for name in HEADS))
    lines = table.printed(grid, color)
    header = len(lines) - 2 * len(records)
    named = [
        line
        for index, record in enumerate(records)
        for line in (record["id"], *(f"  {row}" for row in lines[header + 2 * index : header + 2 * index + 2]))
    ]
    count = len(records[0]["cold"][cold.COLD])
    title = f"layerbench: the cold path, {count} process{'es' if count > 1 else ''} a line"
    return "\n".join([title, *(f"  {line}" for line in lines[:header]), *named, *NOTES])


def _cell(processes: Sequence[Mapping[str, Any]], name: str) -> str:
    found = cold.summary(processes, name)
    if not found:
        return ""
    if name in cold.MEMORY:
        return f"{found['median'] / 2**20:,.0f} MiB"
    if name != "total_s" or len(processes) == 1:
        return seconds(found["median"])
    return f"{seconds(found['median'])} ({found['least']:.3g}-{found['most']:.3g})"

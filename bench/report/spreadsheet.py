"""Writes runs as CSV (RFC 4180), for spreadsheets and other tools: a line for each case and run."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any, Iterator, List, Sequence

from bench import cache
from bench.report import reading
from bench.report.entries import is_baseline
from bench.report.reading import Run, text
from bench.results.fields import FIELDS
from bench.results.record import Record

OF_RUN = ("run", "date", "commit", "dirty")
COLUMNS = (*OF_RUN, *FIELDS)
# A spreadsheet takes a text that begins with one of these for a formula.
FORMULA = ("=", "+", "-", "@", "\t", "\r")


def write(sources: Sequence[Path], target: Path) -> List[str]:
    """Write the runs of these files, and return what could not be read: a line each. Raises OSError.

    One run at a time is in memory. An older file is replaced as a whole.
    """
    faults: List[str] = []
    with cache.replacing(target) as raw:
        file = io.TextIOWrapper(raw, encoding="utf-8", errors="replace", newline="")
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for source in sources:
            try:
                content = reading.content(source)
                if not is_baseline(content):
                    writer.writerows(rows(reading.from_json(source.name, content)))
            except ValueError as error:
                faults.append(str(error))
        file.detach()
    return faults


def rows(run: Run) -> Iterator[List[Any]]:
    """The lines of a run. INVALID cases are there too, without a rate."""
    of_run = [run.name, run.date, text(run.commit, "id"), run.commit.get("dirty")]
    for record in [*(result.record for result in run.results), *run.invalid]:
        yield [cell(value) for value in (*of_run, *_values(record))]


def _values(record: Record) -> List[Any]:
    return [record.get(name) for name in FIELDS]


def cell(value: Any) -> Any:
    """A value as a cell: a number, or a text that no spreadsheet takes for a formula. A null is empty."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    written = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return f"'{written}" if written.startswith(FORMULA) else written

"""`python -m bench.report FILE.json|FOLDER ... -o FILE.html|FILE.md|FILE.csv`: a report of stored results."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import List, Optional, Sequence

from bench.report import history, index, reading, spreadsheet, writing
from bench.report.entries import is_baseline
from bench.report.history import History
from bench.report.names import MARKDOWN, PAGE
from bench.report.reading import Run

CSV = ".csv"


def main(arguments: Optional[List[str]] = None) -> int:
    """Write the report, and say where it is. Returns the exit code; 4: an argument is wrong."""
    parser = argparse.ArgumentParser("python -m bench.report", description="A report of stored results.")
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE.json|FOLDER",
        help="files of --benchmark-json or of a stored baseline; of a folder, the history and the newest run",
    )
    parser.add_argument(
        "-o",
        action="append",
        required=True,
        metavar="FILE.html|FILE.md|FILE.csv",
        help="the report, or a line for each case and run; repeatable",
    )
    given = parser.parse_args(arguments)
    try:
        paths = [_target(name) for name in given.o]
        faults = _write([Path(name) for name in given.files], paths)
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 4
    except OSError as error:
        sys.stderr.write(f"{error.filename or given.o[0]}: {error.strerror}\n")
        return 4
    for fault in faults:
        sys.stderr.write(f"left out: {fault}\n")
    for path in paths:
        sys.stdout.write(f"{path} ({path.stat().st_size / 1000:.0f} kB)\n")
    return 0


def _target(name: str) -> Path:
    """The path of a report. Raises ValueError for another ending."""
    if Path(name).suffix not in (PAGE, MARKDOWN, CSV):
        raise ValueError(f"{name!r}: a report is a file that ends with {PAGE}, {MARKDOWN} or {CSV}")
    return Path(name)


def _write(sources: Sequence[Path], targets: Sequence[Path]) -> List[str]:
    """Write all targets, and return what a person should know: the files that cannot be used, and why."""
    faults: List[str] = []
    reports = [path for path in targets if path.suffix != CSV]
    if reports:
        past = history.read(sources)
        writing.write(_runs(sources, past), reports, past)
        faults += [*past.notes, *past.faults]
    for path in targets:
        if path.suffix == CSV:
            faults += spreadsheet.write(index.files(sources), path)
    return list(dict.fromkeys(faults))


def _runs(sources: Sequence[Path], past: History) -> List[Run]:
    """The runs that are shown whole: the files that were named, and the newest run of the folders; oldest first."""
    named = [path for path in sources if not path.is_dir()]
    newest = [Path(run.file) for run in past.runs[-1:]]
    contents = {path: reading.content(path) for path in [*named, *newest]}
    runs = [reading.from_json(path.name, content) for path, content in contents.items() if not is_baseline(content)]
    return sorted(runs, key=lambda run: run.date)


if __name__ == "__main__":
    sys.exit(main())

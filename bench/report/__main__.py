"""`python -m bench.report A.json [B.json ...] -o FILE.html [-o FILE.md]`: a report of stored results."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import List, Optional

from bench.report import reading, writing


def main(arguments: Optional[List[str]] = None) -> int:
    """Write the report, and say where it is. Returns the exit code; 4: an argument is wrong."""
    parser = argparse.ArgumentParser("python -m bench.report", description="A report of stored results.")
    parser.add_argument("files", nargs="+", metavar="FILE.json", help="files of --benchmark-json, or folders of them")
    parser.add_argument(
        "-o", action="append", required=True, metavar="FILE.html|FILE.md", help="the report; repeatable"
    )
    given = parser.parse_args(arguments)
    try:
        paths = [Path(writing.require_name(name)) for name in given.o]
        runs = sorted(map(reading.read, reading.files(given.files)), key=lambda run: run.date)
        writing.write(runs, paths)
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 4
    except OSError as error:
        sys.stderr.write(f"{error.filename or given.o[0]}: {error.strerror}\n")
        return 4
    for path in paths:
        sys.stdout.write(f"{path} ({path.stat().st_size / 1000:.0f} kB)\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""A short set of benchmarks for CI: `python scripts/bench_ci.py FOLDER [options of pytest]`.

The first runs on a class of machines store their processes in FOLDER, until there are enough for verdicts. Later runs
are compared with them, and a slower case fails. With --baseline-accept WHY a run adds its processes.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import List

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.devices import cpu  # noqa: E402
from bench.results import baseline  # noqa: E402

# Two layers on every framework that is installed.
CASES = ("-k", "test_layer and (dense or lstm) and not lstm_multi", "--benchmark-only")
FIRST = "one of the first runs of scripts/bench_ci.py on this kind of machine"


def main(folder: str, *more: str) -> int:
    """Run the benchmarks and return pytest's exit code."""
    file = Path(folder).absolute() / f"{baseline.machine_class(cpu.describe())}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    arguments: List[str] = [*CASES, "--baseline", str(file)]
    if not _enough(file) and not any(option.startswith("--baseline-accept") for option in more):
        arguments += ["--baseline-accept", FIRST]
    return subprocess.call([sys.executable, "-m", "pytest", "bench", *arguments, *more], cwd=str(ROOT))


def _enough(file: Path) -> bool:
    """Whether a baseline has enough processes of each case for a verdict; a damaged one is pytest's to refuse."""
    if not file.exists():
        return False
    try:
        stored = baseline.load(file)
    except ValueError:
        return True
    return len(stored.counts) == len(stored.records)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("scripts/bench_ci.py FOLDER [options of pytest]: name the folder of the baselines")
    try:
        sys.exit(main(*sys.argv[1:]))
    except (OSError, ValueError) as error:
        sys.exit(f"ERROR: {error}")

"""A short set of benchmarks for CI: `python scripts/bench_ci.py FOLDER [options of pytest]`.

The first run on a class of machines stores its rates in FOLDER. Later runs are compared with them, and a slower case
fails. With --baseline-accept WHY a run replaces the stored rates.
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
FIRST = "the first run of scripts/bench_ci.py on this kind of machine"


def main(folder: str, *more: str) -> int:
    """Run the benchmarks and return pytest's exit code."""
    file = Path(folder).absolute() / f"{baseline.machine_class(cpu.describe())}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    arguments: List[str] = [*CASES, "--baseline", str(file)]
    if not file.exists() and not any(option.startswith("--baseline-accept") for option in more):
        arguments += ["--baseline-accept", FIRST]
    return subprocess.call([sys.executable, "-m", "pytest", "bench", *arguments, *more], cwd=str(ROOT))


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("scripts/bench_ci.py FOLDER [options of pytest]: name the folder of the baselines")
    try:
        sys.exit(main(*sys.argv[1:]))
    except (OSError, ValueError) as error:
        sys.exit(f"ERROR: {error}")

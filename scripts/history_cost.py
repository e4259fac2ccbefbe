"""Make a folder of many runs, and measure what it costs to read it: `python -m scripts.history_cost FOLDER`.

The files are copies of one file of --benchmark-autosave, with as many cases as asked for and other rates.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
READ = """
import resource, sys, time
from pathlib import Path
from bench.report import history
start = time.perf_counter()
read = history.read([Path(sys.argv[1])])
middle = time.perf_counter()
steps = sum(len(series.steps) for series in read.series)
points = sum(len(series.points) for series in read.series)
rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(f"{points:,} points of {len(read.series)} series: read in {middle - start:.1f} s,"
      f" change points in {time.perf_counter() - middle:.1f} s ({steps}), {rss:.2f} GiB")
"""


def make(folder: Path, template: Path, runs: int, cases: int) -> None:
    """Write the files of `runs` runs of `cases` cases."""
    content = json.loads(template.read_text())
    entries = content["benchmarks"]
    chance = random.Random(0)
    folder.mkdir(parents=True, exist_ok=True)
    content["benchmarks"] = [copy.deepcopy(entries[number % len(entries)]) for number in range(cases)]
    for number, entry in enumerate(content["benchmarks"]):
        entry["extra_info"]["id"] = f"{entry['extra_info']['id']}-{number}"
    for run in range(runs):
        for number, entry in enumerate(content["benchmarks"]):
            entry["extra_info"]["items_per_s"] = (1000 + number) * chance.lognormvariate(0, 0.01)
            entry["extra_info"]["started_s"] = 1.7e9 + 3600 * run + number
        (folder / f"{run:05}_run.json").write_text(json.dumps(content, indent=4))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("template", type=Path, help="a file of --benchmark-autosave")
    parser.add_argument("--runs", type=int, default=10000)
    parser.add_argument("--cases", type=int, default=100)
    given = parser.parse_args()
    if not given.folder.exists():
        make(given.folder, given.template, given.runs, given.cases)
    size = sum(file.stat().st_size for file in given.folder.glob("*.json"))
    print(f"{size / 2**30:.2f} GiB in {len(os.listdir(str(given.folder)))} files", flush=True)
    for state in ("without an index", "with the index"):
        start = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", READ, str(given.folder)], cwd=str(ROOT), check=True)
        print(f"  {state}: {time.perf_counter() - start:.1f} s in all", flush=True)

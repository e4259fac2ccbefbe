"""Make a folder of many runs, and measure what it costs to read it: `python -m scripts.history_cost FOLDER FILE`.

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
from pathlib import Path
from typing import Any, List

from bench.report.entries import FACTS, SERIES

ROOT = Path(__file__).resolve().parent.parent
RATE, START = '"<rate>"', '"<start>"'
READ = """
import resource, sys, time
from pathlib import Path
from bench.report import history
start = time.perf_counter()
read = history.read([Path(sys.argv[1])])
elapsed_s = time.perf_counter() - start
steps = sum(len(series.steps) for series in read.series)
points = sum(len(series.points) for series in read.series)
rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(f"{points:,} points of {len(read.series)} series, {steps} steps: {elapsed_s:.1f} s,"
      f" {time.process_time():.1f} s of a core, {rss:.2f} GiB of memory")
"""


def make(folder: Path, template: Path, runs: int, cases: int, small: bool) -> None:
    """Write the files of `runs` runs of `cases` cases. `small`: with only the fields that a history reads."""
    content = json.loads(template.read_text())
    made = [_case(content["benchmarks"], number, small) for number in range(cases)]
    content["benchmarks"] = []
    if small:
        del content["machine_info"]["cpu"]
    before, after = json.dumps(content).split('"benchmarks": []')
    chance = random.Random(0)
    folder.mkdir(parents=True, exist_ok=True)
    for run in range(runs):
        cells = [
            text.replace(RATE, repr((1000 + number) * chance.lognormvariate(0, 0.01)), 1).replace(
                START, repr(1.7e9 + 3600 * run + number)
            )
            for number, text in enumerate(made)
        ]
        (folder / f"{run:05}_run.json").write_text(f'{before}"benchmarks": [{", ".join(cells)}]{after}')


def _case(entries: List[Any], number: int, small: bool) -> str:
    """A case as JSON, with placeholders for its rate and its start."""
    entry = copy.deepcopy(entries[number % len(entries)])
    record = entry["extra_info"]
    if small:
        kept = {*SERIES, *FACTS, "machine", "schema", "validity", "source", "noise_percent", "disturbed", "steady"}
        kept.add("step_median_s")
        record = {name: value for name, value in record.items() if name in kept}
        entry = {"extra_info": record, "stats": {name: entry["stats"][name] for name in ("q1", "median", "q3")}}
    record.update(id=f"{record['id']}-{number}", items_per_s=RATE[1:-1], started_s=START[1:-1])
    return json.dumps(entry)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("template", type=Path, help="a file of --benchmark-autosave")
    parser.add_argument("--runs", type=int, default=10000)
    parser.add_argument("--cases", type=int, default=100)
    parser.add_argument("--small", action="store_true", help="with only the fields that a history reads")
    given = parser.parse_args()
    if not given.folder.exists():
        make(given.folder, given.template, given.runs, given.cases, given.small)
    size = sum(file.stat().st_size for file in given.folder.glob("*.json"))
    print(f"{size / 2**30:.2f} GiB in {len(os.listdir(str(given.folder)))} files", flush=True)
    for state in ("without an index", "with the index"):
        print(f"  {state}:", flush=True)
        subprocess.run([sys.executable, "-c", READ, str(given.folder)], cwd=str(ROOT), check=True)

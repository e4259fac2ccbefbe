"""Make a folder of autosaves with two steps: `python -m scripts.history_demo FOLDER`.

There are 200 runs of 100 cases with a noise of 1 %. `lstm-h8_t3` of torch is 5 % slower from run 120 on, where the
commit changes. `dense-u64` of onnxruntime is 8 % faster from run 160 on, where the version changes. A baseline was
accepted once, a case was renamed, one came and one went.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import random
from pathlib import Path
from typing import Any, Dict, Iterator, Tuple

from bench.results.fields import FIELDS, SCHEMA

BACKENDS = ("onnxruntime", "openvino", "tensorflow", "torch")
SIZES = {
    "lstm": ("h8_t3", "h16_t3", "h32_t3", "h64_t3", "h128_t5"),
    "gru": ("h8_i8_t3", "h16_i16_t3", "h32_i32_t3", "h64_i64_t3", "h128_i128_t5"),
    "rnn": ("h8_t3", "h16_t3", "h32_t3", "h64_t3", "h128_t5"),
    "dense": ("u32", "u64", "u128", "u512", "u1024"),
    "conv": ("c8", "c16", "c32", "c64", "c128"),
}
START = datetime.datetime(2026, 5, 4, 3, 0, tzinfo=datetime.timezone.utc)
NOISE = 0.01
SLOWER, SLOWER_FROM = ("lstm", "h8_t3", "torch"), 120
FASTER, FASTER_FROM = ("dense", "u64", "onnxruntime"), 160
# These have another name from a run on, come, and go.
RENAMED, RENAMED_FROM = ("conv", "c8", "openvino"), 80
CAME, CAME_AT = ("conv", "c128", "torch"), 50
WENT, WENT_AFTER = ("rnn", "h128_t5", "tensorflow"), 150


def cases() -> Iterator[Tuple[str, str, str]]:
    for workload, sizes in SIZES.items():
        for size in sizes:
            for backend in BACKENDS:
                yield workload, size, backend


def record(case: Tuple[str, str, str], run: int, rate: float, when_s: float) -> Dict[str, Any]:
    """The record of a case; what a history does not need is null."""
    workload, size, backend = case
    shown = f"{workload}_old" if case == RENAMED and run < RENAMED_FROM else workload
    version = "1.31.0" if backend == "onnxruntime" and run < FASTER_FROM else "1.31.1"
    values = {
        "schema": SCHEMA,
        "id": f"{shown}-{size}-inference-b1-fp32-x1-{backend}-cpu",
        "workload": shown,
        "size": size,
        "mode": "inference",
        "batch_size": 1,
        "precision": "fp32",
        "replicas": 1,
        "backend": backend,
        "device": "cpu",
        "source": "measured",
        "validity": "VALID",
        "invalid_reasons": [],
        "items_per_s": rate,
        "item": "sequence",
        "step_median_s": 1 / rate,
        "noise_percent": 0.5,
        "disturbed": False,
        "steady": True,
        "graph": f"graph of {workload} {size}",
        "settings": f"settings of {backend}",
        "threads": 1,
        "framework_version": version,
        "libraries": {"numpy": "2.4.6"},
        "python_version": "3.11.7",
        "machine": {"cpu": "Example CPU", "cores": 2, "kernel": "6.1"},
        "host": "example",
        "device_model": "Example CPU",
        "device_cores": 2,
        "started_s": when_s,
    }
    return {**dict.fromkeys(FIELDS), **values}


def write(folder: Path, runs: int) -> None:
    """Write the files, in the layout of pytest-benchmark."""
    chance = random.Random(14)
    place = folder / "Linux-CPython-3.11-64bit"
    place.mkdir(parents=True)
    levels = {case: math.exp(chance.uniform(math.log(500), math.log(50000))) for case in cases()}
    for run in range(runs):
        when = START + datetime.timedelta(days=run * 200 / runs)
        commit = f"{random.Random(run // 2).getrandbits(160):040x}"
        entries = []
        for number, case in enumerate(cases()):
            if (case == CAME and run < CAME_AT) or (case == WENT and run > WENT_AFTER):
                continue
            step = 0.95 if case == SLOWER and run >= SLOWER_FROM else 1.0
            step = 1.08 if case == FASTER and run >= FASTER_FROM else step
            made = record(case, run, levels[case] * step * chance.lognormvariate(0, NOISE), when.timestamp() + number)
            stats = {name: made["step_median_s"] * factor for name, factor in (("q1", 0.995), ("q3", 1.008))}
            entries.append({"extra_info": made, "stats": stats})
        content = {
            "machine_info": {"layerbench": {"model": "Example CPU", "cores": 2}},
            "commit_info": {"id": commit, "branch": "main", "dirty": False},
            "benchmarks": entries,
            "datetime": when.isoformat(),
        }
        (place / f"{run + 1:04}_{commit}.json").write_text(json.dumps(content))
    accepted = {"who": "Ada", "when": (START + datetime.timedelta(days=60)).isoformat(), "why": "first release"}
    accepted_cases = [record(case, runs, 1.0, 0.0)["id"] for case in (SLOWER, FASTER)]
    baseline = {"accepted": [{**accepted, "cases": accepted_cases}], "benchmarks": []}
    (place / "baseline.json").write_text(json.dumps(baseline))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runs", type=int, default=200)
    given = parser.parse_args()
    write(given.folder, given.runs)

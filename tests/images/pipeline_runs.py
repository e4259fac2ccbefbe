"""What one input pipeline does, in one process: `python pipeline_runs.py PIPELINE RUNS RESULTS`.

RUNS is JSON: by name, the set and the arguments of `open`, and how many batches to take. RESULTS gets what
was seen. test_image_pipelines.py and test_image_faults.py write the one and judge the other.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import sys
import time
from multiprocessing import connection
from multiprocessing.context import ForkProcess
from pathlib import Path

sys.path.extend(str(parent) for parent in list(Path(__file__).resolve().parents)[1:3])

import numpy as np

from bench.images import find, pipelines
from bench.images.counting import counted

DEFAULTS = {
    "batch_size": 2,
    "image_size": 16,
    "workers": 2,
    "training": False,
    "seed": 0,
    "errors": "stop",
    "repeat": False,
}


def children():
    """The processes that this one has started and that are still there."""
    found = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            found += [int(pid) for pid in (task / "children").read_text().split()]
    return found


def seen_of(name, run, folder):
    start = time.monotonic()
    seen = {"labels": [], "digest": "", "error": None, "batches": 0}
    try:
        watched(name, run, folder, seen)
    except Exception as error:  # noqa: BLE001 - what is raised is what is tested
        seen["error"] = [type(error).__name__, str(error)]
    return {**seen, "seconds": time.monotonic() - start, "children": children()}


def watched(name, run, folder, seen):
    engine = pipelines.load(sys.argv[1])
    if "silence_s" in run:
        engine.SILENCE_S = run["silence_s"]
    dataset = counted(find(run["root"], **run.get("find", {})), "skip")
    digest = hashlib.md5()
    with contextlib.ExitStack() as stack:
        if run.get("kill_newborn"):
            stack.enter_context(first_dies_at_birth(engine))
        batches = stack.enter_context(engine.open(dataset, **{**DEFAULTS, **run.get("open", {})}))
        try:
            for images, labels in batches:
                seen["batches"] += 1
                seen["labels"] += labels.tolist()
                seen["form"] = form(images, labels)
                digest.update(images.tobytes())
                if run.get("keep"):
                    np.save(str(folder / f"{name}.npy"), images)
                if seen["batches"] == run.get("kill_after"):
                    os.kill(children()[0], signal.SIGKILL)
                if seen["batches"] == run.get("most"):
                    break
        finally:
            seen["digest"] = digest.hexdigest()
            seen["skipped"] = [batches.skipped.total, batches.skipped.first]


@contextlib.contextmanager
def first_dies_at_birth(engine):
    """Within the context, torch's first worker is dead before the second is started."""
    start, end_with = ForkProcess.start, engine._end_with

    def slow(process):
        start(process)
        connection.wait([process.sentinel], 1.0)

    def killed(pid, number):
        if number == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        end_with(pid, number)

    ForkProcess.start, engine._end_with = slow, killed
    try:
        yield
    finally:
        ForkProcess.start, engine._end_with = start, end_with


def form(images, labels):
    held = images.transpose(0, 2, 3, 1)
    return [str(images.dtype), list(images.shape), bool(held.flags["C_CONTIGUOUS"]), str(labels.dtype)]


if __name__ == "__main__":
    results = Path(sys.argv[3])
    runs = json.loads(Path(sys.argv[2]).read_text())
    answer = {name: seen_of(name, run, results.parent) for name, run in runs.items()}
    results.write_text(json.dumps(answer))

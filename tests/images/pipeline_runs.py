"""What one input pipeline does, in processes that have its framework: `python pipeline_runs.py PIPELINE`.

A line of standard input is the JSON of [folder, time limit in seconds]. A fork answers it: `runs.json` of the folder
has, by name, the set and the arguments of `open`, and how many batches to take; `seen.json` gets what was seen, and
`said.txt` what was printed. A line of standard output is the exit code of the fork.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import os
import signal
import sys
import time
import traceback
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
        from torch.utils.data import _utils

        # For so long, 5 s otherwise, torch waits for a worker that does not end by itself.
        engine.SILENCE_S = _utils.MP_STATUS_CHECK_INTERVAL = run["silence_s"]
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


def answered(folder, limit_s):
    """The exit code of a fork: negative, the number of a signal."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            answer(folder, limit_s)
            code = 0
        finally:
            if code:
                traceback.print_exc()
            sys.stdout.flush()
            os._exit(code)
    status = os.waitpid(child, 0)[1]
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)


def answer(folder, limit_s):
    signal.alarm(limit_s)
    with (folder / "said.txt").open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ["LAYERBENCH_CACHE"] = str(folder)
    runs = json.loads((folder / "runs.json").read_text())
    (folder / "seen.json").write_text(json.dumps({name: seen_of(name, run, folder) for name, run in runs.items()}))


if __name__ == "__main__":
    importlib.import_module(pipelines.load(sys.argv[1]).PACKAGE)
    for line in sys.stdin:
        where, limit_s = json.loads(line)
        print(answered(Path(where), limit_s), flush=True)

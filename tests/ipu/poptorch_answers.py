"""What the fake PopTorch was asked to do, and what came of it: asked once in a process of its own, for all tests."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import poptorch_matrix
import pytest

ROOT = Path(__file__).resolve().parents[2]
FAKES = ROOT / "tests" / "fakes"
OPTIONS = "poptorch.Options"
EXECUTOR = "poptorch.PoplarExecutor"


def environment(**more):
    """That of a process for which the fakes are the SDK."""
    path = os.pathsep.join([str(FAKES), str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "ipu")])
    there = {"PYTHONPATH": path, "PATH": f"{FAKES / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    # PYTEST_: a run within a run is no worker of the outer one.
    dropped = ("FAKE_", "POPLAR_", "POPTORCH_", "PYTEST_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    return {**kept, **there, "POPLAR_SDK_ENABLED": "/opt/fake", "OMP_NUM_THREADS": "1", **more}


@functools.lru_cache(maxsize=1)
def answers():
    """What came of every case and question, by its name."""
    pytest.importorskip("torch")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "answers.json"
        command = [sys.executable, poptorch_matrix.__file__, str(file)]
        done = subprocess.run(command, env=environment(), cwd=folder, stderr=subprocess.PIPE, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-4000:]
        return json.loads(file.read_text())


def ask(name):
    """The answer to a question; a failure where asking it failed."""
    found = answers()[name]
    assert found["outcome"] == "passed", found["text"]
    return found["found"]


def calls_of(recorded, name):
    """The arguments of every call of a name."""
    return [arguments for called, arguments in recorded if called == name]


def popart(recorded):
    return {each["key"]: each["value"] for each in calls_of(recorded, f"{OPTIONS}._Popart.set")}


def setters(recorded):
    """What each setter of the options was told, all but PopART's own."""
    found = {}
    for name, arguments in recorded:
        if name.startswith(f"{OPTIONS}.") and not name.endswith("_Popart.set"):
            values = list(arguments.values())
            found[name[len(OPTIONS) + 1 :]] = values[0] if len(values) == 1 else arguments
    return found


def order(recorded, *names):
    """Where each call first stands; raises where there is none."""
    every = [name for name, _ in recorded]
    return [every.index(name) for name in names]

"""The answers of `contract_worker.py`. All tests share one process for each backend."""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from contract_sdks import SDKS
from ipu_fakes import FAKES, TOOLS_PATH

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TIMEOUT_S = 600.0


def environment(**more):
    """The environment of a process that uses the fakes as its SDK."""
    path = os.pathsep.join(str(folder) for folder in (FAKES, ROOT, ROOT / "tests", HERE))
    fakes = {"PYTHONPATH": path, "PATH": TOOLS_PATH}
    quiet = {"OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    # PYTEST_: a pytest started here is not an xdist worker of this one.
    dropped = ("FAKE_", "POPLAR_", "POPTORCH_", "POPART_", "PYTEST_", "TF_POPLAR_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    return {**kept, **fakes, **quiet, "POPLAR_SDK_ENABLED": "/opt/fake", **more}


def require(backend):
    for module in SDKS[backend].needs:
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")


@functools.lru_cache(maxsize=None)
def _asked(backend, part):
    """The answers of a process, or why there are none."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "answers.json"
        command = [sys.executable, str(HERE / "contract_worker.py"), backend, part, str(file)]
        try:
            done = subprocess.run(
                command, env=environment(), cwd=folder, capture_output=True, text=True, timeout=TIMEOUT_S
            )
        except subprocess.TimeoutExpired:
            # Each test says so, and none waits again.
            return f"{backend}: no end after {TIMEOUT_S:g} s"
        return done.stderr[-4000:] if done.returncode else json.loads(file.read_text())


def answers(backend, part="fast"):
    require(backend)
    found = _asked(backend, part)
    assert isinstance(found, dict), found
    return found


def ask(backend, kind, name):
    """The answer to a question. Fails if the question did."""
    answer = answers(backend)[kind][name]
    assert answer["outcome"] == "passed", answer.get("where", answer.get("text"))
    return answer


def arguments(answer, name):
    """The arguments of each call of a function."""
    return [given for called, given in answer["calls"] if called == name]

"""What came of the popart backend on the fake SDK: one process answers for all tests."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
FAKES = ROOT / "tests" / "fakes"
ACQUIRE, ENTER, LEAVE = "DeviceManager.tryAcquireAvailableDevice", "DeviceInfo.__enter__", "DeviceInfo.__exit__"
COMPILED = ["DeviceManager", ACQUIRE, ENTER, "S", "S.prepareDevice"]
TRAINED = [*COMPILED, "S.weightsFromHost", "S.initAnchorArrays"]


def environment(**more):
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("FAKE_IPU", "POPLAR_", "POPART_", "PYTEST_"))
    }
    own = {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{FAKES}{os.pathsep}{ROOT}"}
    tools = f"{FAKES / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return {**kept, **own, "PATH": tools, "POPLAR_SDK_ENABLED": "/opt/fake", **more}


@functools.lru_cache(maxsize=None)
def answers():
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "answers.json"
        command = [sys.executable, str(HERE / "popart_matrix.py"), str(path)]
        done = subprocess.run(command, env=environment(), stderr=subprocess.PIPE, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr[-4000:]
        return json.loads(path.read_text())


def calls_with(found, name):
    return [arguments for called, arguments in found["arguments"] if called == name]

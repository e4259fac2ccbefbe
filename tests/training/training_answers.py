"""Ask a backend, in a process of its own, what its training steps do."""

from __future__ import annotations

import importlib.util
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from bench import backends
from bench.cases.case import Settings

# Those of IPUs have tests of their own, on fakes.
ENGINES = [
    name
    for name in backends.names()
    if "training" in backends.load(name).modes and "cpu" in backends.load(name).devices
]


def asked(engine, jobs, path):
    """The answers of training_steps.py to `jobs`; skips where the backend's framework is not installed."""
    made = backends.load(engine)
    if importlib.util.find_spec(made.package) is None:
        pytest.skip(f"{made.package} is not installed")
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    env = {**os.environ, **made.environment(Settings(), "cpu"), **quiet}
    command = [sys.executable, str(Path(__file__).with_name("training_steps.py")), engine, str(path)]
    done = subprocess.run(command, input=json.dumps(jobs), env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    return pickle.loads(path.read_bytes())

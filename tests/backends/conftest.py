"""What the backends make of the matrices of small layers and networks: one process a framework for all of it."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench import backends
from bench.cases.case import Settings

SCRIPT = Path(__file__).with_name("matrices.py")
TIMEOUT_S = 900.0
# Those that take longest, first: all of them run side by side.
ORDER = ("jax", "tensorflow", "torch", "openvino", "numpy", "onnxruntime", "models")


def engines():
    """Backends of this machine's processor. Those of IPUs have tests of their own, on fakes."""
    return [engine for engine in backends.names() if "cpu" in backends.load(engine).devices]


def package_of(engine):
    return "onnx" if engine == "models" else backends.load(engine).package


@pytest.fixture(scope="session")
def matrix(pytestconfig, tmp_path_factory):
    """Return a function from a backend and a kind, layers or networks, to its answers by key; and from `models`,
    twice, to the ONNX models. It skips where the package is not there. The first question starts all processes."""
    folder = tmp_path_factory.mktemp("matrices")
    thorough = ["thorough"] if pytestconfig.option.thorough else []
    processes, known = {}, {}

    def start(engine):
        (folder / engine).mkdir()
        own = {} if engine == "models" else backends.load(engine).environment(Settings(), "cpu")
        env = {**os.environ, **own, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
        command = [
            sys.executable,
            str(Path(__file__).with_name("matrices.py")),
            engine,
            str(folder / engine),
            *thorough,
        ]
        with (folder / engine / "stderr").open("w") as stderr:
            return subprocess.Popen(command, env=env, stderr=stderr)

    def read(engine, kind):
        path, deadline = folder / engine / f"{kind}.json", time.monotonic() + TIMEOUT_S
        while not path.exists():
            ended = processes[engine].poll() is not None
            if not path.exists() and (ended or time.monotonic() > deadline):
                said = (folder / engine / "stderr").read_text()[-4000:]
                return f"{engine}: exit code {processes[engine].poll()}\n{said}"
            time.sleep(0.1)
        return json.loads(path.read_text())

    def ask(engine, kind):
        if importlib.util.find_spec(package_of(engine)) is None:
            pytest.skip(f"{package_of(engine)} is not installed")
        if not processes:
            asked = sorted([*engines(), "models"], key=[*ORDER, *engines()].index)
            there = [name for name in asked if importlib.util.find_spec(package_of(name))]
            processes.update({name: start(name) for name in there})
        if (engine, kind) not in known:
            known[engine, kind] = read(engine, kind)
        assert not isinstance(known[engine, kind], str), known[engine, kind]
        return known[engine, kind]

    yield ask
    for process in processes.values():
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()

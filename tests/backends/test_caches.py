"""Each framework that keeps compiled programs keeps them in the folder of the settings, which --cold gives it."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench import backends

ROOT = Path(__file__).resolve().parents[2]
# Compiles a layer in a process of its own: a framework reads the folder's name once.
PROGRAM = """
import json, os, sys
from bench import backends, workloads
from bench.cases.case import Case, Settings
from bench.graph import draws

backend, workload, folder = json.loads(sys.argv[1])
settings = Settings(caches=folder)
engine = backends.load(backend)
os.environ.update(engine.environment(settings, "cpu"))
size = dict(next(iter(workloads.named_sizes(workloads.load(workload)).values())))
del size["batch_size"]
case = Case(workload, "first", size, "inference", 1, "fp32", 1, backend, "cpu")
graph = workloads.of_case(case)
inputs = [draws.inputs(graph, "float32", 0)]
print(engine.compile(graph, draws.weights(graph, "float32"), inputs, case, settings).not_compiled or "")
"""


@pytest.mark.parametrize(
    "backend, workload",
    [
        ("openvino", "dense"),
        ("tensorflow", "lstm"),
        ("jax", "dense"),
        pytest.param("torch", "hmc", marks=pytest.mark.thorough),
    ],
)
def test_compiled_programs_are_kept_in_the_folder_of_the_settings(backend, workload, tmp_path):
    if importlib.util.find_spec(backends.load(backend).package) is None:
        pytest.skip(f"{backend} is not installed")

    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps([backend, workload, str(tmp_path)])],
        cwd=str(ROOT),
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stderr
    if done.stdout.strip():
        pytest.skip(done.stdout.strip())
    assert [path for path in tmp_path.rglob("*") if path.is_file()]

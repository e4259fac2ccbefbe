"""What a framework compiles while a case is timed is counted. Each test asks a process with the framework in it."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench import backends
from bench.cases.case import Settings

ROOT = Path(__file__).resolve().parents[2]
# The count after the first run, after ten more on other inputs, and after another function was compiled, or the same
# one for another shape.
COUNTS = """
import json
import numpy as np
from bench import backends, workloads
from bench.cases.case import Case, Settings
from bench.graph import draws
case = Case("dense", "u8", {{"units": 8, "activation": "none"}}, "inference", 4, "fp32", 1, "{name}", "cpu")
graph = workloads.of_case(case)
inputs = [draws.inputs(graph, "float32", batch) for batch in range(2)]
program = backends.load("{name}").compile(graph, draws.weights(graph, "float32"), inputs[:1], case, Settings())
counts = [program.compiles()]
for batch in 5 * inputs:
    program.feed([batch])
    program.run()
counts.append(program.compiles())
{again}
print(json.dumps([*counts, program.compiles()]))
"""
AGAIN = {
    "torch": "import torch; torch.compile(lambda x: x + 1, backend='eager')(torch.ones(3))",
    "tensorflow": "program.functions[0](np.concatenate(2 * list(inputs[0].values())).astype('float32'))",
    "jax": "import jax; jax.jit(lambda x: x + 1)(np.ones(3))",
}


@pytest.mark.parametrize("name", AGAIN)
def test_a_framework_counts_what_it_compiles_and_not_what_it_runs(name):
    package = backends.load(name).package
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")

    shown = subprocess.run(
        [sys.executable, "-c", COUNTS.format(name=name, again=AGAIN[name])],
        cwd=str(ROOT),
        env={**os.environ, **backends.load(name).environment(Settings(), "cpu"), "TF_CPP_MIN_LOG_LEVEL": "3"},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )

    first, later, again = json.loads(shown.stdout.splitlines()[-1])
    assert first == later < again


@pytest.mark.parametrize("name", ["numpy", "onnxruntime", "openvino"])
def test_what_compiles_ahead_of_the_first_run_counts_nothing(name):
    package = backends.load(name).package
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    code = COUNTS.format(name=name, again="")

    shown = subprocess.run([sys.executable, "-c", code], cwd=str(ROOT), stdout=subprocess.PIPE, check=True, text=True)

    assert json.loads(shown.stdout.splitlines()[-1]) == [0, 0, 0]

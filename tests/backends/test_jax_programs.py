"""What the programs of JAX do beyond the matrices. Each test asks a process with JAX in it."""

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
# The CPU refuses 16 bits, because XLA multiplies in fp32 there. The types and numbers around the products can be
# checked all the same: the programs are compiled as on another device.
SIXTEEN_BITS = """
import sys
sys.path.insert(0, "tests")
import json
import backend_matrix
from bench.cases.case import Settings
found = {}
for layer in ("dense", "conv", "lstm"):
    for precision in ("fp16", "fp16m", "bf16", "bf16m"):
        mode = "inference" if layer == "conv" and "fp16" in precision else "training"
        case = backend_matrix.case_of("jax", (layer, "plain", mode, precision, "", ""))
        seen = backend_matrix.tried(case, Settings())
        found[f"{layer} {precision}"] = [seen["compute"], seen["held"], seen["facts"]]
print(json.dumps(found))
"""
PRODUCTS = """
import json
import jax
import jax.numpy as jnp
found = {}
for dtype in ("bfloat16", "float16"):
    x = jnp.ones((64, 64), dtype)
    text = jax.jit(jnp.dot).lower(x, x).compile().as_text()
    found[dtype] = [line.split(" = ")[1][:3] for line in text.splitlines() if " dot(" in line]
print(json.dumps(found))
"""
UPDATES = """
import sys
sys.path.insert(0, "tests")
import json
import os
import backend_matrix
from bench import workloads
from bench.cases.case import Settings
case = backend_matrix.case_of("jax", ("lstm", "plain", "training", "fp32", "", ""))
program, weights = backend_matrix.compiled(workloads.of_case(case), case, Settings(threads=3))
ready = []
for rate in (0.1, 0.0, 0.1):
    program.set_learning_rate(rate)
    program.run()
    ready += [array.is_ready() for array in [*program.results, *program.held.values()]]
    program.load(weights)
program.run()
tasks = [open(f"/proc/self/task/{task}/comm").read().strip() for task in os.listdir("/proc/self/task")]
found = {"ready": all(ready), "compiled": program.update._cache_size(), "threads": tasks.count("tf_XLAEigen")}
print(json.dumps(found))
"""


def answer(code, threads=1):
    """What a process with the backend's environment prints; skips where JAX is not installed."""
    if importlib.util.find_spec("jax") is None:
        pytest.skip("jax is not installed")
    env = {**os.environ, **backends.load("jax").environment(Settings(threads=threads), "cpu")}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)


def test_sixteen_bits_are_refused_on_the_cpu_only():
    jax = backends.load("jax")

    for precision in ("fp16", "fp16m", "bf16", "bf16m"):
        assert "in fp32" in (jax.unsupported(precision, "training", "cpu") or "")
        assert jax.unsupported(precision, "training", "cuda") is None
    assert jax.unsupported("fp32", "training", "cpu") is None


def test_the_reason_for_that_holds_products_of_sixteen_bits_are_fp32_on_the_cpu():
    assert answer(PRODUCTS) == {"bfloat16": ["f32"], "float16": ["f32"]}


def test_sixteen_bit_programs_have_the_types_and_numbers_of_their_precision():
    types = {
        "fp16": ("float16", "float16"),
        "fp16m": ("float16", "float32"),
        "bf16": ("bfloat16", "bfloat16"),
        "bf16m": ("bfloat16", "float32"),
    }

    found = answer(SIXTEEN_BITS)

    assert {key: tuple(seen[:2]) for key, seen in found.items()} == {
        f"{layer} {name}": types[name] for layer in ("dense", "conv", "lstm") for name in types
    }
    scaled = {key for key, seen in found.items() if seen[2].get("loss_scale", 1) > 1}
    assert scaled == {"dense fp16", "dense fp16m", "lstm fp16", "lstm fp16m"}


def test_an_update_is_compiled_once_is_done_when_it_returns_and_has_the_threads_of_the_case():
    assert answer(UPDATES, threads=3) == {"ready": True, "compiled": 1, "threads": 3}

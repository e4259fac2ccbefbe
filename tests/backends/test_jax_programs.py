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
# The text of a compiled module, as jax 0.10.2 prints it, shortened.
MODULE = """
HloModule jit__step, is_scheduled=true, entry_computation_layout={(f32[4,8]{1,0})->f32[4,8]{1,0}}

%fused (param_0: f32[4,8], param_1: (s32[], f32[8,8])) -> f32[4,8] {
  %param_0 = f32[4,8]{1,0} parameter(0)
  ROOT %dot.1 = f32[4,8]{1,0} dot(%param_0, %param_1), metadata={op_name="jit(_step)/n1_a/dot"}
}

ENTRY %main.7 (x.1: f32[4,8]) -> f32[4,8] {
  %while.6 = (s32[], /*index=1*/f32[4,8]{1,0}) while(%tuple.2), body=%region, metadata={op_name="jit(_step)/n2_b/while"}
  %copy.10 = s32[] copy(%constant.13)
  ROOT %fusion = f32[4,8]{1,0} fusion(%x.1, %copy.10), calls=%fused, metadata={op_name="jit(_step)/n3_c/max"}
}
"""
PARSED = f"""
import json
from bench.backends.jax import profiler
print(json.dumps(list(profiler.instructions({MODULE.strip()!r}))))
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


def test_the_text_of_a_module_tells_the_scope_of_each_instruction_and_what_a_fusion_runs():
    parsed = answer(PARSED)
    found = {name: rest for _, _, name, *rest in parsed}

    assert {(module, where, name) for module, where, name, *_ in parsed} == {
        ("jit__step", "fused", "param_0"),
        ("jit__step", "fused", "dot.1"),
        ("jit__step", "main.7", "while.6"),
        ("jit__step", "main.7", "copy.10"),
        ("jit__step", "main.7", "fusion"),
    }
    assert found["dot.1"] == ["dot", "jit(_step)/n1_a/dot", ""]
    assert found["while.6"] == ["while", "jit(_step)/n2_b/while", ""]
    assert found["copy.10"] == ["copy", "", ""]
    assert found["fusion"] == ["fusion", "jit(_step)/n3_c/max", "fused"]

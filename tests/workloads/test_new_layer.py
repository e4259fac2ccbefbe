"""A layer of known primitives is one file: dropped into the folder, it runs on every backend, checked."""

from __future__ import annotations

import importlib.util
from typing import Any, Callable, Dict, List, Tuple

import pytest
from suite import Result, Suite

FRAMEWORKS = ("torch", "tensorflow", "onnxruntime", "openvino")

LAYER = '''
"""A gated block: a dense branch times another, added to the input.

Shapes   in (batch, width), out (batch, width)
Item     one row
"""

from __future__ import annotations

from bench.graph import Graph, Tensor
from bench.cases.dimension import Dimension

ITEM = "row"
DIMENSIONS = {"block_width": Dimension("w", "width of a gated block", maximum=4096)}
SIZES = ({"batch_size": 4, "block_width": 16},)
TINY = {"block_width": 8}
LEARNING_RATE = 0.01


def build(net: Graph, *, block_width: int) -> Tensor:
    """Add the block to `net` and return its output."""
    x = net.input(block_width)
    gate = net.relu(net.dense(x, block_width))
    return net.add(x, net.mul(gate, net.affine(net.dense(x, block_width), 0.5, 1.0)))


def loss(net: Graph, output: Tensor, **size: object) -> Tensor:
    return net.mean(output)
'''


def runs(backend: str) -> bool:
    """Whether a backend's packages are here; found without loading them."""
    needed = {"onnxruntime": ("onnx", "onnxruntime"), "openvino": ("onnx", "openvino")}.get(backend, (backend,))
    return all(importlib.util.find_spec(name) for name in needed)


@pytest.fixture(scope="module")
def extended(new_suite: Callable[[], Suite]) -> Suite:
    """A copy with one more file in bench/workloads/layers."""
    suite = new_suite()
    suite.add("bench/workloads/layers/gated_block.py", LAYER)
    return suite


@pytest.fixture(scope="module")
def measured(extended: Suite) -> Tuple[Result, Dict[str, Any]]:
    """One run of the new layer on every backend, numpy first, in inference and training."""
    result = extended.run(
        "-k",
        "gated_block",
        "--backend=" + ",".join(("numpy", *FRAMEWORKS)),
        "--mode=inference,training",
        "--steps=3",
        "--benchmark-json=run.json",
        "-rs",
    )
    return result, extended.read("run.json")


def records(measured: Tuple[Result, Dict[str, Any]], mode: str) -> List[Dict[str, Any]]:
    found = [entry["extra_info"] for entry in measured[1]["benchmarks"]]
    return [record for record in found if record["mode"] == mode]


def test_the_run_is_green(measured: Tuple[Result, Dict[str, Any]]) -> None:
    assert measured[0].returncode == 0, measured[0].text


@pytest.mark.parametrize("backend", ["numpy", *FRAMEWORKS])
def test_a_new_layer_is_measured_and_checked(measured: Tuple[Result, Dict[str, Any]], backend: str) -> None:
    if not runs(backend):
        pytest.skip(f"{backend} is not installed")

    (record,) = [each for each in records(measured, "inference") if each["backend"] == backend]

    assert record["id"] == f"gated_block-w16-inference-b4-fp32-x1-{backend}-cpu"
    assert record["checked_rows"] == 4
    assert record["relative_error"] <= record["tolerance"]


@pytest.mark.parametrize("backend", ["torch", "tensorflow"])
def test_a_new_layer_is_trained_and_checked(measured: Tuple[Result, Dict[str, Any]], backend: str) -> None:
    if not runs(backend):
        pytest.skip(f"{backend} is not installed")

    (record,) = [each for each in records(measured, "training") if each["backend"] == backend]

    assert 0 < record["gradient_error"] <= 4 * record["tolerance"]


def test_every_backend_counts_the_same_work(measured: Tuple[Result, Dict[str, Any]]) -> None:
    """Two dense branches: 2 x (16 x 16 + 16) parameters, 2 x 2 x 16 x 16 FLOPs a row."""
    counted = {(each["graph"], each["parameters"], each["flops_per_item"]) for each in records(measured, "inference")}

    assert len(counted) == 1
    assert counted.pop()[1:] == (544, 1024)


def test_a_new_dimension_is_an_option_with_its_text(extended: Suite) -> None:
    result = extended.run("--help")

    assert result.returncode == 0, result.text
    assert "--block-width=N,..." in result.stdout
    assert "gated_block: width of a gated block" in " ".join(result.stdout.split())


def test_a_new_dimension_is_parsed_and_refused_as_any_other(extended: Suite) -> None:
    taken = extended.run("--collect-only", "-q", "-k", "gated_block", "--block-width=8,32")
    refused = extended.run("-k", "dense", "--block-width=5000")

    assert taken.returncode == 0, taken.text
    assert [f"[gated_block-w{width}-" in taken.stdout for width in (8, 32)] == [True, True]
    assert refused.returncode == 4, refused.text
    assert "--block-width: 5000 is not within 1 to 4096" in refused.stderr

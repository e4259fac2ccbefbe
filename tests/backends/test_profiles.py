"""Each framework's profile of a dense, an LSTM and a small conv network, in inference and in training."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from bench import backends
from bench.cases.case import Case, Settings
from bench.graph import Graph
from bench.profiling import Unprofiled
from bench.program import Program
from bench.results.profile import OUTSIDE

SCRIPT = Path(__file__).with_name("profiling_networks.py")
NAMES = ("numpy", "onnxruntime", "openvino", "torch", "tensorflow")
# What any machine computes in a microsecond.
MICROSECOND_FLOP = 1000
NETWORKS = [
    (name, f"{network} {mode}")
    for name in NAMES
    for network in ("dense", "lstm", "conv")
    for mode in ("inference", "training")
    if mode in backends.load(name).modes
]


@pytest.fixture(scope="module")
def ask():
    """Return a function from a backend to its answers. It skips where the package is not there."""
    known = {}

    def answers(name):
        package = backends.load(name).package
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
        if name not in known:
            own = backends.load(name).environment(Settings(), "cpu")
            shown = subprocess.run(
                [sys.executable, str(SCRIPT), name],
                env={**os.environ, **own, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""},
                capture_output=True,
                text=True,
            )
            assert shown.returncode == 0, shown.stderr[-4000:]
            known[name] = json.loads(shown.stdout.splitlines()[-1])
        return known[name]

    return answers


@pytest.fixture
def told(ask, name, network):
    return ask(name)[network]


@pytest.mark.parametrize(("name", "network"), NETWORKS)
def test_shares_and_what_is_outside_add_up_to_the_step(told):
    *_, outside = told["rows"]

    assert outside["operations"] == [OUTSIDE]
    assert sum(row["share_percent"] for row in told["rows"]) == pytest.approx(100)
    assert all(row["seconds"] >= 0 for row in told["rows"][:-1])


@pytest.mark.parametrize(("name", "network"), NETWORKS)
def test_each_node_with_flop_is_in_one_row_that_has_a_kernel(told):
    rows = Counter(name for row in told["rows"] for name in row["operations"])
    passes = {
        row["flops"] / sum(told["flops"].get(name, 0) for name in row["operations"])
        for row in told["rows"]
        if row["flops"]
    }

    assert {name: rows[name] for name in told["flops"]} == dict.fromkeys(told["flops"], 1)
    assert len(passes) == 1
    for row in told["rows"]:
        assert not row["flops"] or (row["kernels"] and row["calls"] > 0)
        # OpenVINO counts whole microseconds: a few hundred FLOP may take none.
        assert row["flops"] < MICROSECOND_FLOP or row["seconds"] > 0


@pytest.mark.parametrize(("name", "network"), [each for each in NETWORKS if each[1].startswith("dense")])
def test_the_largest_product_has_the_largest_share(told):
    assert max(told["flops"], key=told["flops"].get) in told["rows"][0]["operations"]


@pytest.mark.parametrize(("name", "network"), [each for each in NETWORKS if each[1].startswith("lstm")])
def test_two_lstms_are_two_rows_unless_one_kernel_computes_both(told):
    rows = [row for row in told["rows"] if any(name.startswith("lstm") for name in row["operations"])]

    assert sorted(name for row in rows for name in row["operations"] if name.startswith("lstm")) == ["lstm1", "lstm2"]
    assert len(rows) == 2


@pytest.mark.parametrize(("name", "network"), NETWORKS)
def test_the_trace_is_json_with_events_and_the_program_still_computes_the_same(told):
    assert told["events"] > 0
    assert told["runs"] > 0
    assert told["same"]


def test_a_program_without_a_profiler_says_so():
    case = Case("dense", "u8", {}, "inference", 4, "fp32", 1, "jax", "cpu")

    with pytest.raises(Unprofiled, match="jax on the cpu"):
        Program(Graph(4), case, Settings()).profile(3)

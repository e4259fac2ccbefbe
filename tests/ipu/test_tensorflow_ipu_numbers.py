"""TensorFlow for IPU on fakes that compute on the CPU: its numbers against the reference and stock TensorFlow."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys

import pytest
import tensorflow_ipu_cases as cases
from tensorflow_ipu_cases import ENV, FAKES, calls, given

pytestmark = pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="tensorflow is not installed")

CHECKS = cases.checks()
WRONG = [name for name in CHECKS if name.startswith("wrong")]
RIGHT = [name for name in CHECKS if name not in WRONG]


@pytest.fixture(scope="module")
def answers():
    return cases.answers()


@pytest.mark.parametrize("name", RIGHT)
def test_it_computes_what_the_reference_does(answers, name):
    found = answers[name]

    assert found["outcome"] == "passed", found.get("where", found.get("text"))
    assert 0 <= found["said"]["relative_error"] <= found["said"]["tolerance"]


@pytest.mark.parametrize("name", WRONG)
def test_a_replica_a_batch_or_a_gradient_that_is_wrong_is_noticed(answers, name):
    known = {"replica": "batch 1 of 2 of a call", "iteration": "of a call is off"}

    assert answers[name]["outcome"] in ("Wrong", "_WrongUpdate")
    assert known.get(name.split()[1], "the update of one training step") in answers[name]["text"]


def test_every_layer_runs_in_every_mode_that_it_has_and_in_each_of_its_ways():
    names = {"-".join([layer, mode, *way, *way.values()]) for layer, mode, way in cases.layers()}

    assert {"lstm-training-bias-off", "gru-training", "hmc-inference", "grouped_conv-training"} <= names <= {*RIGHT}
    assert {f"{network}-{mode}" for network in cases.NETWORKS for mode in cases.MODES} <= {*RIGHT}


def test_replicas_and_iterations_get_batches_in_turn_and_give_results_in_order(answers):
    assert answers["order"]["all"]["said"] == [
        *[[0, 1, 2, 3], [0, 1, 2, 3]],
        *[[3, 4, 3, 4], [3, 4, 3, 4]],
        *[[0, 1, 2, 3], [4, 0, 1, 2]],
    ]
    assert answers["order"]["final"]["said"] == [[2, 3], [2, 3], [3, 4], [3, 4], [2, 3], [1, 2]]


def test_batches_that_were_fetched_ahead_do_not_outlive_a_feed(answers):
    """The fake can keep them: then the first call after a feed would answer the batches from before."""
    assert answers["order"]["stale"]["said"] != answers["order"]["all"]["said"]


def test_a_whole_run_counts_the_items_of_every_batch_update_and_replica(answers):
    training, inference = (answers["whole"][mode]["said"] for mode in ("training", "inference"))

    assert (training["items_per_step"], inference["items_per_step"]) == (3 * 3 * 2 * 2, 3 * 3 * 2)
    assert {found["source"] for found in (training, inference)} == {"fake"}
    assert {found["items_per_s"] for found in (training, inference)} == {None}
    assert (training["tuned_output_mode"], training["checked_rows"]) == ("all", 3)


def test_a_whole_run_that_is_wrong_is_not_recorded_and_lets_go(answers):
    found = answers["whole"]["wrong"]

    assert (found["outcome"], found["held"]) == ("Wrong", None)


@pytest.mark.parametrize("accumulation", [1, 3])
def test_running_statistics_end_where_stock_tensorflow_leaves_them(answers, accumulation):
    ours, stock = (answers["statistics"][f"{engine} {accumulation}"]["said"] for engine in (cases.ENGINE, "tensorflow"))

    assert len(ours) > 10
    for name, known in stock.items():
        assert ours[name] == pytest.approx(known, rel=1e-4, abs=1e-5), name


@pytest.mark.parametrize("name", ["momentum", "rmsprop_tf", "adamw", "lars", "scaled"])
def test_an_optimiser_leaves_the_weights_where_stock_tensorflow_does(answers, name):
    ours, stock = (found["said"] for found in answers["optimisers"][name])

    for key, known in stock.items():
        assert ours[key] == pytest.approx(known, rel=1e-4, abs=1e-6), key


def test_logits_of_a_trained_network_use_its_running_statistics(answers):
    assert answers["predicted"]["said"] < 1e-5


def test_no_batch_of_a_loop_can_be_computed_before_the_one_before(answers):
    """Else a compiler could compute what never changes once, and the loop would be empty."""
    assert [answers["chained"][steps]["said"]["close"] for steps in ("1", "2")] == [True, False]


@pytest.mark.parametrize("name", ["inference", "eval", "training", "pipeline", "trained pipeline", "no inputs"])
def test_synthetic_batches_stay_on_the_device(answers, name):
    found = answers["resident"][name]
    called = calls(found)
    pipelined = name.endswith("pipeline")

    assert not given(called, "ipu_infeed_queue.IPUInfeedQueue")
    assert len(given(called, "ipu_outfeed_queue.IPUOutfeedQueue")) == pipelined
    assert not any("flags" in str(arguments) for _, arguments in called)
    if pipelined:
        assert {told["accumulate_outfeed"] for told in given(called, "ops.pipelining_ops.pipeline")} == {True}
        assert found["said"]["finite"]
    elif name != "no inputs":
        assert found["said"]["close"]


def test_a_whole_run_is_recorded_as_a_fake_and_has_no_rate(tmp_path):
    path = tmp_path / "record.json"
    command = [sys.executable, "-m", "pytest", "bench", "-k", "dense", "--device", "ipu", "--backend", cases.ENGINE]
    command += ["--sizes", "first", "--batches-per-step", "2", "--steps", "2", "--pin", "none", "--benchmark-only"]
    command += ["--benchmark-json", str(path), "-p", "no:cacheprovider"]
    outer = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    env = {**outer, **ENV, "LAYERBENCH_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(command, env=env, cwd=FAKES.parent.parent, capture_output=True, text=True, timeout=300)

    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    records = [found["extra_info"] for found in json.loads(path.read_text())["benchmarks"]]
    assert records
    assert {(record["source"], record["items_per_s"]) for record in records} == {("fake", None)}

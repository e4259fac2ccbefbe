"""The popart backend on the fake SDK: what it calls, in which order and with what, and what comes of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import popart_answers
import pytest
from popart_answers import COMPILED, LEAVE, ROOT, TRAINED, environment

pytest.importorskip("onnxruntime")
pytest.importorskip("torch")

UPDATED = ["S.writeWeights", "S.weightsFromHost", "S.updateOptimizerFromHost", "S.run"]
SAID = {
    "out of memory": ("Refused", "out of memory on the IPU: does not fit; lower --available-memory-proportion"),
    "recoverable": ("Broken", "the IPU needs PARTITION_RESET, and trying again will not help: link is down"),
    "recoverable in compile": ("Broken", "the IPU needs PARTITION_RESET"),
    "unrecoverable": ("Broken", "the IPU has a fault that only its owner can mend: parity"),
    "option": ("Refused", "; see --available-memory-proportion"),
    "other option": ("Refused", "an option is not taken by the SDK: Unrecognised option 'x'"),
    "timeout": ("Broken", "raise target.hostSyncTimeout by --runtime-options"),
    # What nobody foresaw stays what it is.
    "unsupported": ("error", "popart.popart_exception: No OpDefinition for ai.onnx.Foo:11"),
    "unknown": ("error", "RuntimeError: something else"),
}
NOTICED = {
    "replica": "batch 1 of 2 of a call is off",
    "iteration": "batch 1 of 3 of a call is off",
    "step": "the update of one training step is off",
    "sum": "the update of one training step is off",
    "sum of accumulated": "the update of one training step is off",
}
# Cells in a loop over time: forward only.
LOOPS = ("gru", "lstm", "lstm_multi", "rnn")


@pytest.fixture(scope="module", name="answers")
def fixture_of_answers():
    return popart_answers.answers()


def test_every_layer_and_network_agrees_with_the_reference(answers):
    wrong = {}
    for name, found in answers["numbers"].items():
        loop = "rnn_impl=cell-training" in name
        if found["outcome"] != ("Unavailable" if loop else "passed"):
            wrong[name] = found.get("text")
    assert not wrong
    assert len(answers["numbers"]) > 100
    assert sum(found["outcome"] == "Unavailable" for found in answers["numbers"].values()) == len(LOOPS)


def test_the_types_are_those_of_the_precision(answers):
    types = {"fp32": ["float32", "float32"], "fp16": ["float16", "float16"], "fp16m": ["float16", "float32"]}
    for name, found in answers["numbers"].items():
        if found["outcome"] == "passed":
            assert [found["compute"], found["held_in"]] == types[name.rsplit("-", 1)[1]], name


def test_replicas_accumulation_steps_and_pipelines_agree_with_the_reference(answers):
    wrong = {name: found.get("text") for name, found in answers["many"].items() if found["outcome"] != "passed"}

    assert not wrong
    assert len(answers["many"]) >= 30


@pytest.mark.parametrize("name", NOTICED)
def test_the_check_notices_what_goes_wrong(answers, name):
    found = answers["sabotage"][name]

    assert found["outcome"] == "Wrong"
    assert NOTICED[name] in found["text"]
    assert found["held"] == 0


def test_nothing_that_was_computed_came_from_hardware(answers):
    told = [found for kind in ("numbers", "many") for found in answers[kind].values() if found["outcome"] == "passed"]

    assert {found["source"] for found in told} == {"fake"}


def test_inference_is_called_in_the_order_of_the_api(answers):
    assert answers["options"]["inference"]["compiling"] == [*COMPILED, "S.initAnchorArrays"]
    assert answers["options"]["inference"]["calls"] == [*COMPILED, "S.initAnchorArrays", "S.run", LEAVE]
    assert answers["options"]["eval"]["calls"] == [*COMPILED, "S.initAnchorArrays", "S.run", LEAVE]


@pytest.mark.parametrize("name", ["training", "replicas", "accumulated", "pipelined", "timed training", "scaled"])
def test_training_is_called_in_the_order_of_the_api(answers, name):
    assert answers["options"][name]["compiling"] == TRAINED
    assert answers["options"][name]["calls"] == [*TRAINED, *UPDATED, LEAVE]


def test_weights_that_are_no_constants_go_to_the_device_first(answers):
    assert answers["options"]["mixed precision"]["calls"] == [*TRAINED, "S.run", LEAVE]


def test_batches_are_taken_round_and_round_and_an_iterator_as_it_comes(answers):
    # Four batches a call: the fourth of five, the first of three again; and eight of ten, one after the other.
    assert answers["fed"]["found"] == [3, 3, 0, 0, 3, 2]


def test_a_call_of_too_few_batches_shows_the_product(answers):
    said = "a call takes 2 batches per step x 1 accumulated x 2 replicas = 4 batches; there are 3"

    assert answers["fed"]["too few"] == said


@pytest.mark.parametrize("name", ["sgd", "momentum", "rmsprop", "rmsprop_tf", "adam", "adamw"])
def test_an_optimiser_moves_weights_as_that_of_torch_does(answers, name):
    found = answers["optimisers"][name]

    assert found["outcome"] == "passed", found.get("text")
    assert found["off"] < 1e-3 * found["moved"]


def test_weights_that_are_loaded_start_the_optimiser_anew(answers):
    assert answers["loaded"]["off"] == 0


def test_running_statistics_move(answers):
    assert min(answers["learnt"]["moved"]) > 1e-3


@pytest.mark.parametrize("name", SAID)
def test_an_error_says_what_to_do_and_lets_the_device_go(answers, name):
    kind, text = SAID[name]
    found = answers["faults"][name]

    assert found["outcome"] == kind
    assert text in found["text"]
    assert found["held"] == 0


def test_every_way_out_lets_the_device_go(answers):
    kinds = ("numbers", "many", "options", "faults", "sabotage", "optimisers")
    every = {f"{kind} {name}": found["held"] for kind in kinds for name, found in answers[kind].items()}

    assert not {name: held for name, held in every.items() if held}


def test_a_busy_device_is_waited_for_and_its_owner_named(answers):
    at_once, waited = answers["busy"], answers["waited"]

    assert at_once["outcome"] == waited["outcome"] == "Unavailable"
    assert at_once["tries"] == 1
    assert waited["tries"] > 1
    assert "held by 0: somebody, /usr/bin/other (4242)" in at_once["text"]
    assert answers["another is free"]["outcome"] == "passed"
    assert answers["that one is busy"]["outcome"] == "Unavailable"


def python(code, **more):
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=environment(**more), capture_output=True, text=True, timeout=120, check=False)


VERSION = "from bench.backends import popart\ntry:\n    print(popart.version())\nexcept ImportError as e:\n    print(e)"


def test_the_version_is_that_of_the_sdk():
    assert python(VERSION).stdout.strip() == "3.4.0+fake"


def test_another_package_of_that_name_is_told_apart(tmp_path):
    (tmp_path / "popart.py").write_text("something = 1\n")

    done = python(VERSION, PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}")

    assert "not Graphcore's, but another package of that name" in done.stdout


def test_an_sdk_that_does_not_load_is_told_in_one_line(tmp_path):
    (tmp_path / "popart.py").write_text("raise RuntimeError('made for Python 3.8\\nand more')\n")

    done = python(VERSION, PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}")

    assert done.stdout.splitlines() == ["the Poplar SDK is not enabled, or is for another Python: made for Python 3.8"]


def test_onnx_before_popart_is_told():
    said = python(f"import onnx\n{VERSION}").stdout

    assert said.startswith("import popart first: ")
    assert "popart must be imported before onnx" in said


def test_bfloat16_is_refused_without_the_sdk():
    from bench.backends import popart

    assert [popart.unsupported(one, "inference", "ipu") for one in ("fp32", "fp16", "fp16m")] == [None] * 3
    assert [popart.unsupported(one, "inference", "ipu") for one in ("bf16", "bf16m")] == ["IPUs have no bfloat16"] * 2


def test_a_whole_run_is_recorded_as_made_of_fakes(tmp_path):
    path = tmp_path / "run.json"
    command = [sys.executable, "-m", "pytest", "bench", "-q", "-k", "dense", "--device", "ipu", "--backend", "popart"]
    command += ["--mode", "inference,training", "--steps", "2", "--batches-per-step", "2", "--replicas", "2"]
    command += ["--benchmark-only", f"--benchmark-json={path}", "-p", "no:cacheprovider"]

    done = subprocess.run(
        command, env=environment(), cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )

    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    records = [one["extra_info"] for one in json.loads(path.read_text())["benchmarks"]]
    assert [record["mode"] for record in records] == ["inference", "training"]
    for record in records:
        assert record["source"] == "fake"
        assert record["items_per_s"] is record["step_median_s"] is record["latency_p50_s"] is None
        assert record["items_per_step"] == record["batch_size"] * 2 * 2
        assert record["tuned_output_mode"] == {"inference": "all", "training": "final"}[record["mode"]]

"""The poptorch backend against a fake SDK: what it calls, in which order, what it says of errors, and its numbers.

What only hardware can prove is that the SDK compiles it, and how fast it is.
"""

from __future__ import annotations

import json
import subprocess
import sys
from types import ModuleType

import poptorch_matrix
import pytest
from poptorch_answers import EXECUTOR, OPTIONS, ROOT, answers, ask, calls_of, environment, order, setters

from bench import backends, workloads
from bench.cases import poplar
from bench.cases.case import MODES, Case, Settings
from bench.cases.precision import PRECISIONS

NUMBERS = list(poptorch_matrix.numbers())


# Numbers


@pytest.mark.parametrize("key", NUMBERS, ids=poptorch_matrix.name)
def test_what_is_computed_is_what_the_reference_computes(key):
    found = answers()[poptorch_matrix.name(key)]

    assert found["outcome"] == "passed", found["text"]
    precision = PRECISIONS[key[3]]
    assert (found["compute"], found["held"]) == (precision.compute, precision.weights)
    assert 0 <= found["relative_error"] <= found["tolerance"]
    assert key[2] != "training" or found["gradient_error"] > 0


def test_every_layer_is_checked_in_every_mode_and_precision():
    ran = {(key[0], key[2], key[3]) for key in NUMBERS}
    for layer in workloads.names("layers"):
        for mode in MODES:
            for precision in ("fp32", "fp16", "fp16m"):
                claimed = workloads.unsupported(workloads.load(layer), mode, precision) is None
                assert ((layer, mode, precision) in ran) == claimed


def test_a_replica_that_computes_something_else_is_noticed():
    assert "batch 1 of 2 of a call is off by 0.01 from the last, fed alike" in ask("sabotage replica")["said"]


def test_an_iteration_of_a_pipeline_that_computes_something_else_is_noticed():
    assert "batch 1 of 2 of a call is off by 0.01 from the last, fed alike" in ask("sabotage iteration")["said"]


def test_gradients_that_are_summed_over_replicas_are_noticed():
    assert "the update of one training step is off by" in ask("sabotage summed")["said"]


@pytest.mark.parametrize("optimiser", ["sgd", "momentum", "rmsprop", "rmsprop_tf", "adam", "adamw"])
def test_an_optimiser_is_given_the_constants_with_which_torch_s_does_the_same(optimiser):
    found = ask(f"optimiser {optimiser}")

    assert found["torch"] < 1e-5


@pytest.mark.parametrize("optimiser", ["sgd", "momentum", "rmsprop", "rmsprop_tf", "adam", "adamw"])
def test_an_optimiser_forgets_when_the_weights_are_put_back(optimiser):
    assert ask(f"optimiser {optimiser}")["again"] == 0


@pytest.mark.parametrize("precision", ["fp32", "fp16", "fp16m"])
def test_a_prediction_is_the_inference_graph_s_at_the_present_weights(precision):
    """Running statistics among them, which are no weights that a trainer holds."""
    found = ask(f"predicted {precision}")

    assert found["moved"] > 0.05
    assert found["apart"] <= 2 * PRECISIONS[precision].tolerance


def test_two_runs_of_a_chain_that_draws_differ():
    one, other = ask("drawn")

    assert one != other


def test_updates_of_one_call_follow_each_other():
    """The second starts from the weights of the first, and its output is another."""
    assert isinstance(ask("updates between")["said"], list)


# Order


@pytest.mark.parametrize("mode", ["inference", "eval"])
def test_inference_is_options_model_compile_run_destroy(mode):
    steps = order(
        ask(f"calls {mode}"),
        OPTIONS,
        f"{OPTIONS}.deviceIterations",
        "poptorch.inferenceModel",
        f"{EXECUTOR}.compile",
        f"{EXECUTOR}.__call__",
        f"{EXECUTOR}.destroy",
    )

    assert steps == sorted(steps)


def test_training_has_an_optimiser_before_the_model_and_its_rate_before_the_run():
    steps = order(
        ask("calls training"),
        OPTIONS,
        f"{OPTIONS}.Training.gradientAccumulation",
        "poptorch.optim.SGD",
        "poptorch.trainingModel",
        f"{EXECUTOR}.compile",
        "poptorch.identity_loss",
        f"{EXECUTOR}.copyWeightsToDevice",
        f"{EXECUTOR}.setOptimizer",
        f"{EXECUTOR}.__call__",
        f"{EXECUTOR}.destroy",
    )

    assert steps == sorted(steps)


def test_blocks_begin_before_the_model_is_wrapped():
    steps = order(ask("option pipeline"), "poptorch.BeginBlock", OPTIONS, "poptorch.trainingModel")

    assert steps == sorted(steps)


@pytest.mark.parametrize(
    "name, rows",
    [("calls inference", 3), ("calls training", 9), ("calls replicas", 12), ("option pipeline", 9)],
)
def test_a_call_takes_micro_batch_x_iterations_x_replicas_x_accumulation_rows(name, rows):
    recorded = ask(name)

    for called in (f"{EXECUTOR}.compile", f"{EXECUTOR}.__call__"):
        assert calls_of(recorded, called)[0]["args"][0].startswith(f"<Tensor ({rows},")


def test_one_compiled_program_runs_and_nothing_is_set_after_it_is_made():
    recorded = [name for name, _ in ask("calls training")]
    wrapped = recorded.index("poptorch.trainingModel")

    assert not [name for name in recorded[wrapped:] if name.startswith(OPTIONS)]


def test_host_batches_are_answered_one_after_the_other():
    assert ask("batches 1") == [0, 1, 2, 3, 4, 5]


def test_a_call_of_two_iterations_on_two_replicas_takes_four_host_batches():
    assert ask("batches 2x2") == [3, 7]


@pytest.mark.parametrize("mode, copies", [("all", 4), ("final", 2), ("sum", 2)])
def test_an_output_mode_says_how_many_batches_come_back(mode, copies):
    shapes, one, facts = ask("modes")[mode]

    assert shapes == [[copies * one[0], *one[1:]]]
    assert facts["output_mode"] == mode


def test_synthetic_data_stays_on_the_device_and_has_no_output_to_be_believed():
    assert setters(ask("calls synthetic"))["enableSyntheticData"] is True
    assert setters(ask("calls inference"))["enableSyntheticData"] is False
    assert ask("synthetic outputs") == [[], {}]


def test_the_device_s_latency_and_cycles_are_told_where_asked_for():
    assert ask("cycles") == {"sdk_latency_s": 0.002, "cycles": 1234567}


# Errors, and ways out


@pytest.mark.parametrize("where", ["compile", "__call__"])
@pytest.mark.parametrize(
    "error, text",
    [
        (
            "out of memory",
            "Refused: out of memory on the IPU: graph_memory_allocation_error: tile 3; lower --available",
        ),
        ("recoverable", "Broken: the IPU needs PARTITION_RESET; trying again will not help: link down"),
        ("unrecoverable", "Broken: a fault of the IPU's hardware; end this session"),
        ("host sync", "Broken: the IPU waited too long for the host: Host sync timeout; is its data too slow?"),
        ("frozen", "Broken: PopTorch's options were changed after their first use"),
        ("unknown", "error Error: something else"),
    ],
)
def test_an_error_of_the_sdk_says_what_it_means_and_the_device_is_let_go(error, text, where):
    found = ask(f"error {error} in {where}")

    assert found["said"].startswith(text)
    assert (found["held"], found["left"]) == ([], 0)


def test_rows_that_do_not_fit_are_told_with_the_product():
    said = ask("rows")["said"]

    assert "--batch-size 3 x --batches-per-step 2 x --gradient-accumulation 1 x --replicas 2 = 12;" in said


def test_a_value_that_the_options_refuse_is_told_with_the_option_s_name():
    assert ask("way out options")["said"] == "Refused: --batches-per-step: PopTorch refuses the value: positive"


@pytest.mark.parametrize(
    "step",
    ["trainingModel", "loading", "options", "passed"]
    + [f"PoplarExecutor.{name}" for name in ("copyWeightsToHost", "copyWeightsToDevice", "setOptimizer", "destroy")],
)
def test_the_device_is_let_go_whatever_fails(step):
    found = ask(f"way out {step}")

    assert found["held"] == []
    assert found["left"] == (1 if step == "trainingModel" else 0)


@pytest.mark.parametrize("kind", ["replica", "iteration", "summed"])
def test_the_device_is_let_go_when_the_check_fails(kind):
    found = ask(f"sabotage {kind}")

    assert (found["held"], found["left"]) == ([], 0)


def test_where_none_is_free_it_says_how_many_who_has_them_and_what_to_do():
    said = ask("busy")["said"]

    assert said.startswith("Unavailable: not present: a free device of 1 IPUs; gc-info -l lists 0: 1 IPU,")
    assert "held by 0: somebody, /usr/bin/other (4242)" in said
    assert "--wait SECONDS (Failed to acquire 1 IPU(s))" in said


def test_with_a_wait_it_tries_again_until_one_is_free():
    found = ask("soon free")

    assert found["said"] == "passed"
    assert 2 <= found["seconds"] < 20


def test_a_device_that_is_not_there_is_no_reason_to_wait():
    assert ask("too large")["said"].startswith("Unavailable: not present: a device of 8 IPUs;")
    assert ask("other device")["said"].startswith("Unavailable: not present: device 4 with 1 IPUs: it has 2 IPUs")


# The SDK


def test_a_missing_sdk_is_told_in_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "poptorch", None)

    with pytest.raises(ImportError, match="SDK is not enabled, or it is for another Python"):
        backends.load("poptorch").version()


def test_another_package_of_the_name_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "poptorch", ModuleType("poptorch"))

    with pytest.raises(ImportError, match="not the one of Graphcore's Poplar SDK"):
        backends.load("poptorch").version()


def test_a_case_crosses_the_whole_harness_and_is_recorded_without_a_rate(tmp_path):
    pytest.importorskip("torch")
    file = tmp_path / "record.json"
    command = [sys.executable, "-m", "pytest", "bench", "-q", "-k", "dense", "--device", "ipu"]
    command += ["--backend", "poptorch", "--steps", "2", "--benchmark-only", f"--benchmark-json={file}"]
    command += ["-p", "no:cacheprovider"]

    done = subprocess.run(
        command, env=environment(), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300
    )

    assert done.returncode == 0, done.stdout[-3000:]
    records = [each["extra_info"] for each in json.loads(file.read_text())["benchmarks"]]
    assert records
    assert {each["source"] for each in records} == {"fake"}


def test_a_case_knows_its_ipus():
    case = Case("resnet8", "tiny", {}, "training", 3, "fp32", 2, "poptorch", "ipu")

    assert poplar.ipus(case, Settings(pipeline_splits="layer2.0")) == 4

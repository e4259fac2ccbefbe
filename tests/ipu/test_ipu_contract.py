"""The contract of the three IPU backends, each with a fake of its SDK that computes on the CPU.

It covers numbers against the reference, the order of calls, the setter of each option, refusals, errors, and the
release of devices. `contract_sdks.py` has the differences between the backends. `contract_worker.py` runs the cases and
says how they were chosen. Only hardware can prove that the SDK compiles them, and how fast they are.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields
from types import ModuleType

import pytest
from contract_answers import ROOT, answers, ask, environment, require
from contract_sdks import PROGRAMS, SDKS, WRONG
from contract_setters import SETS

from bench import backends, workloads
from bench.backends import _ipu
from bench.cases.case import MODES, Case, Settings
from bench.cases.poplar import Poplar
from bench.cases.precision import PRECISIONS

EACH = pytest.mark.parametrize("backend", SDKS)
# Ways of contract_worker.WAYS that a backend does not support, and the option in its message.
NO_WAY = {
    "poptorch": {"alone": "--no-all-reduce", "interleaved": "--pipeline-schedule", "alone in a pipeline": "--pipeline"},
    "popart": {"alone": "--no-all-reduce", "interleaved": "--pipeline-schedule", "alone in a pipeline": "--pipeline"},
    "tensorflow_ipu": {"recomputed by name": "--recompute manual without --pipeline-splits"},
}
# The exception of each error of the SDK, and the start of its text.
MEANINGS = {
    "memory": ("Refused", "out of memory on the IPU: "),
    "exchange": (
        "Refused",
        "out of memory on the IPU: Tile 0 receives more data than it has total memory in exchange;",
    ),
    "linked": ("Refused", "out of memory on the IPU: linker: _poplar_start must be 0; lower"),
    "exhausted": ("Refused", "out of memory on the IPU: too much; lower --available-memory-proportion, --recompute"),
    "recoverable": ("Broken", "the IPU needs PARTITION_RESET, and trying again will not help: "),
    "unrecoverable": ("Broken", "the IPU has a fault that only its owner can mend: "),
    "timeout": ("Broken", "the IPU waited too long for the host: "),
    "option": (
        "Refused",
        "an option is not taken by the SDK: invalid_option: 'availableMemoryProportion' 7;"
        " see --available-memory-proportion",
    ),
    "other option": ("Refused", "an option is not taken by the SDK: Unrecognised option 'x'; see --available-memory"),
    "batches": ("Refused", "The number of iterations of the pipeline must be a multiple of 4; in training that is"),
    "frozen": ("Broken", "PopTorch's options were changed after their first use"),
    # Unknown exceptions are not translated.
    "unsupported": ("error", "popart_exception: No OpDefinition for ai.onnx.Foo:11"),
    "unknown": ("error", ""),
    "python's": ("error", "KeyError"),
}


def unexpected(backend, kind, expected):
    """The answers of a kind whose (outcome, part of the text) is not the expected one."""
    found = {}
    for name, answer in answers(backend)[kind].items():
        outcome, text = expected(name)
        if answer["outcome"] != outcome or text not in answer.get("text", ""):
            found[name] = answer.get("where", answer.get("text"))
    return found


# ---- numbers -------------------------------------------------------------------------------------------------------


def no_gradient_of_loops(backend, name):
    """PopART cannot train cells in a loop over time."""
    return backend == "popart" and "rnn_impl=cell-training" in name


@EACH
def test_every_layer_and_network_agrees_with_the_reference(backend):
    def expected(name):
        loop = no_gradient_of_loops(backend, name)
        return ("Unavailable", "in a loop: PopART has no gradient") if loop else ("passed", "")

    assert unexpected(backend, "numbers", expected) == {}


@EACH
def test_every_layer_is_checked_in_every_mode_and_every_precision_and_each_mode_in_each_precision(backend):
    ran = {tuple(name.rsplit("-", 3)) for name in answers(backend)["numbers"]}
    plain = {(layer, mode, precision) for layer, variant, mode, precision in ran if variant == "plain"}
    layers, precisions = workloads.names("layers"), ("fp32", "fp16", "fp16m")
    supported = {
        (layer, mode, precision)
        for layer in layers
        for mode in MODES
        for precision in precisions
        if workloads.unsupported(layer, mode, precision) is None
    }

    of_layers = {case for case in plain if case[0] in layers}
    assert of_layers <= supported
    for pair in ((0, 1), (0, 2), (1, 2)):
        assert {tuple(case[axis] for axis in pair) for case in of_layers} == {
            tuple(case[axis] for axis in pair) for case in supported
        }


@EACH
def test_each_change_of_a_layer_s_dimensions_is_checked(backend):
    ran = {tuple(name.rsplit("-", 3))[:2] for name in answers(backend)["numbers"]}
    for layer in workloads.names("layers"):
        for name, dimension in workloads.load(layer).dimensions.items():
            assert {(layer, f"{name}={choice}") for choice in dimension.choices[1:]} <= ran


@pytest.mark.thorough
@EACH
def test_every_layer_network_change_and_way_agrees_with_the_reference_in_every_mode_and_precision(backend):
    wrong = {}
    for name, answer in answers(backend, "thorough")["thorough"].items():
        if answer["outcome"] != ("Unavailable" if no_gradient_of_loops(backend, name) else "passed"):
            wrong[name] = answer.get("where", answer.get("text"))

    assert wrong == {}


@EACH
def test_replicas_accumulation_steps_pipelines_and_recomputation_agree_with_the_reference(backend):
    def expected(name):
        text = NO_WAY[backend].get(name.split("-")[1])
        return ("Unavailable", text) if text else ("passed", "")

    assert unexpected(backend, "many", expected) == {}


@EACH
def test_errors_are_within_their_tolerance_and_types_those_of_the_precision(backend):
    for name, answer in answers(backend)["numbers"].items():
        if answer["outcome"] == "passed":
            said, precision = answer["said"], PRECISIONS[name.rsplit("-", 1)[1]]
            assert 0 <= said["relative_error"] <= said["tolerance"], name
            assert "-training-" not in name or said["gradient_error"] > 0, name
            assert (said["compute"], said["held"]) == (precision.compute, precision.weights), name


@EACH
def test_nothing_that_was_computed_came_from_hardware(backend):
    said = [answer["said"] for kind in ("numbers", "many", "programs") for answer in answers(backend)[kind].values()
            if "said" in answer]  # fmt: skip

    assert {one["source"] for one in said if one} == {"fake"}


@EACH
@pytest.mark.parametrize("kind", WRONG)
def test_what_goes_wrong_is_noticed_and_the_device_let_go(backend, kind):
    if kind not in SDKS[backend].wrong:
        pytest.skip("the fake cannot do that wrong")
    answer = answers(backend)["wrong"][kind]

    assert answer["outcome"] in ("Wrong", "_WrongUpdate")
    assert WRONG[kind][2] in answer["text"]


@EACH
def test_a_whole_run_that_is_wrong_is_not_recorded(backend):
    assert answers(backend)["wrong"]["whole run"]["outcome"] == "_WrongUpdate"


@EACH
def test_batches_are_taken_in_turn_and_an_iterator_as_it_comes(backend):
    """Calls take 4 batches. The last ones are the 4th of 5, the 1st of 3, and the 4th and 8th of an iterator."""
    assert ask(backend, "feeds", "in turn")["said"] == [3, 3, 0, 0, 3, 2]


@EACH
@pytest.mark.parametrize("count, calls, left", [(7, 1, 3), (8, 2, 0)])
def test_an_iterator_is_consumed_by_whole_calls_and_the_next_call_is_refused(backend, count, calls, left):
    """A call takes four batches. Batches that are fetched ahead of a call do not fail the calls before it."""
    refusal = f"a call takes 2 batches per step x 1 accumulated x 2 replicas = 4 batches; {left} are left"

    assert ask(backend, "feeds", f"end of {count}")["said"] == [calls, refusal]


@EACH
@pytest.mark.parametrize("name", ["sgd", "momentum", "rmsprop", "rmsprop_tf", "adam", "adamw", "lars"])
def test_an_optimiser_leaves_the_weights_where_the_framework_s_does_and_forgets_when_they_are_put_back(backend, name):
    if f"--optimiser {name}" in SDKS[backend].refuses:
        pytest.skip("it is refused")
    said = ask(backend, "optimisers", name)["said"]

    assert said["apart"] < 1e-4
    assert said["again"] == 0


@EACH
def test_running_statistics_move(backend):
    assert min(ask(backend, "runs", "statistics")["said"]) > 1e-3


@pytest.mark.parametrize("backend, precision", [(sdk.name, each) for sdk in SDKS.values() for each in sdk.predicts])
def test_a_prediction_is_the_inference_graph_s_at_the_present_weights(backend, precision):
    """The present weights include the running statistics."""
    apart = ask(backend, "runs", f"predicted {precision}")["said"]

    assert apart <= (1e-5 if precision == "fp32" else 2 * PRECISIONS[precision].tolerance)


# ---- calls, and what is set ----------------------------------------------------------------------------------------


@EACH
@pytest.mark.parametrize("mode", ["inference", "training"])
def test_calls_are_in_the_order_of_the_api(backend, mode):
    sdk = SDKS[backend]
    for name in ("inference", "eval") if mode == "inference" else ("training", "replicas", "accumulated", "16 bits"):
        called = [call for call, _ in ask(backend, "programs", name)["calls"]]
        firsts = [called.index(call) for call in sdk.order[mode]]
        assert firsts == sorted(firsts), name
        assert called[-1] == sdk.release, name


@EACH
@pytest.mark.parametrize("name", PROGRAMS)
def test_an_option_reaches_its_setters_and_no_others(backend, name):
    sdk = SDKS[backend]
    if name in sdk.refuses:
        pytest.skip("it is refused")
    answer = ask(backend, "programs", name)
    plain_name = "training" if PROGRAMS[name].get("mode") == "training" else "inference"
    plain = sdk.settings(ask(backend, "programs", plain_name)["calls"])
    found = sdk.settings(answer["calls"])
    changed = {key: found.get(key) for key in {**plain, **found} if found.get(key) != plain.get(key)}

    assert changed == SETS.get(name, {}).get(backend, {})


@EACH
def test_every_option_of_poplar_is_asked_for(backend):
    asked = {name for program in PROGRAMS.values() for name in program.get("poplar", {})}
    elsewhere = {"pipeline_schedule", "runtime_options", "wait_s"}

    assert asked | elsewhere == {each.name for each in fields(Poplar)}


@EACH
def test_what_a_backend_cannot_be_told_is_said_by_name_before_a_device_is_touched(backend):
    for name, text in SDKS[backend].refuses.items():
        answer = answers(backend)["programs"][name]
        assert (answer["outcome"], answer["calls"]) == ("Unavailable", []), name
        assert answer["text"].startswith(f"not supported: {text}"), name


@EACH
def test_a_device_loop_says_so_and_tells_its_output_mode(backend):
    for name, mode in (("inference", "all"), ("timed eval", "all"), ("timed training", "final"), ("sum", "sum")):
        said = ask(backend, "programs", name)["said"]
        assert (said["looped"], said["batches"]) == (True, 1)
        assert said["facts"]["output_mode"] == mode


@EACH
def test_partial_sums_and_the_scale_of_the_loss_are_facts(backend):
    half, scaled = (
        ask(backend, "programs", name)["said"]["facts"] for name in ("--half-partial", "a scale of the loss")
    )

    assert half["partials_matmul"] == "half"
    assert "partials_conv" not in half
    assert scaled["loss_scale"] == 64.0
    assert not {"partials_matmul", "partials_conv", "loss_scale"} & {
        *ask(backend, "programs", "training")["said"]["facts"]
    }


@EACH
def test_what_a_program_leaves_is_made_of_numbers(backend):
    for name, answer in answers(backend)["programs"].items():
        if answer.get("said"):
            assert all(finite for _, finite in answer["said"]["outputs"].values()), name


@EACH
def test_a_program_that_is_compiled_without_a_device_takes_none_and_is_not_run(backend):
    answer = ask(backend, "programs", "--compile-only")
    called = [name for name, _ in answer["calls"]]

    assert not [name for name in called if name.startswith("DeviceManager.tryAcquire")]
    assert not {"PoplarExecutor.__call__", "InferenceSession.run", "ipu_outfeed_queue.IPUOutfeedQueue.dequeue"} & {
        *called
    }


@EACH
def test_cycles_are_told_where_they_are_asked_for(backend):
    cycles = {"poptorch": 1234567, "popart": 1330, "tensorflow_ipu": 4242}[backend]

    assert ask(backend, "runs", "cycles")["said"]["told"]["cycles"] == cycles
    assert "cycles" not in (ask(backend, "programs", "inference")["said"]["told"] or {})


# ---- errors, and who lets go ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["early", "late"])
@pytest.mark.parametrize("backend, name", [(sdk.name, name) for sdk in SDKS.values() for name in sdk.faults])
def test_an_error_says_in_one_line_what_it_means(backend, name, when):
    answer = answers(backend)["faults"][f"{name} {when}"]
    outcome, text = MEANINGS[name]

    assert answer["outcome"] == outcome
    assert text in answer["text"]
    assert outcome != "error" or SDKS[backend].faults[name][1] in answer["text"]
    assert "\n" not in answer["text"]


@EACH
def test_nothing_is_held_when_a_program_has_ended_however_it_ended(backend):
    kept = {
        f"{kind} {name}": answer["held"]
        for kind, named in answers(backend).items()
        for name, answer in named.items()
        if answer.get("held")
    }

    assert kept == {}


@EACH
def test_whichever_call_of_a_run_fails_is_told(backend):
    ways = answers(backend)["ways_out"]

    assert ways.pop("none")["outcome"] == "passed"
    # A case does not fail if releasing the device does.
    assert {name for name, answer in ways.items() if answer["outcome"] != "Refused"} <= {
        "poptorch.PoplarExecutor.destroy",
        *("popart.TrainingSession.weightsToHost", "popart.TrainingSession.readWeights"),
    }


def tries(backend, name):
    return sum(call.startswith(SDKS[backend].acquire) for call, _ in answers(backend)["devices"][name]["calls"])


@EACH
def test_a_busy_device_is_waited_for_and_its_owner_named(backend):
    at_once, waited = (answers(backend)["devices"][name] for name in ("all busy", "all busy, waited"))

    assert at_once["outcome"] == waited["outcome"] == "Unavailable"
    assert at_once["text"].startswith("not present: a free device of 1 IPUs; gc-info -l lists 0: 1 IPU,")
    assert "held by 0: somebody, /usr/bin/other (4242)" in at_once["text"]
    assert "--wait SECONDS (" in at_once["text"]
    assert tries(backend, "all busy") == 1 < tries(backend, "all busy, waited")


@EACH
def test_another_device_is_taken_where_one_is_busy_unless_it_is_named(backend):
    assert ask(backend, "devices", "another is free")
    assert answers(backend)["devices"]["the named one is busy"]["outcome"] == "Unavailable"


@EACH
def test_a_device_that_becomes_free_is_taken(backend):
    if SDKS[backend].none_free is None:
        pytest.skip("a fault of this fake does not say so")

    assert ask(backend, "devices", "soon free")
    assert tries(backend, "soon free") == 2


@EACH
def test_a_device_that_is_not_there_is_no_reason_to_wait(backend):
    many, larger = (answers(backend)["devices"][name]["text"] for name in ("too many", "the named one is larger"))

    assert many.startswith("not present: a device of 8 IPUs;")
    assert larger.startswith("not present: device 4 with 1 IPUs: it has 2 IPUs")


# ---- whole runs ----------------------------------------------------------------------------------------------------


@EACH
def test_a_run_counts_the_items_of_every_batch_update_and_replica(backend):
    training, inference, synthetic = (
        ask(backend, "runs", f"whole {name}")["said"] for name in ("training", "inference", "synthetic")
    )

    assert training["items_per_step"] == 3 * 3 * 3 * 2
    assert inference["items_per_step"] == synthetic["items_per_step"] == 3 * 3 * 2
    assert (training["tuned_output_mode"], training["checked_rows"]) == ("all", 3)
    for record in (training, inference, synthetic):
        assert record["source"] == "fake"
        assert record["items_per_s"] is record["step_median_s"] is record["latency_p50_s"] is None


def test_a_case_of_each_backend_crosses_the_whole_harness_and_is_recorded_without_a_rate(tmp_path):
    for backend in SDKS:
        require(backend)
    path = tmp_path / "run.json"
    command = [sys.executable, "-m", "pytest", "bench", "-q", "-k", "dense", "--device", "ipu"]
    command += ["--mode", "inference,training", "--steps", "2", "--batches-per-step", "2", "--replicas", "2"]
    command += ["--benchmark-only", f"--benchmark-json={path}", "-p", "no:cacheprovider"]

    done = subprocess.run(
        command, env=environment(), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300
    )

    assert done.returncode == 0, done.stdout[-4000:]
    records = [one["extra_info"] for one in json.loads(path.read_text())["benchmarks"]]
    assert {(record["backend"], record["mode"]) for record in records} == {
        (backend, mode) for backend in SDKS for mode in ("inference", "training")
    }
    for record in records:
        assert record["source"] == "fake"
        assert record["items_per_s"] is record["step_median_s"] is record["latency_p50_s"] is None
        assert record["items_per_step"] == record["batch_size"] * 2 * 2
        mode = {"inference": "all", "training": "final"}[record["mode"]]
        assert record.get("tuned_output_mode", mode) == mode


# ---- under poprun --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "backend, call, others",
    [
        ("poptorch", "popdist.poptorch.Options", ["poptorch.Options.replicationFactor", "poptorch.Options.useIpuId"]),
        ("popart", "popdist.popart.configureSessionOptions", ["popart.SessionOptions.replicatedGraphCount"]),
        ("tensorflow_ipu", "popdist.tensorflow.set_ipu_config", ["IPUConfig.auto_select_ipus"]),
    ],
)
def test_replicas_and_devices_are_popdist_s(backend, call, others):
    """popdist is initialised once, before other calls. There are two instances and four replicas: two of them here."""
    names = [name for name, _ in ask(backend, "under_poprun", "fits")["calls"]]

    assert names.count("popdist.init") == 1
    assert names.index("popdist.isPopdistEnvSet") < names.index("popdist.init") < names.index(call)
    assert [name for name in names for other in others if name.endswith(other)] == []


@EACH
def test_without_poprun_popdist_is_only_asked_whether_it_is_there(backend):
    names = [name for name, _ in ask(backend, "under_poprun", "alone")["calls"]]

    assert [name for name in names if name.startswith("popdist")] == ["popdist.isPopdistEnvSet"]


@EACH
def test_other_numbers_than_poprun_s_are_refused(backend):
    answer = answers(backend)["under_poprun"]["other numbers"]

    assert answer["outcome"] == "Refused"
    assert answer["text"].startswith("poprun gives an instance 2 replicas of 1 IPUs, and the case has 3 of 1")


# ---- without the SDK -----------------------------------------------------------------------------------------------


@EACH
def test_bfloat16_is_refused_and_nothing_else(backend):
    refused = {each for each in PRECISIONS if backends.load(backend).unsupported(each, "training", "ipu")}

    assert refused == {"bf16", "bf16m"}
    assert backends.load(backend).unsupported("bf16", "inference", "ipu") == "an IPU has no bfloat16, which bf16 is"


@EACH
def test_the_checked_program_is_the_same_for_all(backend):
    assert backends.load(backend).checkable is _ipu.checkable


@EACH
def test_engine_and_runtime_options_are_in_the_environment_before_the_sdk_is_loaded(backend, monkeypatch):
    for name in ("TF_POPLAR_FLAGS", "POPLAR_ENGINE_OPTIONS", "POPLAR_RUNTIME_OPTIONS"):
        monkeypatch.delenv(name, raising=False)
    settings = Settings(poplar=Poplar(prefetch=False, runtime_options={"target.hostSyncTimeout": "600"}))

    variables = backends.load(backend).environment(settings, "ipu")

    assert json.loads(variables["POPLAR_ENGINE_OPTIONS"]) == {"exchange.enablePrefetch": "false"}
    assert json.loads(variables["POPLAR_RUNTIME_OPTIONS"]) == {"target.hostSyncTimeout": "600"}
    assert backends.load(backend).environment(Settings(), "ipu") == {}


@EACH
def test_the_version_is_that_of_the_sdk(backend):
    assert answers(backend)["version"]["of the SDK"]["said"]


@pytest.mark.parametrize(
    "backend, module, text",
    [
        ("poptorch", "poptorch", "the module poptorch is not the one of Graphcore's Poplar SDK"),
        ("popart", "popart", "this popart is not Graphcore's, but another package of that name"),
        ("tensorflow_ipu", "tensorflow.python", "the SDK's TensorFlow is not enabled, or was built for another Python"),
    ],
)
def test_another_package_of_the_name_is_told(backend, module, text, monkeypatch):
    """Stock TensorFlow lacks the module `ipu`."""
    monkeypatch.setitem(sys.modules, "tensorflow", ModuleType("tensorflow"))
    monkeypatch.setitem(sys.modules, module, ModuleType(module))

    with pytest.raises(ImportError, match=text):
        backends.load(backend).version()


@pytest.mark.parametrize("backend", ["poptorch", "popart"])
def test_an_sdk_that_does_not_load_is_told_in_one_line(backend, tmp_path, monkeypatch):
    (tmp_path / f"{backend}.py").write_text("raise RuntimeError('made for Python 3.8\\nand more')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in (backend, "onnx"):
        monkeypatch.delitem(sys.modules, name, raising=False)

    with pytest.raises(ImportError, match=r"SDK is not enabled, or .*is for another Python") as error:
        backends.load(backend).version()
    assert "made for Python 3.8" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_checked_program_has_the_streams_of_the_optimiser_s_state():
    session = {"explicitRecomputation": "true", "disableOptimizerStateTensorStreams": "true"}
    case = Case("dense", "u8", {}, "training", 1, "fp32", 1, "poptorch", "ipu")

    checked = _ipu.checkable(case, Settings(poplar=Poplar(session_options=session)))

    assert checked.poplar.session_options == {"explicitRecomputation": "true"}

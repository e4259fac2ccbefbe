"""Options of IPUs: the rules that are checked before a device is used, and the environment variables of Poplar."""

from __future__ import annotations

import dataclasses
import json

import pytest

from bench import workloads
from bench.backends import _ipu
from bench.backends._ipu import variables
from bench.cases import ipu_rules
from bench.cases.case import Case, Settings
from bench.cases.poplar import Poplar
from bench.cases.recipe import Recipe
from fixtures import options


def case_of(mode="inference", replicas=1, backend="poptorch"):
    module = workloads.load("resnet8")
    size = next(iter(workloads.named_sizes(module).values()))
    return Case("resnet8", "i32", size, mode, 1, "fp16", replicas, backend, "ipu")


def settings_of(splits="", batches=1, accumulation=1, **own):
    return Settings(
        pipeline_splits=splits,
        batches_per_step=batches,
        recipe=Recipe(gradient_accumulation=accumulation),
        poplar=Poplar(**own),
    )


def refusal(case, settings):
    with pytest.raises(ValueError, match=r"\S") as refused:
        ipu_rules.require(case, settings)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("replicas, splits, ipus", [(1, "", 1), (4, "", 4), (2, "layer2.0", 4), (1, "a,b,c", 4)])
def test_a_case_takes_the_ipus_of_its_replicas_and_stages(replicas, splits, ipus):
    assert ipu_rules.ipus(case_of(replicas=replicas), settings_of(splits)) == ipus


@pytest.mark.parametrize("replicas, splits", [(3, ""), (1, "a,b"), (2, "a,b")])
def test_a_device_has_a_power_of_two_of_ipus(replicas, splits):
    assert "powers of two" in refusal(case_of(replicas=replicas), settings_of(splits, 128))


@pytest.mark.parametrize("tiles", [31, 33, 30, 194, 2])
def test_io_tiles_are_even_and_from_32_to_192(tiles):
    assert "an even number from 32 to 192" in refusal(case_of(), settings_of(num_io_tiles=tiles))


@pytest.mark.parametrize("tiles", [0, 32, 64, 192])
def test_io_tiles_that_are_allowed(tiles):
    ipu_rules.require(case_of(), settings_of(num_io_tiles=tiles))


# Computed by hand: framework, schedule, stages, mode -> the fewest batches, and the number that divides them.
@pytest.mark.parametrize(
    "framework, schedule, stages, training, unit",
    [
        ("poptorch", "", 1, True, (1, 1)),
        ("poptorch", "", 4, False, (4, 1)),
        ("poptorch", "grouped", 4, True, (7, 1)),
        ("popart", "", 2, True, (3, 1)),
        ("tensorflow_ipu", "grouped", 4, True, (8, 8)),
        ("tensorflow_ipu", "grouped", 4, False, (4, 4)),
        ("tensorflow_ipu", "interleaved", 4, True, (4, 4)),
        ("tensorflow_ipu", "sequential", 4, True, (1, 1)),
    ],
)
def test_the_length_of_a_pipeline_is_the_sdk_s(framework, schedule, stages, training, unit):
    assert ipu_rules.pipeline_unit(framework, schedule, stages, training) == unit


@pytest.mark.parametrize(
    "case, settings, told",
    [
        (
            case_of(),
            settings_of("a", 1),
            "--batches-per-step 1: a grouped pipeline of 2 stages on poptorch takes at least 2",
        ),
        (case_of("training"), settings_of("a", 9, 2), "--gradient-accumulation 2: a grouped pipeline of 2 stages"),
        (
            case_of("training", backend="tensorflow_ipu"),
            settings_of("a", 1, 6),
            "--gradient-accumulation 6: a grouped pipeline of 2 stages on tensorflow_ipu takes a multiple of 4",
        ),
    ],
)
def test_a_pipeline_that_is_not_filled_is_refused_with_the_rule(case, settings, told):
    assert told in refusal(case, settings)


@pytest.mark.parametrize(
    "case, own, told",
    [
        (
            case_of(),
            {"available_memory_proportion": (0.2, 0.3)},
            "has 2 values; give one, or one for each of the 1 IPUs",
        ),
        (case_of("training"), {"replicated_tensor_sharding": True}, "--replicas is 1"),
        (case_of(replicas=2), {"replicated_tensor_sharding": True}, "is about training; --mode is inference"),
        (case_of(), {"variable_offloading": True}, "is about training; --mode is inference"),
        (case_of(replicas=2), {"ipu_model": True}, "--ipu-model simulates one replica, not 2"),
        (case_of(), {"ipu_model": True, "cycle_count": True}, "--ipu-model has none"),
        (case_of(), {"ipu_model": True, "compile_only": "ipu2"}, "--compile-only needs no device"),
        (case_of(), {"compile_only": "ipu2", "cycle_count": True}, "--compile-only runs nothing"),
        (case_of("training"), {"combined_momentum": True}, "--combined-momentum is for --optimiser momentum, not sgd"),
    ],
)
def test_what_the_sdk_refuses_is_refused_before_it_is_asked(case, own, told):
    assert told in refusal(case, settings_of(**own))


@pytest.mark.parametrize("mode, batches", [("inference", 2), ("training", 1)])
def test_what_is_checked_moves_every_batch_and_fills_the_pipeline(mode, batches):
    found = _ipu.checkable(case_of(mode), settings_of("a", 128, 9, stochastic_rounding=True, num_io_tiles=32))

    assert (found.data, found.batches_per_step) == ("generated", batches)
    assert found.recipe.gradient_accumulation == 9
    assert (found.poplar.output_mode, found.poplar.stochastic_rounding) == ("all", False)
    assert found.poplar.num_io_tiles == 32


# The environment.


def test_what_stands_in_the_environment_stays():
    settings = settings_of(internal_exchange_target="cycles", runtime_options={"target.syncMethod": "polling"})

    found = variables.environment(settings, {"POPLAR_ENGINE_OPTIONS": '{"debug.allowOutOfMemory": "true"}'})

    assert json.loads(found["POPLAR_ENGINE_OPTIONS"]) == {
        "debug.allowOutOfMemory": "true",
        "opt.internalExchangeOptimisationTarget": "cycles",
    }
    assert json.loads(found["POPLAR_RUNTIME_OPTIONS"]) == {"target.syncMethod": "polling"}


def test_nothing_is_set_where_nothing_is_said():
    assert variables.environment(Settings(), {}) == {}


@pytest.mark.parametrize("own", [{"prefetch": False}, {"engine_options": {"exchange.enablePrefetch": "false"}}])
def test_prefetch_off_is_an_engine_option(own):
    assert variables.engine_options(settings_of(**own)) == {"exchange.enablePrefetch": "false"}


def test_the_least_latency_takes_no_prefetch():
    assert variables.engine_options(Settings(min_latency=True)) == {"exchange.enablePrefetch": "false"}


def test_two_values_of_one_engine_option_contradict_each_other():
    with pytest.raises(ValueError, match=r"POPLAR_ENGINE_OPTIONS says .*=memory, the command line cycles"):
        variables.environment(
            settings_of(internal_exchange_target="cycles"),
            {"POPLAR_ENGINE_OPTIONS": '{"opt.internalExchangeOptimisationTarget": "memory"}'},
        )


@pytest.mark.parametrize("text", ["nonsense", "[1]", '{"a": {}}', '"text"'])
def test_a_variable_that_is_no_json_object_is_refused(text):
    with pytest.raises(ValueError, match=r"POPLAR_ENGINE_OPTIONS .* is not a JSON object of texts"):
        variables.environment(Settings(), {"POPLAR_ENGINE_OPTIONS": text})


def test_flags_of_tensorflow_are_joined():
    found = variables.tf_flags(["--executable_cache_path=x"], {"TF_POPLAR_FLAGS": "--max_compilation_threads=4"})

    assert found == "--max_compilation_threads=4 --executable_cache_path=x"


@pytest.mark.parametrize(
    "there, own, told",
    [
        ("--executable_cache_pth=x", [], r"flag 'executable_cache_pth' \(did you mean executable_cache_path\?\)"),
        ("use_ipu_model", [], "flag 'use_ipu_model'"),
        ("--executable_cache_path=a", ["--executable_cache_path=b"], "contradict each other"),
    ],
)
def test_a_flag_at_which_tensorflow_would_end_is_refused(there, own, told):
    with pytest.raises(ValueError, match=told):
        variables.tf_flags(own, {"TF_POPLAR_FLAGS": there})


def test_partials_are_half_for_both_unless_told_otherwise():
    half = dataclasses.replace(settings_of(partials_type_conv="float"), half_partial=True)

    assert _ipu.partials(half) == ("half", "float")
    assert _ipu.partials(Settings()) == ("", "")


# The command line.


@pytest.mark.parametrize(
    "args, name, value",
    [
        (["--available-memory-proportion", "0.2,0.4"], "available_memory_proportion", (0.2, 0.4)),
        (["--exchange-memory-target", "memory"], "internal_exchange_target", "memory"),
        (["--internal-exchange-optimisation-target=cycles"], "internal_exchange_target", "cycles"),
        (["--no-prefetch"], "prefetch", False),
        (["--num-io-tiles", "64"], "num_io_tiles", 64),
        (["--no-stochastic-rounding"], "stochastic_rounding", False),
        (["--enable-stochastic-rounding"], "stochastic_rounding", True),
        (["--stable-norm"], "stable_norm", True),
        (["--disable-variable-offloading"], "variable_offloading", False),
        (["--pipeline-schedule", "Interleaved"], "pipeline_schedule", "interleaved"),
        (
            ["--engine-options", '{"debug.allowOutOfMemory": true}'],
            "engine_options",
            {"debug.allowOutOfMemory": "true"},
        ),
        (["--compile-only"], "compile_only", "ipu2"),
        (["--compile-only=ipu21"], "compile_only", "ipu21"),
        (["--wait", "30"], "wait_s", 30.0),
        (["--device-id", "4"], "device_id", 4),
        (["--report-hw-cycle-count"], "cycle_count", True),
    ],
)
def test_an_option_becomes_a_field(args, name, value):
    found = options.parse(["--device", "ipu", *args]).poplar

    assert getattr(found, name) == value
    assert found.non_default_names == [name]


@pytest.mark.parametrize(
    "args, told",
    [
        (["--available-memory-proportion", "0"], "a proportion is above 0"),
        (["--available-memory-proportion", "1.5"], "not within 0 to 1"),
        (["--partials-type-conv", "quarter"], "'quarter' is not one of half, float"),
        (
            ["--engine-options", '{"autoreport.all": "true"}'],
            r"option 'autoreport.all' \(did you mean autoReport.all\?\)",
        ),
        (["--runtime-options", "{"], "is not a JSON object"),
        (["--compile-only", "ipu3"], r"'ipu3' \(did you mean ipu2\?\) is not one of ipu1, ipu2, ipu21"),
    ],
)
def test_a_value_that_is_not_allowed_is_refused(args, told):
    with pytest.raises(ValueError, match=told):
        options.parse(["--device", "ipu", *args])


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_an_ipu_s_option_is_refused_where_no_ipu_is_asked_for(device):
    with pytest.raises(ValueError, match=f"--num-io-tiles, --wait: for IPUs only; --device is {device}"):
        options.parse(["--device", device, "--num-io-tiles", "32", "--wait", "3"])


def test_a_preset_s_ipu_settings_are_applied_on_an_ipu_and_the_command_line_wins():
    args = ["--device", "ipu", "--config", "mk1_resnet50_16ipus"]

    own = options.parse(args).poplar
    won = options.parse([*args, "--internal-exchange-target", "cycles"]).poplar

    assert (own.internal_exchange_target, own.pipeline_schedule) == ("balanced", "grouped")
    assert own.max_cross_replica_buffer_size == 10**8
    assert own.available_memory_proportion == (0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.16, 0.2)
    assert won == dataclasses.replace(own, internal_exchange_target="cycles")


def test_every_preset_fits_an_ipu():
    from fixtures.options import presets

    for name in presets.names():
        options.parse(["--device", "ipu", "--config", name])


@pytest.mark.parametrize("args, batches", [([], 128), (["--batches-per-step", "3"], 3), (["--min-latency"], 1)])
def test_the_loop_is_the_device_s(args, batches):
    assert options.parse(["--device", "ipu", *args]).batches_per_step == batches


def test_batches_of_a_call_are_those_of_all_its_updates():
    found = options.parse(["--device", "ipu", "--mode", "training", "--gradient-accumulation", "40"])

    assert found.batches_per_step == 3


def test_the_backends_are_those_of_the_device_unless_named():
    both = options.parse(["--device", "cpu,ipu"])

    assert options.parse(["--device", "ipu"]).axes["backend"] == ["poptorch", "popart", "tensorflow_ipu"]
    assert {(case.backend, case.device) for case in both.selection().cases()} == {
        *(("torch", "cpu"), ("tensorflow", "cpu"), ("onnxruntime", "cpu"), ("openvino", "cpu")),
        *(("poptorch", "ipu"), ("popart", "ipu"), ("tensorflow_ipu", "ipu")),
    }

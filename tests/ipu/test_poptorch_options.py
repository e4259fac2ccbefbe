"""Every option of an IPU case reaches the setter or key of PopTorch that is its own; what has none is refused."""

from __future__ import annotations

import json

import poptorch_questions
import pytest
from poptorch_answers import EXECUTOR, OPTIONS, answers, ask, calls_of, popart, setters

from bench import backends
from bench.cases import poplar
from bench.cases.case import Settings
from bench.cases.poplar import Poplar

# What a setter of the options is told, with an option's value of poptorch_questions.
SET = {
    "available_memory_proportion": {"setAvailableMemoryProportion": {"IPU0": 0.3}},
    "num_io_tiles": {"TensorLocations.numIOTiles": 32},
    "stochastic_rounding": {"Precision.enableStochasticRounding": True},
    "stable_norm": {"enableStableNorm": True},
    "output_mode": {"outputMode": "OutputMode.Sum"},
    "cycle_count": {"logCycleCount": True},
    "ipu_model": {"useIpuModel": True},
    "compile_only": {"useOfflineIpuTarget": 21},
    "executable_cache": {"enableExecutableCaching": "cache"},
    "device_id": {"useIpuId": 2},
    "proportions": {"setAvailableMemoryProportion": {"IPU0": 0.2, "IPU1": 0.4}},
    "pipeline": {"Training.gradientAccumulation": 3},
}
POPART = {
    "partials_type_matmul": {"partialsTypeMatMuls": "half"},
    "partials_type_conv": {"convolutionOptions": {"partialsType": "half"}},
    "half partial": {"partialsTypeMatMuls": "half", "convolutionOptions": {"partialsType": "half"}},
    "conv_dithering": {"convolutionOptions": {"enableConvDithering": "true"}},
    "convolutions": {"convolutionOptions": {"partialsType": "half", "enableConvDithering": "true"}},
    "internal_exchange_target": {"engineOptions": {"opt.internalExchangeOptimisationTarget": "memory"}},
    "prefetch": {"enablePrefetchDatastreams": False, "engineOptions": {"exchange.enablePrefetch": "false"}},
    "engine_options": {"engineOptions": {"opt.maxCompilationThreads": "3"}},
    "profile": {"engineOptions": {"autoReport.all": "true", "autoReport.directory": "reports"}},
    "num_io_tiles": {"defaultBufferingDepth": 3},
    "auto": {"autoRecomputation": 1},
    "auto in a pipeline": {"autoRecomputation": 3},
    "manual": {"autoRecomputation": 4},
    "pipeline": {"autoRecomputation": 0},
    "engine": {
        "enablePrefetchDatastreams": False,
        "engineOptions": {
            "opt.internalExchangeOptimisationTarget": "cycles",
            "exchange.enablePrefetch": "false",
            "debug.retainDebugInformation": "true",
        },
    },
}


@pytest.mark.parametrize("option", SET)
def test_an_option_reaches_its_setter(option):
    found = setters(ask(f"option {option}"))

    assert {name: found.get(name) for name in SET[option]} == SET[option]


@pytest.mark.parametrize("option", POPART)
def test_an_option_without_a_setter_reaches_popart_s_key_once_and_whole(option):
    recorded = ask(f"option {option}")
    keys = [each["key"] for each in calls_of(recorded, f"{OPTIONS}._Popart.set")]

    assert {key: popart(recorded)[key] for key in POPART[option]} == POPART[option]
    assert len(keys) == len(set(keys))


def test_nothing_is_set_that_nobody_asked_for():
    recorded = ask("calls inference")

    assert popart(recorded) == {}
    assert set(setters(recorded)) == {
        *("deviceIterations", "replicationFactor", "outputMode"),
        *("enableSyntheticData", "showCompilationProgressBar"),
    }


def test_no_setter_is_called_that_replaces_the_options_of_convolutions():
    asked = [question for question in answers() if question.startswith(("calls", "option "))]
    called = {name for question in asked for name, _ in ask(question)}

    assert f"{OPTIONS}._Popart.set" in called
    assert not {f"{OPTIONS}.Precision.setPartialsType", f"{OPTIONS}.Training.setConvolutionDithering"} & called


def test_optimiser_state_goes_where_it_is_told():
    offloaded, sharded = ask("option variable_offloading"), ask("option sharding")
    settings = "poptorch.TensorLocationSettings"

    assert calls_of(offloaded, f"{settings}.useOnChipStorage") == [{"use": False}]
    assert calls_of(sharded, f"{settings}.useOnChipStorage") == [{"use": True}]
    assert calls_of(sharded, f"{settings}.useReplicatedTensorSharding") == [{"use": True}]
    for recorded in (offloaded, sharded):
        assert len(calls_of(recorded, f"{OPTIONS}.TensorLocations.setOptimizerLocation")) == 1


def test_a_pipeline_has_a_block_for_each_stage_and_a_strategy():
    pipelined, sequential = ask("option pipeline"), ask("option sequential")

    for recorded in (pipelined, sequential):
        assert [each["ipu_id"] for each in calls_of(recorded, "poptorch.BeginBlock")] == [0, 1]
    assert setters(pipelined)["setExecutionStrategy"].startswith("poptorch.PipelinedExecution")
    assert setters(sequential)["setExecutionStrategy"].startswith("poptorch.ShardedExecution")


def test_tiles_for_io_come_with_overlap_and_without_a_pipeline():
    recorded = ask("option tiles")

    assert setters(recorded)["setExecutionStrategy"].startswith("poptorch.ShardedExecution")
    for called, times in (("set_overlap_for_input", 2), ("set_overlap_for_output", 4)):
        modes = [each["mode"] for each in calls_of(recorded, f"poptorch.{called}")]
        assert modes == ["OverlapMode.OverlapDeviceIterationLoop"] * times


def test_manual_recomputation_checkpoints_what_is_kept_and_nothing_else_is_checkpointed():
    kept = "poptorch.recomputationCheckpoint"

    assert calls_of(ask("option manual"), kept)
    assert not calls_of(ask("option auto"), kept)


def test_a_loss_in_16_bits_is_scaled_by_the_optimiser():
    scaled = calls_of(ask("calls fp16 training"), "poptorch.optim.SGD")[0]
    plain = calls_of(ask("calls training"), "poptorch.optim.SGD")[0]

    assert scaled["loss_scaling"] > 1
    assert (plain["loss_scaling"], plain["use_combined_accum"]) == (1, False)


def test_an_offline_program_is_compiled_and_never_run():
    recorded = [name for name, _ in ask("option compile_only")]

    assert f"{EXECUTOR}.compile" in recorded
    assert f"{EXECUTOR}.__call__" not in recorded
    assert recorded[-1] == f"{EXECUTOR}.destroy"


@pytest.mark.parametrize(
    "name, text",
    [
        ("pipeline_schedule", "not supported: --pipeline-schedule interleaved; PopTorch has"),
        ("max_cross_replica_buffer_size", "not supported: --max-cross-replica-buffer-size; PopTorch has"),
        ("tiles in a pipeline", "not supported: --num-io-tiles in a pipeline; PopTorch has"),
        ("lars", "not supported: --optimiser lars; PopTorch has"),
        ("alone", "not supported: --no-all-reduce; PopTorch"),
    ],
)
def test_what_poptorch_has_no_setter_for_is_refused_by_name_before_a_device_is_touched(name, text):
    found = ask(f"refused {name}")

    assert found["said"].startswith(f"Unavailable: {text}")
    assert found["held"] == []


def test_every_option_of_poplar_is_asked_for():
    asked = {*poptorch_questions.POPLAR, *poptorch_questions.REFUSED}
    elsewhere = {"replicated_tensor_sharding", "runtime_options", "wait_s"}

    assert asked | elsewhere == set(poplar.asdict(Poplar()))


def test_engine_and_runtime_options_are_in_the_environment_before_the_sdk_is_loaded():
    settings = Settings(poplar=Poplar(prefetch=False, runtime_options={"target.hostSyncTimeout": "600"}))

    found = backends.load("poptorch").environment(settings, "ipu")

    assert json.loads(found["POPLAR_ENGINE_OPTIONS"]) == {"exchange.enablePrefetch": "false"}
    assert json.loads(found["POPLAR_RUNTIME_OPTIONS"]) == {"target.hostSyncTimeout": "600"}


@pytest.mark.parametrize("precision", ["bf16", "bf16m"])
def test_there_is_no_bfloat16(precision):
    assert "no bfloat16" in backends.load("poptorch").unsupported(precision, "inference", "ipu")

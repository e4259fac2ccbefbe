"""What only TensorFlow for IPU does: infeeds and outfeeds, pipeline stages, resident batches, flags."""

from __future__ import annotations

import json

import pytest
from contract_answers import answers, arguments, ask

from bench import backends
from bench.cases.case import Settings
from bench.cases.poplar import Poplar

ENGINE = backends.load("tensorflow_ipu")
ACCUMULATION = "optimizers.gradient_accumulation_optimizer.GradientAccumulationOptimizerV2"
INFEED, OUTFEED = "ipu_infeed_queue.IPUInfeedQueue", "ipu_outfeed_queue.IPUOutfeedQueue"
LAYERS = "ipu_tensorflow_addons.keras.layers."


def program(name):
    return ask("tensorflow_ipu", "programs", name)


def own(name):
    return ask("tensorflow_ipu", "own", name)


# ---- numbers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [
    "dense training {}", "lstm training {}",
    "resnet8 training {'schedule': 'interleaved'}", "resnet8 inference {'schedule': ''}",
])  # fmt: skip
def test_a_traced_function_computes_what_the_reference_does(name):
    said = own(f"traced {name}")["said"]

    assert 0 <= said["relative_error"] <= said["tolerance"]


def test_gradients_that_a_pipeline_sums_over_batches_are_noticed():
    answer = answers("tensorflow_ipu")["own"]["wrong accumulation of a pipeline"]

    assert answer["outcome"] == "_WrongUpdate"
    assert "the update of one training step is off" in answer["text"]


def test_replicas_and_iterations_get_batches_in_turn_and_give_results_in_order():
    assert own("order all")["said"] == [
        *[[0, 1, 2, 3], [0, 1, 2, 3]],
        *[[3, 4, 3, 4], [3, 4, 3, 4]],
        *[[0, 1, 2, 3], [4, 0, 1, 2]],
    ]
    assert own("order final")["said"] == [[2, 3], [2, 3], [3, 4], [3, 4], [2, 3], [1, 2]]


def test_batches_that_were_fetched_ahead_do_not_outlive_a_feed():
    """A fault of the fake keeps them, and the first call after a feed returns the results of the old batches."""
    assert own("order stale")["said"] != own("order all")["said"]


@pytest.mark.parametrize("accumulation", [1, 3])
def test_running_statistics_end_where_stock_tensorflow_leaves_them(accumulation):
    answer = own(f"statistics {accumulation}")

    assert len(answer["said"]) > 10
    for name, known in answer["stock"].items():
        assert answer["said"][name] == pytest.approx(known, rel=1e-4, abs=1e-5), name


def test_an_optimiser_of_a_scaled_loss_leaves_the_weights_where_stock_tensorflow_does():
    answer = own("scaled optimiser")

    for key, known in answer["stock"].items():
        assert answer["said"][key] == pytest.approx(known, rel=1e-4, abs=1e-6), key


def test_no_batch_of_a_loop_can_be_computed_before_the_one_before():
    """Otherwise a compiler could move a computation that never changes out of the loop."""
    assert [own(f"chained {steps}")["said"]["close"] for steps in (1, 2)] == [True, False]


@pytest.mark.parametrize("name", ["inference", "eval", "training", "pipeline", "trained pipeline", "no inputs"])
def test_synthetic_batches_stay_on_the_device(name):
    answer = own(f"resident {name}")
    pipelined = name.endswith("pipeline")

    assert not arguments(answer, INFEED)
    assert len(arguments(answer, OUTFEED)) == pipelined
    assert not any("flags" in str(given) for _, given in answer["calls"])
    if pipelined:
        assert {told["accumulate_outfeed"] for told in arguments(answer, "ops.pipelining_ops.pipeline")} == {True}
        assert answer["said"]["finite"]
    elif name != "no inputs":
        assert answer["said"]["close"]


# ---- calls ---------------------------------------------------------------------------------------------------------


def test_a_result_is_dequeued_for_every_run():
    names = [name for name, _ in program("inference")["calls"]]

    assert names.count("ipu_strategy.IPUStrategyV1.run") == names.count(f"{OUTFEED}.dequeue") == 2


def test_the_loop_is_the_devices_and_replicas_average():
    assert {told["n"] for told in arguments(program("timed training"), "loops.repeat")} == {3 * 2}
    assert arguments(program("replicas"), "optimizers.cross_replica_optimizer.CrossReplicaOptimizer")
    assert not arguments(program("--no-all-reduce"), "optimizers.cross_replica_optimizer.CrossReplicaOptimizer")
    assert not arguments(program("replicas"), ACCUMULATION)


@pytest.mark.parametrize(
    "name, key",
    [
        ("--variable-offloading on", "offload_weight_update_variables"),
        ("--replicated-tensor-sharding", "replicated_optimizer_state_sharding"),
    ],
)
def test_what_is_about_the_state_of_an_optimiser_reaches_the_accumulating_one(name, key):
    told = arguments(program(name), ACCUMULATION)[0]

    assert told[key] is True
    assert told["reduction_method"] == "GradientAccumulationReductionMethod.MEAN"


@pytest.mark.parametrize("name, least", [("--prefetch off", None), ("--min-latency", True)])
def test_nothing_is_fetched_ahead_where_that_is_asked_for(name, least):
    infeed, outfeed = arguments(program(name), INFEED)[0], arguments(program(name), OUTFEED)[0]

    assert infeed["prefetch_depth"] == 1
    assert infeed.get("optimise_latency") is outfeed.get("optimise_latency") is least


def test_fused_layers_are_told_partials_and_proportion():
    plain, half, share = (
        arguments(own(f"lstm {name}"), f"{LAYERS}PopnnLSTM")[0] for name in ("plain", "half", "share")
    )
    (gru,) = arguments(own("gru half in 16 bits"), f"{LAYERS}PopnnGRU")

    assert "float32" in str(plain["partials_dtype"])
    assert plain["options"] == {}
    # Partial sums in half precision are for half products. These products are fp32.
    assert "float32" in str(half["partials_dtype"])
    assert "float16" in str(gru["partials_dtype"])
    assert share["options"] == share["options_bwd"] == {"availableMemoryProportion": "0.2"}


def test_a_pipeline_is_told_everything():
    found = {
        name: arguments(own(f"pipeline {name}"), "ops.pipelining_ops.pipeline")[0]
        for name in ("nothing", "offloading", "sharding", "manual", "sum")
    }
    plain = found["nothing"]
    grouped = arguments(program("pipeline"), "ops.pipelining_ops.pipeline")[0]

    assert (grouped["gradient_accumulation_count"], grouped["repeat_count"], grouped["device_mapping"]) == (
        4,
        1,
        [0, 1],
    )
    assert plain["pipeline_schedule"] == "PipelineSchedule.Sequential"
    assert plain["reduction_method"] == "GradientAccumulationReductionMethod.MEAN"
    assert plain["accumulate_outfeed"] is False
    assert "recomputation_mode" not in plain
    assert found["offloading"]["offload_weight_update_variables"] is False
    assert found["sharding"]["replicated_optimizer_state_sharding"] is True
    assert found["manual"]["recomputation_mode"] == "RecomputationMode.RecomputeAndBackpropagateInterleaved"
    assert found["sum"]["accumulate_outfeed"] is True


def test_each_stage_of_a_pipeline_has_its_share_of_memory_forward_and_backward():
    answer = own("pipeline shares")
    made = arguments(answer, "ops.pipelining_ops.PipelineStageOptions")[:4]

    assert [told["matmul_options"]["availableMemoryProportion"] for told in made] == ["0.1", "0.2", "0.3", "0.4"]
    assert {told["convolution_options"]["partialsType"] for told in made} == {"half"}
    (pipeline, *_) = arguments(answer, "ops.pipelining_ops.pipeline")
    assert len(pipeline["backward_propagation_stages_poplar_options"]) == 2


def test_manual_recomputation_marks_what_is_kept():
    marked = {
        name: len(arguments(own(f"pipeline {name}"), "ops.pipelining_ops.recomputation_checkpoint"))
        for name in ("manual", "nothing")
    }

    assert marked["nothing"] == 0 < marked["manual"]


@pytest.mark.parametrize("name, mode", [("final", "LAST"), ("sum", "ALL"), ("nothing", "ALL")])
def test_an_output_mode_of_a_pipeline_reaches_its_outfeed(name, mode):
    assert arguments(own(f"pipeline {name}"), OUTFEED)[0]["outfeed_mode"] == f"IPUOutfeedMode.{mode}"


def test_what_stops_the_batches_is_told_as_it_was():
    assert answers("tensorflow_ipu")["own"]["interrupted"]["text"] == "ValueError: an image is no image"


def test_a_batch_of_another_shape_is_told_after_the_calls_before_it():
    """TensorFlow would end the process (LOG(FATAL) in poplar_executor.cc, 988)."""
    answer = answers("tensorflow_ipu")["own"]["misshapen"]

    assert answer["text"] == "ValueError: input0 of a batch has shape (2, 8), not (3, 8)"
    assert [name for name, _ in answer["calls"]].count("ipu_strategy.IPUStrategyV1.run") == 4


def test_a_fixed_list_of_batches_is_fed_without_python():
    from_list, from_iterator = own("generators")["said"]

    assert from_list == 0
    assert from_iterator > 0


def test_a_cycle_count_that_is_not_logged_is_told():
    """It is a line of the lowest level in TensorFlow's log, which TF_CPP_MIN_LOG_LEVEL of 1 drops."""
    answer = answers("tensorflow_ipu")["own"]["no cycles"]

    assert (answer["outcome"], answer["text"][:38]) == ("Broken", "TensorFlow has logged no cycle count: ")


def test_the_log_level_that_cycle_counts_need_is_set(monkeypatch):
    monkeypatch.delenv("TF_POPLAR_FLAGS", raising=False)

    assert ENGINE.environment(Settings(poplar=Poplar(cycle_count=True)), "ipu") == {
        "TF_POPLAR_FLAGS": "--log_cycle_count=0",
        "TF_CPP_MIN_LOG_LEVEL": "0",
    }


def test_a_simulation_needs_no_free_device_and_no_id():
    calls = own("simulated")["calls"]
    told = {name: given["value"] for name, given in calls if name.startswith("config.IPUConfig.") and "value" in given}

    assert "config.IPUConfig.select_ipus" not in told
    assert told["config.IPUConfig.auto_select_ipus"] == 1


# ---- the environment -----------------------------------------------------------------------------------------------


def test_flags_go_through_the_environment(monkeypatch):
    for name in ("TF_POPLAR_FLAGS", "POPLAR_ENGINE_OPTIONS", "POPLAR_RUNTIME_OPTIONS"):
        monkeypatch.delenv(name, raising=False)
    told = Poplar(ipu_model=True, executable_cache="/c", cycle_count=True, internal_exchange_target="memory")
    found = ENGINE.environment(Settings(poplar=told), "ipu")

    assert found["TF_POPLAR_FLAGS"].split() == ["--use_ipu_model", "--executable_cache_path=/c", "--log_cycle_count=0"]
    assert json.loads(found["POPLAR_ENGINE_OPTIONS"]) == {"opt.internalExchangeOptimisationTarget": "memory"}


def test_a_flag_that_would_end_the_process_is_refused(monkeypatch):
    monkeypatch.setenv("TF_POPLAR_FLAGS", "--use_ipu_modle")

    with pytest.raises(ValueError, match="did you mean use_ipu_model"):
        ENGINE.environment(Settings(), "ipu")

"""TensorFlow for IPU on fakes of its API: what is called, in which order, with what; what it computes; what it says.

The fakes compute on the CPU, so that numbers can be held against the reference. What only an IPU can show is not here.
"""

from __future__ import annotations

import importlib.util

import pytest
import tensorflow_ipu_cases as cases
from tensorflow_ipu_cases import calls, given

from bench import backends

pytestmark = pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="tensorflow is not installed")

ENGINE = backends.load(cases.ENGINE)
CONFIG = "config.IPUConfig."
ACCUMULATION = "optimizers.gradient_accumulation_optimizer.GradientAccumulationOptimizerV2"


@pytest.fixture(scope="module")
def answers():
    return cases.answers()


@pytest.fixture
def options(answers):
    return lambda name: calls(answers["options"][name])


def config(called):
    """What the configuration was told."""
    return {name[len(CONFIG) :]: told["value"] for name, told in called if name.startswith(CONFIG) and "value" in told}


def every(answers):
    """Every answer about one program, wherever it is."""
    for value in answers.values() if isinstance(answers, dict) else answers:
        if isinstance(value, dict) and "outcome" in value:
            yield value
        elif isinstance(value, (dict, list)):
            yield from every(value)


# ---- calls, and their order ------------------------------------------------------------------------


def test_the_calls_of_a_program_are_in_the_order_of_the_guide(options):
    wanted = [
        *["config.IPUConfig", CONFIG + "configure_ipu_system", "ipu_strategy.IPUStrategyV1"],
        *["ipu_infeed_queue.IPUInfeedQueue", "ipu_outfeed_queue.IPUOutfeedQueue", "ipu_strategy.IPUStrategyV1.run"],
        *["loops.repeat", "ipu_outfeed_queue.IPUOutfeedQueue.enqueue", "ipu_outfeed_queue.IPUOutfeedQueue.dequeue"],
        "config.reset_ipu_configuration",
    ]
    names = [name for name, _ in options("nothing")]
    firsts = [names.index(name) for name in wanted]

    assert firsts == sorted(firsts)
    assert names[-1] == wanted[-1]
    assert (
        names.count("ipu_strategy.IPUStrategyV1.run") == names.count("ipu_outfeed_queue.IPUOutfeedQueue.dequeue") == 2
    )


def test_replicas_are_the_ipus_over_the_stages(options, answers):
    assert config(options("nothing"))["auto_select_ipus"] == 2
    assert config(calls(answers["pipelines"]["nothing"]))["auto_select_ipus"] == 2


def test_the_loop_is_the_devices_and_replicas_average(options):
    called = options("nothing")

    assert {told["n"] for told in given(called, "loops.repeat")} == {1}
    assert given(called, "optimizers.cross_replica_optimizer.CrossReplicaOptimizer")
    assert not given(called, ACCUMULATION)


@pytest.mark.parametrize("name", ["variable_offloading", "replicated_tensor_sharding"])
def test_what_is_about_the_state_of_an_optimiser_reaches_the_accumulating_one(options, name):
    told = given(options(name), ACCUMULATION)[0]
    key = {"variable_offloading": "offload_weight_update_variables"}.get(name, "replicated_optimizer_state_sharding")

    assert told[key] is True
    assert told["reduction_method"] == "GradientAccumulationReductionMethod.MEAN"


@pytest.mark.parametrize(
    "name, wanted",
    [
        ("available_memory_proportion", {"convolutions.poplar_options": {"availableMemoryProportion": "0.2"}}),
        ("available_memory_proportion", {"matmuls.poplar_options": {"availableMemoryProportion": "0.2"}}),
        ("partials_type_matmul", {"matmuls.poplar_options": {"partialsType": "half"}}),
        ("partials_type_conv", {"convolutions.poplar_options": {"partialsType": "half"}}),
        ("half_partial", {"convolutions.poplar_options": {"partialsType": "half"}}),
        ("half_partial", {"matmuls.poplar_options": {"partialsType": "half"}}),
        (
            "internal_exchange_target",
            {"compilation_poplar_options": {"opt.internalExchangeOptimisationTarget": "cycles"}},
        ),
        ("engine_options", {"compilation_poplar_options": {"opt.maxCompilationThreads": "2"}}),
        ("prefetch", {"optimizations.prefetch_data_streams": False}),
        ("min_latency", {"compilation_poplar_options": {"exchange.enablePrefetch": "false"}}),
        ("num_io_tiles", {"io_tiles.num_io_tiles": 32, "io_tiles.place_ops_on_io_tiles": True}),
        ("stochastic_rounding on", {"floating_point_behaviour.esr": "StochasticRoundingBehaviour.ON"}),
        ("stochastic_rounding off", {"floating_point_behaviour.esr": "StochasticRoundingBehaviour.OFF"}),
        ("stable_norm", {"norms.use_stable_statistics": True}),
        ("conv_dithering", {"convolutions.poplar_options": {"enableConvDithering": "true"}}),
        ("max_cross_replica_buffer_size", {"optimizations.maximum_cross_replica_sum_buffer_size": 4096}),
        ("device_id", {"select_ipus": 4}),
        ("recompute", {"allow_recompute": True}),
        (
            "compile_only",
            {
                "device_connection.type": "DeviceConnectionType.PRE_COMPILE",
                "device_connection.version": "ipu21",
                "device_connection.enable_remote_buffers": True,
            },
        ),
    ],
)
def test_an_option_reaches_the_configuration_and_nothing_else_does(options, name, wanted):
    told = config(options(name))

    assert {key: told.get(key) for key in wanted} == wanted
    assert not set(config(options("nothing"))) - {"auto_select_ipus"}


@pytest.mark.parametrize("name", ["prefetch", "min_latency"])
def test_nothing_is_fetched_ahead_where_that_is_asked_for(options, name):
    infeed = given(options(name), "ipu_infeed_queue.IPUInfeedQueue")[0]
    outfeed = given(options(name), "ipu_outfeed_queue.IPUOutfeedQueue")[0]

    assert infeed["prefetch_depth"] == 1
    assert (infeed.get("optimise_latency"), outfeed.get("optimise_latency")) == (
        (True,) * 2 if name != "prefetch" else (None,) * 2
    )


def test_fused_layers_are_told_partials_and_proportion(options, answers):
    plain, half, share = (
        given(options(name), "ipu_tensorflow_addons.keras.layers.PopnnLSTM")[0]
        for name in ("nothing", "half_partial", "available_memory_proportion")
    )

    assert "float32" in str(plain["partials_dtype"])
    assert plain["options"] == {}
    # Half sums are for half products: these are fp32.
    assert "float32" in str(half["partials_dtype"])
    told = given(calls(answers["half"]), "ipu_tensorflow_addons.keras.layers.PopnnGRU")[0]
    assert "float16" in str(told["partials_dtype"])
    assert share["options"] == share["options_bwd"] == {"availableMemoryProportion": "0.2"}


def test_a_pipeline_is_told_everything(answers):
    found = {
        name: given(calls(answer), "ops.pipelining_ops.pipeline")[0] for name, answer in answers["pipelines"].items()
    }
    plain = found["nothing"]

    assert (plain["gradient_accumulation_count"], plain["repeat_count"], plain["device_mapping"]) == (2, 1, [0, 1])
    assert plain["pipeline_schedule"] == "PipelineSchedule.Sequential"
    assert plain["reduction_method"] == "GradientAccumulationReductionMethod.MEAN"
    assert plain["accumulate_outfeed"] is False
    assert "recomputation_mode" not in plain
    assert found["offloading"]["offload_weight_update_variables"] is False
    assert found["sharding"]["replicated_optimizer_state_sharding"] is True
    assert found["manual"]["recomputation_mode"] == "RecomputationMode.RecomputeAndBackpropagateInterleaved"
    assert found["sum"]["accumulate_outfeed"] is True


def test_each_stage_of_a_pipeline_has_its_share_of_memory_forward_and_backward(answers):
    called = calls(answers["pipelines"]["shares"])
    made = given(called, "ops.pipelining_ops.PipelineStageOptions")[:4]

    assert [told["matmul_options"]["availableMemoryProportion"] for told in made] == ["0.1", "0.2", "0.3", "0.4"]
    assert {told["convolution_options"]["partialsType"] for told in made} == {"half"}
    assert "convolutions.poplar_options" in config(called)
    assert len(given(called, "ops.pipelining_ops.pipeline")[0]["backward_propagation_stages_poplar_options"]) == 2


def test_manual_recomputation_marks_what_is_kept(answers):
    marked = {
        name: len(given(calls(answers["pipelines"][name]), "ops.pipelining_ops.recomputation_checkpoint"))
        for name in ("manual", "nothing")
    }

    assert marked["nothing"] == 0 < marked["manual"]


@pytest.mark.parametrize("name, mode", [("final", "LAST"), ("sum", "ALL"), ("nothing", "ALL")])
def test_an_output_mode_of_a_pipeline_reaches_its_outfeed(answers, name, mode):
    told = given(calls(answers["pipelines"][name]), "ipu_outfeed_queue.IPUOutfeedQueue")[0]

    assert told["outfeed_mode"] == f"IPUOutfeedMode.{mode}"


# ---- what is refused, what fails, and who lets go -----------------------------------------------------


@pytest.mark.parametrize("name", cases.REFUSED)
def test_what_it_cannot_be_told_is_unavailable_before_a_device_is_touched(answers, name):
    found = answers["refused"][name]

    assert found["outcome"] == "Unavailable"
    assert found["text"].startswith("not supported: --")
    assert found["text"].endswith("(tensorflow_ipu)")
    assert found["calls"] == []


MESSAGES = {
    "none free": ("Unavailable", "a free device of 1 IPUs"),
    "no such device": ("Unavailable", "not present: a device of 1 IPUs"),
    "out of memory": ("Refused", "out of memory on the IPU: "),
    "exhausted": ("Refused", "lower --available-memory-proportion, --recompute"),
    "recoverable": ("Broken", "the IPU needs IPU_RESET"),
    "unrecoverable": ("Broken", "hardware fault"),
    "pipeline": ("Refused", "--gradient-accumulation"),
    "host sync": ("Broken", "target.hostSyncTimeout"),
    "something else": ("error", "no idea"),
    "python's": ("error", "KeyError"),
}


@pytest.mark.parametrize("when", ["failing", "failing late"])
@pytest.mark.parametrize("name", MESSAGES)
def test_an_error_becomes_its_message_and_the_device_is_let_go(answers, name, when):
    if name not in answers[when]:
        pytest.skip("it fails before anything runs")
    found = answers[when][name]

    assert (found["outcome"], "\n" in found["text"]) == (MESSAGES[name][0], False)
    assert MESSAGES[name][1] in found["text"]
    assert found["calls"][-1][0] in ("config.reset_ipu_configuration", CONFIG + "configure_ipu_system")


def test_what_is_compiled_without_a_device_is_not_waited_for(options):
    names = [name for name, _ in options("compile_only")]

    assert "ipu_strategy.IPUStrategyV1.run" in names
    assert "ipu_outfeed_queue.IPUOutfeedQueue.dequeue" not in names


def test_what_stops_the_batches_is_told_as_it_was(answers):
    assert answers["interrupted"]["text"] == "ValueError: an image is no image"
    assert answers["interrupted"]["calls"][-1][0] == "config.reset_ipu_configuration"


def test_a_device_that_becomes_free_is_waited_for(answers):
    found = answers["failing"]["free later"]

    assert [name for name, _ in calls(found)].count(CONFIG + "configure_ipu_system") == 2


def test_nothing_is_held_when_a_program_has_ended_however_it_ended(answers):
    assert len(list(every(answers))) > 150
    assert all(answer["held"] is None for answer in every(answers))


def test_cycles_are_read_from_the_log_of_one_more_call(answers):
    assert answers["cycles"]["said"] == {"cycles": 4242}


def test_a_simulation_needs_no_free_device_and_no_id(answers):
    told = config(calls(answers["model"]))

    assert "select_ipus" not in told
    assert told["auto_select_ipus"] == 1

"""What only PopTorch does: rows of a call, blocks, execution strategies, and frozen options."""

from __future__ import annotations

import pytest
from contract_answers import answers, arguments, ask

TRAINED = ("training", "accumulated", "replicas")


def program(name):
    return ask("poptorch", "programs", name)


def names(name):
    return [called for called, _ in program(name)["calls"]]


@pytest.mark.parametrize(
    "name, rows",
    [("inference", 3), ("accumulated", 9), ("replicas", 12), ("pipeline", 9)],
)
def test_a_call_takes_micro_batch_x_iterations_x_replicas_x_accumulation_rows(name, rows):
    for called in ("PoplarExecutor.compile", "PoplarExecutor.__call__"):
        assert arguments(program(name), called)[0]["args"][0].startswith(f"<Tensor ({rows},")


@pytest.mark.parametrize("name", TRAINED)
def test_one_compiled_program_runs_and_nothing_is_set_after_it_is_made(name):
    wrapped = names(name).index("trainingModel")

    assert not [called for called in names(name)[wrapped:] if called.startswith("Options")]
    assert names(name).count("trainingModel") == names(name).count("PoplarExecutor.compile") == 1


def test_no_model_is_left_that_was_not_destroyed():
    for name, answer in answers("poptorch")["programs"].items():
        called = [one for one, _ in answer["calls"]]
        made = called.count("inferenceModel") + called.count("trainingModel")
        assert made == called.count("PoplarExecutor.destroy"), name


def test_rows_that_do_not_fit_are_told_with_the_product():
    said = answers("poptorch")["own"]["rows"]["text"]

    assert "--batch-size 3 x --batches-per-step 2 x --gradient-accumulation 1 x --replicas 2 = 12;" in said


def test_a_value_that_the_options_refuse_is_told_with_the_option_s_name():
    answer = answers("poptorch")["own"]["value"]

    assert (answer["outcome"], answer["text"]) == (
        "Refused",
        "--batches-per-step: PopTorch refuses the value: positive",
    )


@pytest.mark.parametrize("mode, copies", [("all", 4), ("final", 2), ("sum", 2)])
def test_an_output_mode_says_how_many_batches_come_back(mode, copies):
    shapes, one, facts = ask("poptorch", "own", f"copies {mode}")["said"]

    assert shapes == [[copies * one[0], *one[1:]]]
    assert facts["output_mode"] == mode


def test_synthetic_data_stays_on_the_device_and_has_no_output_to_be_believed():
    assert ask("poptorch", "own", "synthetic")["said"] == []


def test_the_device_s_latency_is_told():
    assert program("inference")["said"]["told"]["sdk_latency_s"] == 0.002
    assert program("synthetic")["said"]["told"] == {}


def test_two_runs_of_a_chain_that_draws_differ():
    one, other = ask("poptorch", "own", "drawn")["said"]

    assert one != other


def test_updates_of_one_call_follow_each_other():
    """The second update starts from the weights of the first, so its output differs."""
    assert isinstance(ask("poptorch", "own", "two updates")["said"], list)


def test_an_iteration_of_a_pipeline_that_computes_something_else_is_noticed():
    answer = answers("poptorch")["own"]["wrong iteration of a pipeline"]

    assert answer["text"] == "batch 1 of 2 of a call is off by 0.01: all have equal inputs"


def test_popart_s_keys_are_set_once_and_whole():
    for name in answers("poptorch")["programs"]:
        if answers("poptorch")["programs"][name]["outcome"] == "passed":
            keys = [each["key"] for each in arguments(program(name), "Options._Popart.set")]
            assert len(keys) == len(set(keys)), name


def test_no_setter_is_called_that_replaces_the_options_of_convolutions():
    called = {name for answer in answers("poptorch")["programs"].values() for name, _ in answer["calls"]}

    assert "Options._Popart.set" in called
    assert not {"Options.Precision.setPartialsType", "Options.Training.setConvolutionDithering"} & called


def test_optimiser_state_goes_where_it_is_told():
    offloaded, kept, sharded = (
        program(name)
        for name in (
            "--variable-offloading on",
            "--variable-offloading off",
            "--replicated-tensor-sharding without --variable-offloading",
        )
    )

    assert arguments(offloaded, "TensorLocationSettings.useOnChipStorage") == [{"use": False}]
    assert arguments(kept, "TensorLocationSettings.useOnChipStorage") == [{"use": True}]
    assert arguments(sharded, "TensorLocationSettings.useOnChipStorage") == [{"use": True}]
    assert arguments(sharded, "TensorLocationSettings.useReplicatedTensorSharding") == [{"use": True}]
    for answer in (offloaded, kept, sharded):
        assert len(arguments(answer, "Options.TensorLocations.setOptimizerLocation")) == 1


def test_a_pipeline_has_a_block_for_each_stage_that_begins_before_the_model_is_wrapped():
    for name in ("pipeline", "sequential pipeline"):
        assert [each["ipu_id"] for each in arguments(program(name), "BeginBlock")] == [0, 1]
        steps = [names(name).index(called) for called in ("BeginBlock", "Options", "trainingModel")]
        assert steps == sorted(steps)


def test_tiles_for_io_come_with_overlap():
    for called, times in (("set_overlap_for_input", 2), ("set_overlap_for_output", 4)):
        modes = [each["mode"] for each in arguments(program("--num-io-tiles"), called)]
        assert modes == ["OverlapMode.OverlapDeviceIterationLoop"] * times


def test_manual_recomputation_checkpoints_what_is_kept_and_nothing_else_is_checkpointed():
    assert arguments(program("--recompute manual"), "recomputationCheckpoint")
    assert not arguments(program("--recompute auto"), "recomputationCheckpoint")


def test_a_loss_in_16_bits_is_scaled_by_the_optimiser():
    scaled, plain = (arguments(program(name), "optim.SGD")[0] for name in ("16 bits", "training"))

    assert scaled["loss_scaling"] > 1
    assert (plain["loss_scaling"], plain["use_combined_accum"]) == (1, False)


def test_combined_momentum_is_scaled_as_the_loss_is():
    """As Graphcore's train.py: velocity_scaling is the loss scaling."""
    (on,), (off,) = (arguments(program(f"--combined-momentum {name}"), "optim.SGD") for name in ("on", "off"))

    assert (on["use_combined_accum"], on["velocity_scaling"], on["loss_scaling"]) == (True, 64.0, 64.0)
    assert (off["use_combined_accum"], "velocity_scaling" in off) == (False, False)


def test_the_state_of_an_optimiser_without_streams_is_not_read():
    called = [name for name, _ in answers("poptorch")["own"]["no state streams"]["calls"]]

    assert answers("poptorch")["own"]["no state streams"]["outcome"] == "passed"
    assert not [name for name in called if name.endswith("state_dict")]


def test_a_chain_is_a_loop_of_the_device_and_a_cell_is_not():
    """A loop of Python would be unrolled, as cells are."""
    chain = ask("poptorch", "programs", "a chain that draws")
    cell = ask("poptorch", "operations", "lstm cell: others")

    assert {given["count"] for given in arguments(chain, "for_loop")} == {6}
    assert arguments(cell, "for_loop") == []

"""What only PopART does: attributes of its models' nodes, anchors, and the shapes of a call."""

from __future__ import annotations

import pytest
from contract_answers import arguments, ask

ACQUIRE, BY_ID = "DeviceManager.tryAcquireAvailableDevice", "DeviceManager.tryAcquireDeviceById"
COMPILED = ["DeviceManager", ACQUIRE, "DeviceInfo.__enter__", "S", "S.prepareDevice"]
TRAINED = [*COMPILED, "S.weightsFromHost", "S.initAnchorArrays"]
UPDATED = ["S.writeWeights", "S.weightsFromHost", "S.updateOptimizerFromHost", "S.run"]
QUIET = (
    "lowered",
    "popdist",
    "SessionOptions",
    "PyStepIO",
    "PyWeightsIO",
    "SGD",
    "DataFlow",
    "AnchorReturnType",
    "TensorInfo",
)


def program(name):
    return ask("popart", "programs", name)


def calls(name):
    """The calls in order, without getters and setters."""
    short = [
        called.replace("InferenceSession", "S").replace("TrainingSession", "S") for called, _ in program(name)["calls"]
    ]
    return [called for called in short if not called.startswith(QUIET) and not called.endswith("getInfo")]


@pytest.mark.parametrize("name", ["inference", "eval"])
def test_inference_calls_this_and_nothing_else(name):
    assert calls(name) == [*COMPILED, "S.initAnchorArrays", "S.run", "DeviceInfo.__exit__"]


@pytest.mark.parametrize("name", ["training", "replicas", "accumulated", "pipeline", "timed training", "16 bits"])
def test_training_calls_this_and_nothing_else(name):
    assert calls(name) == [*TRAINED, *UPDATED, "DeviceInfo.__exit__"]


def test_weights_that_are_no_constants_go_to_the_device_first():
    assert calls("mixed precision") == [*TRAINED, "S.run", "DeviceInfo.__exit__"]


def test_a_device_is_chosen_by_its_number():
    assert arguments(program("--device-id"), BY_ID) == [{"id": 2}]
    assert arguments(program("--device-id"), ACQUIRE) == []
    assert arguments(program("pipeline"), ACQUIRE) == [{"numIpus": 2}]


def test_a_program_is_compiled_for_an_architecture_without_a_device():
    for name, ipu in (("--compile-only", "ipu21"), ("--compile-only to train", "ipu2")):
        device = "DeviceManager.createOfflineIPUDevice"
        assert calls(name) == ["DeviceManager", device, "S", "S.prepareDevice"]
        assert arguments(program(name), device) == [{"opts": {"numIPUs": 1, "ipuVersion": ipu}}]
    assert arguments(program("--compile-only"), "InferenceSession.prepareDevice") == [{"loadEngine": False}]


def test_a_simulation_takes_no_device():
    assert arguments(program("--ipu-model"), "DeviceManager.createIpuModelDevice") == [{"e": {"numIPUs": 1}}]
    assert ACQUIRE not in calls("--ipu-model")


@pytest.mark.parametrize("name, kind, ends, steps", [
    ("inference", "All", ["output"], 1),
    ("eval", "All", ["output", "loss"], 1),
    ("timed eval", "All", ["loss"], 1),
    ("timed training", "Final", ["loss"], 3),
    ("final", "Final", ["output"], 3),
    ("sum", "Sum", ["output"], 3),
])  # fmt: skip
def test_what_comes_back_is_what_was_asked_for(name, kind, ends, steps):
    (flow,) = arguments(program(name), "DataFlow")

    assert arguments(program(name), "AnchorReturnType") == [{"anchorReturnTypeString": kind}]
    assert [flow["batchesPerStep"], list(flow["anchorTensors"])] == [steps, ends]


def test_a_call_takes_steps_accumulation_and_replicas_in_this_order():
    (io,) = arguments(program("timed training"), "PyStepIO")[:1]
    (other,) = arguments(program("replicas"), "PyStepIO")[:1]

    assert io["inputs"] == {"input0": "<ndarray (3, 2, 1, 3, 8) float32>"}
    assert other["inputs"] == {"input0": "<ndarray (2, 1, 2, 3, 8) float32>"}


def test_nodes_are_marked_with_their_ipu_and_their_stage():
    both = [{"__ipu_number": ipu, "__pipeline_stage": ipu} for ipu in (0, 1)]
    marks = program("pipeline")["marks"]

    assert marks["Conv"] == both
    assert marks["Gemm"] == marks["LogSoftmax"] == both[1:]
    assert marks["Identity"] == both[1:]
    assert program("sequential pipeline")["marks"]["Conv"] == [{"__ipu_number": ipu} for ipu in (0, 1)]
    assert program("inference")["marks"]["Gemm"] == [{}]


def test_each_ipu_has_its_share_of_memory():
    marks = program("--available-memory-proportion, an IPU each")["marks"]

    assert [mark["__available_memory"] for mark in marks["Conv"]] == [0.2, 0.4]
    assert "__available_memory" not in marks["Relu"][0]


def test_the_named_blocks_are_recomputed():
    marks = program("--recompute manual")["marks"]

    assert marks["Conv"] == [{}, {"__recompute_output_in_backward_pass": 2}]
    assert marks["Gemm"] == [{}]


@pytest.mark.parametrize("name, storage, sharding", [
    ("--variable-offloading on", "OffChip", "Off"),
    ("--variable-offloading off", "OnChip", "Off"),
    ("--replicated-tensor-sharding", "OnChip", "On"),
])  # fmt: skip
def test_the_state_of_the_optimiser_goes_where_it_is_told(name, storage, sharding):
    told = {"storage": f"TensorStorage.{storage}", "replicatedTensorSharding": f"ReplicatedTensorSharding.{sharding}"}

    assert arguments(program(name), "TensorLocation") == [told]


def test_the_rate_changes_and_the_scale_of_the_loss_does_not():
    told = [made["pyd"] for made in arguments(program("a scale of the loss"), "SGD")]

    assert told == [{"defaultLearningRate": [rate, False], "lossScaling": [64.0, True]} for rate in (0.0, 0.5)]


def test_a_device_of_poprun_is_asked_for_by_position():
    """As PopART's own tests do: the name of getDevice's parameter is not public."""
    (given,) = arguments(ask("popart", "own", "under poprun"), "popdist.popart.getDevice")

    assert given == {"ipus_per_replica": 1}


def test_combined_momentum_is_scaled_as_the_loss_is():
    on, off = (arguments(program(f"--combined-momentum {name}"), "SGD")[0] for name in ("on", "off"))

    assert on["accumulatorAndMomentum"] == "SGDAccumulatorAndMomentum.Combined"
    assert on["pyd"]["defaultVelocityScaling"] == on["pyd"]["lossScaling"] == [64.0, True]
    assert off["accumulatorAndMomentum"] == "SGDAccumulatorAndMomentum.Separate"
    assert "defaultVelocityScaling" not in off["pyd"]


def test_session_options_reach_the_settings_within_settings():
    told = dict((name, given.get("value")) for name, given in program("--session-options")["calls"])

    assert told["AccumulateOuterFragmentSettings.schedule"] == "AccumulateOuterFragmentSchedule.OverlapMemoryOptimized"
    assert told["ReplicatedCollectivesSettings.mergeAllReduceCollectives"] is True

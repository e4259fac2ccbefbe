"""What the options of an IPU become in PopART's hands: its settings, its calls, and marks on the nodes of a model."""

from __future__ import annotations

import popart_answers
import pytest
from popart_answers import ACQUIRE, calls_with

pytest.importorskip("onnxruntime")
pytest.importorskip("torch")

MEAN = {"accumulationAndReplicationReductionType": "ReductionType.Mean"}
PIPELINED = {"virtualGraphMode": "VirtualGraphMode.Manual", "enablePipelining": True}
NO_PREFETCH = {"enablePrefetchDatastreams": False, "engineOptions": {"exchange.enablePrefetch": "false"}}
SHARE = {"availableMemoryProportion": "0.3"}
HALF = {"partialsType": "half"}
OFFLOADED = {**MEAN, "optimizerStateTensorLocationSettings": "popart.TensorLocationSettings#1"}
REPLICAS = {"enableReplicatedGraphs": True, "replicatedGraphCount": 2}
# What each option sets of SessionOptions, and nothing else.
SET = {
    "inference": {},
    "eval": {},
    "training": MEAN,
    "synthetic": {"syntheticDataMode": "SyntheticDataMode.RandomNormal"},
    "zeros": {"syntheticDataMode": "SyntheticDataMode.Zeros"},
    # Nothing is fed to a chain that draws its own numbers, and what it drew is judged.
    "chain": {},
    "final": {},
    "sum": {},
    "replicas": {**REPLICAS, **MEAN},
    "accumulated": {**MEAN, "enableGradientAccumulation": True, "accumulationFactor": 3},
    "one share": {"convolutionOptions": SHARE, "matmulOptions": SHARE, "lstmOptions": SHARE},
    "a share each": PIPELINED,
    "pipelined": {**PIPELINED, **MEAN, "enableGradientAccumulation": True, "accumulationFactor": 3},
    "sequential": {**PIPELINED, "enablePipelining": False},
    "partials": {
        "partialsTypeMatMuls": "half",
        "convolutionOptions": {"partialsType": "float"},
        "lstmOptions": HALF,
    },
    "half partial": {"partialsTypeMatMuls": "half", "convolutionOptions": HALF, "lstmOptions": HALF},
    "exchange": {"engineOptions": {"opt.internalExchangeOptimisationTarget": "balanced"}},
    "engine": {"engineOptions": {"debug.allowOutOfMemory": "true"}},
    "no prefetch": NO_PREFETCH,
    "least latency": NO_PREFETCH,
    "rounding on": {"enableStochasticRounding": True},
    "rounding off": {"enableStochasticRounding": False},
    "stable norm": {"enableStableNorm": True},
    "dithering": {"convolutionOptions": {"enableConvDithering": "true"}},
    "offloaded": OFFLOADED,
    "not offloaded": OFFLOADED,
    "sharded": {**REPLICAS, **OFFLOADED},
    "cached": {"enableEngineCaching": True, "cachePath": "/there"},
    "cycles": {"instrumentWithHardwareCycleCounter": True},
    "profiled": {"engineOptions": {"autoReport.all": "true", "autoReport.directory": "/report"}},
    "device": {},
    "ipu model": {},
    "compiled only": {},
    "recompute auto": {**MEAN, "autoRecomputation": "RecomputationType.Standard"},
    "recompute in a pipeline": {
        **PIPELINED,
        **MEAN,
        "enableGradientAccumulation": True,
        "accumulationFactor": 3,
        "autoRecomputation": "RecomputationType.Pipeline",
    },
    "recompute manual": MEAN,
    "mixed precision": {"constantWeights": False},
    "scaled": MEAN,
}
REFUSED = {
    "schedule grouped": "not supported: --pipeline-schedule grouped: PopART",
    "schedule interleaved": "not supported: --pipeline-schedule interleaved: PopART",
    "io tiles": "not supported: --num-io-tiles: PopART",
    "buffer": "not supported: --max-cross-replica-buffer-size: PopART",
    "each by itself": "not supported: --no-all-reduce: replicas that PopART trains",
    "lars": "not supported: --optimiser lars: PopART",
    "loop": "not supported: lstm in a loop: PopART",
}


@pytest.fixture(scope="module", name="answers")
def fixture_of_answers():
    return popart_answers.answers()


@pytest.mark.parametrize("name", SET)
def test_an_option_reaches_its_setting_and_no_other(answers, name):
    found = answers["options"][name]

    assert found["outcome"] == "passed", found.get("text")
    assert found["options"] == SET[name]
    assert all(finite for _, finite in found["outputs"].values())
    assert found["looped"]
    assert found["batches"] == 1


@pytest.mark.parametrize("name", REFUSED)
def test_what_popart_cannot_is_said_before_a_device_is_touched(answers, name):
    found = answers["options"][name]

    assert found["outcome"] == "Unavailable"
    assert found["text"].startswith(REFUSED[name])
    assert found["called"] == 0


def test_a_device_is_chosen_by_its_number(answers):
    chosen = answers["options"]["device"]

    assert calls_with(chosen, "DeviceManager.tryAcquireDeviceById") == [{"id": 3}]
    assert calls_with(chosen, ACQUIRE) == []
    assert calls_with(answers["options"]["a share each"], ACQUIRE) == [{"numIpus": 2}]


def test_a_program_is_compiled_for_an_architecture_without_a_device(answers):
    for name, ipu in (("compiled only", "ipu21"), ("compiled only to train", "ipu2")):
        found = answers["options"][name]
        device = "DeviceManager.createOfflineIPUDevice"
        assert found["calls"] == ["DeviceManager", device, "S", "S.prepareDevice"]
        assert calls_with(found, device) == [{"opts": {"numIPUs": 1, "ipuVersion": ipu}}]
    assert calls_with(answers["options"]["compiled only"], "InferenceSession.prepareDevice") == [{"loadEngine": False}]


def test_a_simulation_takes_no_device(answers):
    found = answers["options"]["ipu model"]

    assert calls_with(found, "DeviceManager.createIpuModelDevice") == [{"e": {"numIPUs": 1}}]
    assert ACQUIRE not in found["calls"]


@pytest.mark.parametrize("name, kind, ends, steps", [
    ("inference", "All", ["output"], 1),
    ("eval", "All", ["output", "loss"], 1),
    ("timed eval", "All", ["loss"], 1),
    ("timed training", "Final", ["loss"], 3),
    ("final", "Final", ["output"], 3),
    ("sum", "Sum", ["output"], 3),
])  # fmt: skip
def test_what_comes_back_is_what_was_asked_for(answers, name, kind, ends, steps):
    found = answers["options"][name]
    (flow,) = calls_with(found, "DataFlow")

    assert calls_with(found, "AnchorReturnType") == [{"anchorReturnTypeString": kind}]
    assert [flow["batchesPerStep"], list(flow["anchorTensors"])] == [steps, ends]


def test_a_call_takes_steps_accumulation_and_replicas_in_this_order(answers):
    (io,) = calls_with(answers["options"]["timed training"], "PyStepIO")[:1]
    (other,) = calls_with(answers["options"]["replicas"], "PyStepIO")[:1]

    assert io["inputs"] == {"input0": "<ndarray (3, 2, 1, 4, 8) float32>"}
    assert other["inputs"] == {"input0": "<ndarray (1, 1, 2, 4, 8) float32>"}


def test_synthetic_data_leaves_numbers_and_not_what_was_in_memory(answers):
    for name in ("synthetic", "zeros", "synthetic training"):
        assert all(finite for _, finite in answers["options"][name]["outputs"].values())


def test_nodes_are_marked_with_their_ipu_and_their_stage(answers):
    both = [{"__ipu_number": ipu, "__pipeline_stage": ipu} for ipu in (0, 1)]
    marks = answers["options"]["pipelined"]["marks"]

    assert marks["Conv"] == both
    assert marks["Gemm"] == marks["LogSoftmax"] == both[1:]
    assert marks["Identity"] == both[1:]
    assert answers["options"]["sequential"]["marks"]["Conv"] == [{"__ipu_number": ipu} for ipu in (0, 1)]
    assert answers["options"]["inference"]["marks"]["Gemm"] == [{}]


def test_each_ipu_has_its_share_of_memory(answers):
    marks = answers["options"]["a share each"]["marks"]

    assert [mark["__available_memory"] for mark in marks["Conv"]] == [0.3, 0.5]
    assert "__available_memory" not in marks["Relu"][0]


def test_the_named_blocks_are_recomputed(answers):
    marks = answers["options"]["recompute manual"]["marks"]

    assert marks["Conv"] == [{}, {"__recompute_output_in_backward_pass": 2}]
    assert marks["Gemm"] == [{}]


@pytest.mark.parametrize("name, storage, sharding", [
    ("offloaded", "OffChip", "Off"),
    ("not offloaded", "OnChip", "Off"),
    ("sharded", "OnChip", "On"),
])  # fmt: skip
def test_the_state_of_the_optimiser_goes_where_it_is_told(answers, name, storage, sharding):
    told = {"storage": f"TensorStorage.{storage}", "replicatedTensorSharding": f"ReplicatedTensorSharding.{sharding}"}

    assert calls_with(answers["options"][name], "TensorLocation") == [told]


def test_the_rate_changes_and_the_scale_of_the_loss_does_not(answers):
    told = [made["pyd"] for made in calls_with(answers["options"]["scaled"], "SGD")]

    assert told == [{"defaultLearningRate": [rate, False], "lossScaling": [64.0, True]} for rate in (0.0, 0.5)]
    assert answers["options"]["scaled"]["facts"]["loss_scale"] == 64.0


def test_cycles_are_told_where_they_are_asked_for(answers):
    assert answers["options"]["cycles"]["told"] == {"cycles": 1330}
    assert answers["options"]["inference"]["told"] is None

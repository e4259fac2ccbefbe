"""What the options of an IPU become in PopART's hands, and its errors in ours, by name."""

from __future__ import annotations

import dataclasses
import json
import os

import contract
import numpy as np
import popart_fake
from popart_runs import case_of, compiled, outcome, require, settings_of


def calls():
    """What was called, in order, without what only reads or sets."""
    quiet = (
        "popdist",
        "getInfo",
        "AnchorReturnType",
        "DataFlow",
        "SessionOptions",
        "PyStepIO",
        "PyWeightsIO",
        "SGD",
        "TensorInfo",
    )
    short = [
        one.name.replace("popart.", "").replace("InferenceSession", "S").replace("TrainingSession", "S")
        for one in contract.calls
    ]
    return [name for name in short if not any(name.startswith(word) or name.endswith(word) for word in quiet)]


def of_options():
    """What the SessionOptions were set to, in order."""
    start = "popart.SessionOptions."
    return {
        one.name[len(start) :]: one.arguments["value"]
        for one in contract.calls
        if one.name.startswith(start) and "value" in one.arguments
    }


def optioned(mode="inference", name="dense", precision="fp32", checked=True, data="generated", **given):
    """What the options become: SessionOptions, calls, marks, and what a run leaves."""
    more = {
        key: given.pop(key)
        for key in ("replicas", "accumulation", "steps", "stages", "schedule", "recipe")
        if key in given
    }
    fields = {
        key: given.pop(key) for key in ("min_latency", "half_partial", "zero_values", "all_reduce") if key in given
    }
    case = case_of(name, mode=mode, precision=precision, replicas=more.get("replicas", 1))
    settings = dataclasses.replace(settings_of(name, mode=mode, **more, **given), data=data, **fields)
    program, _, weights = compiled(case, settings, checked)
    first = calls()
    marks = marked()
    if program.load is not None and not settings.poplar.compile_only:
        program.load(weights)
        program.set_learning_rate(0.5)
    found = {}
    if not settings.poplar.compile_only:
        program.run()
        found = {key: [list(array.shape), bool(np.isfinite(array).all())] for key, array in program.outputs().items()}
    known = program.told() if program.told is not None else None
    program.close()
    arguments = [[one.name.replace("popart.", ""), one.arguments] for one in contract.calls]
    return {
        "options": of_options(),
        "compiling": first,
        "calls": calls(),
        "outputs": found,
        "told": known,
        "facts": program.facts,
        "marks": marks,
        "arguments": [one for one in arguments if one[0] in ARGUMENTS],
        "looped": program.looped,
        "batches": program.batches,
        "source": program.source,
    }


ARGUMENTS = (
    "AnchorReturnType",
    "DataFlow",
    "SGD",
    "DeviceManager.tryAcquireAvailableDevice",
    "DeviceManager.tryAcquireDeviceById",
    "DeviceManager.createIpuModelDevice",
    "DeviceManager.createOfflineIPUDevice",
    "TensorLocation",
    "PyStepIO",
    "TrainingSession.prepareDevice",
    "InferenceSession.prepareDevice",
    "SGD.insertSpecific",
)
MODELS = []


def marked():
    """The marks on the nodes of the last model, by operator, each once."""
    found = {}
    for node in MODELS[-1].graph.node if MODELS else []:
        own = {one.name: one.i if one.type == 2 else round(one.f, 3) for one in node.attribute if one.name[:2] == "__"}
        if own not in found.setdefault(node.op_type, []):
            found[node.op_type].append(own)
    return found


def remember(checked):
    def remembering(*args):
        MODELS.append(checked(*args))
        return MODELS[-1]

    return remembering


popart_fake.models.checked = remember(popart_fake.models.checked)
OPTIONED = {
    "inference": {},
    "eval": {"mode": "eval"},
    "training": {"mode": "training"},
    "synthetic": {"data": "synthetic", "output_mode": ""},
    "zeros": {"data": "synthetic", "zero_values": True, "output_mode": ""},
    "synthetic training": {"data": "synthetic", "output_mode": "", "mode": "training"},
    "chain": {"name": "hmc", "data": "synthetic", "output_mode": "", "checked": False},
    "timed eval": {"mode": "eval", "output_mode": ""},
    "timed training": {"mode": "training", "output_mode": "", "accumulation": 2, "steps": 3},
    "final": {"output_mode": "final", "steps": 3},
    "sum": {"output_mode": "sum", "steps": 3},
    "replicas": {"replicas": 2, "mode": "training"},
    "accumulated": {"accumulation": 3, "mode": "training"},
    "one share": {"available_memory_proportion": (0.3,)},
    "a share each": {"name": "resnet8", "stages": 2, "available_memory_proportion": (0.3, 0.5)},
    "pipelined": {"name": "resnet8", "stages": 2, "mode": "training"},
    "sequential": {"name": "resnet8", "stages": 2, "schedule": "sequential"},
    "partials": {"partials_type_matmul": "half", "partials_type_conv": "float"},
    "half partial": {"half_partial": True},
    "exchange": {"internal_exchange_target": "balanced"},
    "engine": {"engine_options": {"debug.allowOutOfMemory": "true"}},
    "no prefetch": {"prefetch": False},
    "least latency": {"min_latency": True},
    "rounding on": {"stochastic_rounding": True},
    "rounding off": {"stochastic_rounding": False},
    "stable norm": {"stable_norm": True},
    "dithering": {"conv_dithering": True},
    "offloaded": {"mode": "training", "variable_offloading": True},
    "not offloaded": {"mode": "training", "variable_offloading": False},
    "sharded": {"mode": "training", "replicas": 2, "replicated_tensor_sharding": True},
    "cached": {"executable_cache": "/there"},
    "cycles": {"cycle_count": True},
    "profiled": {"profile": "/report"},
    "device": {"device_id": 3},
    "ipu model": {"ipu_model": True},
    "compiled only": {"compile_only": "ipu21"},
    "compiled only to train": {"compile_only": "ipu2", "mode": "training"},
    "recompute auto": {"mode": "training", "name": "resnet8", "recipe": {"recompute": "auto"}},
    "recompute in a pipeline": {"mode": "training", "name": "resnet8", "stages": 2, "recipe": {"recompute": "auto"}},
    "recompute manual": {
        "mode": "training",
        "name": "resnet8",
        "recipe": {"recompute": "manual", "recompute_layers": "layer2"},
    },
    "mixed precision": {"precision": "fp16m"},
    "scaled": {"mode": "training", "precision": "fp16", "recipe": {"loss_scaling": 64.0}},
    "schedule grouped": {"name": "resnet8", "stages": 2, "schedule": "grouped"},
    "schedule interleaved": {"name": "resnet8", "stages": 2, "schedule": "interleaved"},
    "io tiles": {"num_io_tiles": 32},
    "buffer": {"max_cross_replica_buffer_size": 1024},
    "each by itself": {"mode": "training", "replicas": 2, "all_reduce": False},
    "lars": {"mode": "training", "recipe": {"optimiser": "lars"}},
    "loop": {"mode": "training", "name": "lstm", "variant": "rnn_impl=cell"},
}
SESSION = "popart.InferenceSession"
POPLAR = "popart.poplar_exception"
FAULTS = {
    "out of memory": (f"{SESSION}.prepareDevice", "popart.OutOfMemoryException", "does not fit\nmore"),
    "recoverable": (f"{SESSION}.run", "popart.poplar_recoverable_runtime_error", "link is down"),
    "recoverable in compile": (f"{SESSION}.prepareDevice", "popart.poplar_recoverable_runtime_error", "link is down"),
    "unrecoverable": (f"{SESSION}.run", "popart.poplar_unrecoverable_runtime_error", "parity"),
    "option": (f"{SESSION}.prepareDevice", POPLAR, "invalid_option: 'availableMemoryProportion' 7"),
    "other option": (f"{SESSION}.prepareDevice", "popart.poplibs_exception", "Unrecognised option 'x'"),
    "timeout": (f"{SESSION}.run", POPLAR, "hostSyncTimeout of 300 s elapsed"),
    "unsupported": (SESSION, "popart.popart_exception", "No OpDefinition for ai.onnx.Foo:11"),
    "unknown": (f"{SESSION}.run", "RuntimeError", "something else"),
}


def faulted(name):
    call, exception, text = FAULTS[name]
    fault = {"exception": exception, "message": text}
    if "recoverable" in exception and "un" not in exception.split(".")[1].replace("runtime", ""):
        fault["attributes"] = {"recoveryAction": "PARTITION_RESET"}
    os.environ["FAKE_IPU_FAULTS"] = json.dumps({call: fault})
    try:
        return outcome(lambda: require(case_of("dense"), settings_of("dense", available_memory_proportion=(0.3,))))
    finally:
        del os.environ["FAKE_IPU_FAULTS"]


def loop_of(name, variant, mode):
    case = case_of(name, variant, mode)
    return require(case, settings_of(name, mode=mode))


def option_of(name):
    given = dict(OPTIONED[name])
    if "variant" in given:
        return outcome(lambda: loop_of(given["name"], given["variant"], given["mode"]))
    return outcome(lambda: optioned(**given))

"""Questions of contract_worker.py for one IPU backend only, and access to the state of its fake."""

from __future__ import annotations

import dataclasses
import json

import contract_sdks
import numpy as np

from bench import check
from bench.cases.recipe import Recipe
from bench.graph import draws
from bench.graph.reference import evaluate


def held(backend):
    """The number of devices that are still held. Releases them."""
    if backend == "popart":
        from popart_fake import HELD as devices
    elif backend == "poptorch":
        from poptorch_device import ATTACHED as devices
    else:
        from tensorflow_fake_run import System

        return System.ipus or 0
    count = len(devices)
    devices.clear()
    return count


def marks(bench):
    """PopART's attributes of the nodes in the last model, by operator, without repeats."""
    if bench.name != "popart":
        return {}
    found = {}
    for node in MODELS[-1].graph.node if MODELS else []:
        own = {one.name: one.i if one.type == 2 else round(one.f, 3) for one in node.attribute if one.name[:2] == "__"}
        if own not in found.setdefault(node.op_type, []):
            found[node.op_type].append(own)
    return {"marks": found}


MODELS = []


def remember_models():
    import popart_fake

    checked = popart_fake.models.checked

    def remembering(*args):
        MODELS.append(checked(*args))
        return MODELS[-1]

    popart_fake.models.checked = remembering


def _poptorch_options(graph, case, settings):
    import poptorch

    from bench.backends.poptorch import options

    options.make(poptorch, graph, case, settings, False)


def _popart_options(graph, case, settings):
    import popart

    from bench.backends.popart import options

    options.session_options(popart, graph, case, settings)


def _tensorflow_options(graph, case, settings):
    from bench.backends.tensorflow_ipu import config

    config._config(case, settings)


# Functions that set replicas and devices in the SDK.
CONFIGURE = {"poptorch": _poptorch_options, "popart": _popart_options, "tensorflow_ipu": _tensorflow_options}


# ---- PopTorch ------------------------------------------------------------------------------------------------------


def of_poptorch(bench):
    case, settings = bench.made("dense", replicas=2, batches_per_step=2)
    message = "Invalid batch dimension: In the input torch.Size([5, 4]), the batch dimension (5) must be a multiple"
    yield "rows", bench.seen(case, settings, nothing, fault("PoplarExecutor.compile", "AssertionError", message))
    yield "value", bench.seen(case, settings, nothing, fault("Options.deviceIterations", "AssertionError", "positive"))
    for mode in ("all", "final", "sum"):
        case, settings = bench.made("dense", replicas=2, batches_per_step=2, poplar={"output_mode": mode})
        yield f"copies {mode}", bench.seen(case, settings, shapes)
    case, settings = bench.made("dense", data="synthetic")
    yield "synthetic", bench.seen(case, settings, unwritten)
    case, settings = bench.made("hmc", data="synthetic", batches_per_step=2)
    yield "drawn", bench.seen(case, settings, drawn, timed=True)
    case, settings = bench.made("dense", "training", batches_per_step=2)
    yield "two updates", bench.seen(case, settings, updated)
    streams = {"session_options": {"disableOptimizerStateTensorStreams": "true"}}
    recipe = {"optimiser": "momentum"}
    yield "no state streams", bench.seen(*bench.made("dense", "training", recipe=recipe, poplar=streams), updated)
    wrong = {"FAKE_IPU_WRONG": "iteration"}
    case, settings = bench.made("resnet8", schedule="")
    yield "wrong iteration of a pipeline", bench.whole(case, settings, wrong)


def fault(call, exception, message):
    name = contract_sdks.POPTORCH.prefix + call
    return {"FAKE_IPU_FAULTS": json.dumps({name: {"exception": exception, "message": message}})}


def nothing(program, graph, weights):
    pass


def shapes(program, graph, weights):
    program.run()
    results = program.results
    return [list(one.shape) for one in results], list(graph.output.shape), program.facts


def unwritten(program, graph, weights):
    program.run()
    check.require_finite(program)
    return sorted(program.outputs())


def drawn(program, graph, weights):
    """The outputs of two runs of a program that draws random numbers."""
    found = []
    for _ in range(2):
        program.run()
        found.append(program.outputs()["output"].ravel().tolist())
    return found


def updated(program, graph, weights):
    """The output of the second of two updates in one call, both with the same batch."""
    program.load(weights)
    program.set_learning_rate(0.5)
    program.run()
    return program.outputs()["output"].tolist()


# ---- TensorFlow ----------------------------------------------------------------------------------------------------


def of_tensorflow(bench):
    yield from resident_programs(bench)
    yield from orders(bench)
    for accumulation in (1, 3):
        yield f"statistics {accumulation}", statistics(bench, accumulation)
    yield "interrupted", bench.seen(*bench.made("dense"), interrupted)
    yield "misshapen", bench.seen(*bench.made("dense"), misshapen)
    yield "generators", bench.seen(*bench.made("dense"), generators)
    case, settings = bench.made("dense", poplar={"cycle_count": True})
    yield "no cycles", bench.seen(case, settings, cycles, {"TF_CPP_MIN_LOG_LEVEL": "1"})
    traced = {"FAKE_TF_GRAPH": "1"}
    for workload, mode, way in (
        *(("dense", "training", {}), ("lstm", "training", {})),
        *(("resnet8", "training", {"schedule": "interleaved"}), ("resnet8", "inference", {"schedule": ""})),
    ):
        case, settings = bench.made(workload, mode, **way)
        yield f"traced {workload} {mode} {way}", bench.seen(case, settings, require(case), traced)
    case, settings = bench.made("resnet8", "training", schedule="interleaved")
    wrong = {"FAKE_IPU_WRONG": "accumulation"}
    yield "wrong accumulation of a pipeline", bench.seen(case, settings, require(case), wrong)
    for name, poplar in (("plain", {}), ("share", {"available_memory_proportion": (0.2,)})):
        yield f"lstm {name}", bench.seen(*bench.made("lstm", poplar=poplar), once)
    yield "lstm half", bench.seen(*bench.made("lstm", half_partial=True), once)
    yield "gru half in 16 bits", bench.seen(*bench.made("gru", precision="fp16", half_partial=True), once)
    for name, poplar in PIPELINES.items():
        recipe = {"recompute": "manual", "recompute_layers": "layer1"} if name == "manual" else {}
        case, settings = bench.made("resnet8", "training", schedule="sequential", recipe=recipe, poplar=poplar)
        yield f"pipeline {name}", bench.seen(case, settings, once)
    case, settings = bench.made("dense", poplar={"ipu_model": True, "device_id": 3})
    simulated = {"FAKE_IPU_BUSY": "0,1,2,3", "TF_POPLAR_FLAGS": "--use_ipu_model"}
    yield "simulated", bench.seen(case, settings, once, simulated)
    recipe = {"optimiser": "rmsprop_tf", "weight_decay": 0.01, "loss_scaling": 128.0}
    case, settings = bench.made("dense", "training", "fp16m", recipe=recipe)
    yield "scaled optimiser", scaled(bench, case, settings)


PIPELINES = {
    "shares": {"available_memory_proportion": (0.1, 0.2, 0.3, 0.4), "partials_type_conv": "half"},
    "offloading": {"variable_offloading": False},
    "sharding": {"replicated_tensor_sharding": True},
    "manual": {},
    "final": {"output_mode": "final"},
    "sum": {"output_mode": "sum"},
    "nothing": {},
}


def require(case):
    return lambda program, graph, weights: check.require(program, graph, case, weights)


def once(program, graph, weights):
    program.run()


def resident_programs(bench):
    """Whether the results of synthetic programs are those of the reference."""
    asked = {
        "resident inference": bench.made("dense", replicas=2, batches_per_step=3, data="synthetic"),
        "resident eval": bench.made("resnet8", "eval", batches_per_step=2, data="synthetic"),
        "resident training": bench.made("dense", "training", replicas=2, batches_per_step=2, data="synthetic"),
        "resident pipeline": bench.made("resnet8", schedule="", data="synthetic"),
        "resident trained pipeline": bench.made("resnet8", "training", schedule="sequential", data="synthetic"),
    }
    for name, (case, settings) in asked.items():
        yield name, bench.seen(case, settings, resident)
    yield "resident no inputs", bench.seen(*bench.made("hmc", data="synthetic"), once)
    # Whether the next synthetic batch depends on the last result: it does if its factor is not negligible.
    from bench.backends.tensorflow_ipu import calls

    negligible, calls.NEGLIGIBLE = calls.NEGLIGIBLE, 1.0
    for steps in (1, 2):
        case, settings = bench.made("dense", batches_per_step=steps, data="synthetic")
        yield f"chained {steps}", bench.seen(case, settings, resident)
    calls.NEGLIGIBLE = negligible


def resident(program, graph, weights):
    batch = draws.inputs(graph, "float32", 2)
    program.feed([batch])
    program.run()
    output, expected = program.outputs()["output"], evaluate(graph, weights, batch, "float64")[0]
    return {"close": bool(np.allclose(output, expected, atol=1e-4)), "finite": bool(np.isfinite(output).all())}


def orders(bench):
    """Of each result of six calls, the index of its host batch among five."""
    for name, mode, environ in (
        ("all", "all", {}),
        ("final", "final", {}),
        ("stale", "all", {"FAKE_IPU_WRONG": "stale"}),
    ):
        case, settings = bench.made("dense", replicas=2, batches_per_step=2, poplar={"output_mode": mode})
        yield f"order {name}", bench.seen(case, settings, answered, environ)


def answered(program, graph, weights):
    batches = [draws.inputs(graph, "float32", batch) for batch in range(5)]
    expected = [evaluate(graph, weights, batch, "float64")[0] for batch in batches]
    found = []
    for fed in (batches, batches[3:], iter(batches * 4)):
        program.feed(fed)
        for _ in range(2):
            program.run()
            copies = program.main.copies()["output"]
            found.append(
                [next((i for i, e in enumerate(expected) if np.allclose(one, e, atol=1e-4)), -1) for one in copies]
            )
    return found


def statistics(bench, accumulation):
    """The running statistics after one update with equal batches, here and with stock TensorFlow."""
    case, settings = bench.made("resnet8", "training", recipe={"gradient_accumulation": accumulation})

    def look(program, graph, weights):
        program.feed([draws.inputs(graph, "float32", 2)])
        program.load(weights)
        program.set_learning_rate(0.0)
        program.run()
        return {name: array.ravel()[:4].tolist() for name, array in program.weights().items() if "running" in name}

    return both(bench, case, settings, look)


def scaled(bench, case, settings):
    def look(program, graph, weights):
        program.load(weights)
        program.feed([draws.inputs(graph, "float32", 2)])
        program.set_learning_rate(0.01)
        for _ in range(3):
            program.run()
        return {key: array.ravel()[:6].tolist() for key, array in program.weights().items()}

    return both(bench, case, settings, look)


def both(bench, case, settings, look):
    """The answer of this backend, and that of stock TensorFlow."""
    ours = bench.seen(case, settings, look)
    stock = dataclasses.replace(case, backend="tensorflow", device="cpu")
    settings = dataclasses.replace(settings, recipe=Recipe(**dataclasses.asdict(settings.recipe)))
    return {**ours, "stock": bench.seen(stock, settings, look)["said"]}


def interrupted(program, graph, weights):
    """Feed an iterator that raises after three batches."""

    def broken(batch):
        for _ in range(3):
            yield batch
        raise ValueError("an image is no image")

    program.feed(broken(draws.inputs(graph, "float32", 0)))
    for _ in range(4):
        program.run()


def misshapen(program, graph, weights):
    """Feed an iterator whose third batch has too few rows."""
    batch = draws.inputs(graph, "float32", 0)
    program.feed(iter([batch, batch, {name: array[:-1] for name, array in batch.items()}]))
    for _ in range(2):
        program.run()
    program.run()


def generators(program, graph, weights):
    """How many batches came from a Python generator: for a list, and for an iterator."""
    counts, generate = [], program.main._generate

    def counting():
        for batch in generate():
            counts[-1] += 1
            yield batch

    program.main._generate = counting
    batches = [draws.inputs(graph, "float32", batch) for batch in range(2)]
    for fed in (batches, iter(batches)):
        counts.append(0)
        program.feed(fed)
        program.run()
    return counts


def cycles(program, graph, weights):
    program.run()
    return program.device_facts()


# ---- PopART --------------------------------------------------------------------------------------------------------


def of_popart(bench):
    from bench.backends import _ipu

    yield "under poprun", bench.seen(*bench.made("dense", replicas=2), once, {"FAKE_POPDIST": "2,4,1"})
    _ipu._initialised.clear()


QUESTIONS = {"poptorch": of_poptorch, "popart": of_popart, "tensorflow_ipu": of_tensorflow}

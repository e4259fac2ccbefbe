"""The poptorch backend on the fake SDK, in one process: `python poptorch_matrix.py FILE`, with tests/fakes first.

Writes what came of each case, by its key, as JSON. test_poptorch_contract.py lists the same keys and judges.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import traceback
from dataclasses import replace
from pathlib import Path

sys.path.extend(str(parent) for parent in Path(__file__).resolve().parents[1:3])

import numpy as np

from bench import backends, check, run, workloads
from bench.cases.case import MODES, Case, Settings
from bench.cases.errors import Broken, Refused, Unavailable, Wrong
from bench.cases.poplar import Poplar
from bench.cases.precision import PRECISIONS
from bench.cases.recipe import Recipe
from bench.graph import draws
from bench.graph.reference import evaluate

BATCH = 3
LAYERS = ("dense", "lstm", "rnn", "gru", "lstm_multi", "conv", "grouped_conv", "hmc")
VARIANTS = {"lstm": ("bias=off", "rnn_impl=cell", "loss=nll"), "gru": ("rnn_impl=cell",), "rnn": ("rnn_impl=cell",)}
CNNS = ("resnet8", "mobilenet_v3_small", "efficientnet_b0")
SPLIT = {"resnet8": "layer2.0", "mobilenet_v3_small": "features.4"}


def numbers():
    """(workload, variant, mode, precision, replicas, way of training) of everything whose numbers are checked."""
    for layer in LAYERS:
        for mode in MODES:
            if workloads.unsupported(workloads.load(layer), mode, "fp32"):
                continue
            for precision in ("fp32", "fp16", "fp16m"):
                if not workloads.unsupported(workloads.load(layer), mode, precision):
                    yield layer, "", mode, precision, 1, ""
            yield layer, "", mode, "fp32", 2, ""
        for variant in VARIANTS.get(layer, ()):
            for mode in ("inference", "training"):
                yield layer, variant, mode, "fp32", 1, ""
    for model in CNNS:
        for mode in MODES:
            yield model, "", mode, "fp32", 1, ""
    for precision in ("fp16", "fp16m"):
        yield "resnet8", "", "inference", precision, 1, ""
        yield "resnet8", "", "training", precision, 1, ""
    yield "resnet8", "eight_bit_io=on", "inference", "fp16", 1, ""
    yield "resnet8", "norm_type=group", "training", "fp16m", 1, ""
    for way in ("auto", "manual", "pipeline", "sharded", "smoothed"):
        yield "resnet8", "", "training", "fp32", 1, way
    yield "resnet8", "", "inference", "fp32", 1, "pipeline"
    yield "resnet8", "", "training", "fp32", 2, "pipeline"
    yield "mobilenet_v3_small", "", "inference", "fp32", 1, "pipeline"


def case_of(name, variant="", mode="inference", precision="fp32", replicas=1):
    module = workloads.load(name)
    first = next(iter(workloads.named_sizes(module).values()))
    changed = dict([variant.split("=")]) if variant else {}
    size = workloads.settled(module, {**first, **module.TINY, **changed})
    size = {key: size[key] for key in module.DIMENSIONS}
    return Case(name, "tiny", size, mode, BATCH, precision, replicas, "poptorch", "ipu")


def settings_of(name, mode, way):
    found = Settings(steps=1, max_time_s=0.0, min_rounds=1)
    if way in ("pipeline", "sharded"):
        found = replace(found, pipeline_splits=SPLIT[name])
        found = replace(found, recipe=Recipe(gradient_accumulation=3)) if mode == "training" else found
        return replace(found, poplar=Poplar(pipeline_schedule="sequential" if way == "sharded" else ""))
    recipes = {"auto": {"recompute": "auto"}, "manual": {"recompute": "manual", "recompute_layers": "layer[12]"}}
    recipes["smoothed"] = {"label_smoothing": 0.1}
    return replace(found, recipe=Recipe(**recipes.get(way, {})))


def compiled(case, settings, batches=1):
    graph = workloads.checked(case, settings.recipe)
    precision = PRECISIONS[case.precision]
    weights = draws.weights(graph, precision.weights)
    inputs = [draws.inputs(graph, precision.compute, batch) for batch in range(batches)]
    return backends.load(case.backend).compile(graph, weights, inputs, case, settings), graph, weights


def checked(name, variant, mode, precision, replicas, way):
    """What the check finds of a program, compiled as the driver compiles it to be checked."""
    case = case_of(name, variant, mode, precision, replicas)
    settings = backends.load("poptorch").checkable(case, settings_of(name, mode, way))
    program, graph, weights = compiled(case, settings)
    with contextlib.closing(program):
        found = check.require(program, graph, case, weights)
        return {**found, "compute": program.compute, "held": program.held, "told": program.told()}


def recorded(case, settings):
    """The calls of a program that is compiled, fed, run once and let go."""
    import contract

    contract.reset()
    program, _, weights = compiled(case, settings)
    with contextlib.closing(program):
        if not settings.poplar.compile_only:
            if program.set_learning_rate is not None:
                program.load(weights)
                program.set_learning_rate(0.5)
            program.run()
    return [[call.name, call.arguments] for call in contract.calls]


@contextlib.contextmanager
def environment(**changed):
    before = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def said(call, *args):
    """What a call raises, as `kind: text`, or what it returns where it raises nothing; which IPUs are held then, and
    how many models were made and not destroyed."""
    import contract
    import poptorch_device

    contract.reset()
    try:
        found = call(*args)
    except (Unavailable, Refused, Broken, Wrong) as error:
        found = f"{type(error).__name__}: {error}"
    except Exception as error:  # noqa: BLE001 - the text is judged
        found = f"error {type(error).__name__}: {error}"
    held = sorted(poptorch_device.ATTACHED)
    poptorch_device.ATTACHED.clear()
    called = [call.name.rpartition(".")[2] for call in contract.calls]
    made = called.count("inferenceModel") + called.count("trainingModel")
    return {"said": found, "held": held, "left": made - called.count("destroy")}


def whole(case, settings):
    """A case as a worker runs it."""
    run.run(case, settings, lambda phase: None)
    return "passed"


def outcome(call, *args):
    try:
        return {"outcome": "passed", **call(*args)}
    except Exception:  # noqa: BLE001 - one broken case is to be told, and not to hide the others
        return {"outcome": "error", "text": traceback.format_exc()}


def name(key):
    return "-".join(map(str, key))


def weights_after(engine, recipe, runs=3, load_between=False):
    """The weights that some updates leave, each of its own batch."""
    case = replace(case_of("conv", mode="training"), backend=engine, device="cpu" if engine == "torch" else "ipu")
    program, graph, weights = compiled(case, Settings(data="generated", recipe=recipe), recipe.gradient_accumulation)
    batches = [draws.inputs(graph, "float32", batch) for batch in range(runs * recipe.gradient_accumulation)]
    program.load(weights)
    program.set_learning_rate(1e-2)
    program.feed(batches if engine == "torch" else iter(batches))
    for _ in range(runs):
        program.run()
    if load_between:
        program.load(weights)
        program.feed(iter(batches))
        for _ in range(runs):
            program.run()
    found = program.weights()
    if program.close is not None:
        program.close()
    return {key: array.copy() for key, array in found.items()}


def apart(one, other):
    return max(float(np.linalg.norm(one[key] - other[key]) / np.linalg.norm(other[key])) for key in one)


def answered(case, settings, batches=6):
    """Which host batch each copy of some calls has answered."""
    program, graph, weights = compiled(case, settings)
    fed = [draws.inputs(graph, "float32", batch) for batch in range(batches)]
    expected = [evaluate(graph, weights, batch, "float64")[0] for batch in fed]
    found = []
    with contextlib.closing(program):
        program.feed(iter(fed))
        for _ in range(batches // max(1, settings.batches_per_step * case.replicas)):
            program.run()
            output = program.outputs()["output"]
            found.append(next((i for i, e in enumerate(expected) if np.allclose(output, e, atol=1e-4)), -1))
    return found


if __name__ == "__main__":
    import poptorch_questions

    answer = {name(key): outcome(checked, *key) for key in numbers()}
    answer.update({key: outcome(lambda ask=ask: {"found": ask()}) for key, ask in poptorch_questions.every().items()})
    Path(sys.argv[1]).write_text(json.dumps(answer))

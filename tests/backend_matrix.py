"""One backend's matrix of small cases, as tests/backends/matrices.py runs it; test_backends.py judges.

Quick keys run by default, all with --thorough. The quick ones have each layer in each mode in fp32, with each way of
feeding and tuning; each variant in inference and in training; and each layer in each 16-bit precision in one mode. The
modes alternate, so that each mode meets each precision on half of the layers. A variant changes which primitives are
recorded; feeding meets no code of it, nor of precisions.
"""

from __future__ import annotations

import sys
import traceback

import numpy as np

from bench import backends, check, selection, workloads
from bench.cases.case import MODES, Case, Settings
from bench.cases.errors import Unavailable, Wrong
from bench.cases.precision import PRECISIONS
from bench.graph import Graph
from bench.graph import draws as values
from bench.graph.reference import evaluate

BATCH = 4
SIXTEEN = ("torch", "tensorflow", "openvino")
HALF = ("fp16", "bf16", "fp16m", "bf16m")


def keys(engine, thorough=True):
    """Every case that a backend claims to run: (layer, variant, mode, precision, data, tuning)."""
    for key in dict.fromkeys([*quick(engine), *(every(engine) if thorough else ())]):
        if runs(engine, *key[:1], *key[2:4]):
            yield key


def runs(engine, layer, mode, precision):
    made = backends.load(engine)
    refused = workloads.unsupported(layer, mode, precision) or made.unsupported(precision, mode, "cpu")
    return mode in made.modes and not refused


def quick(engine):
    for number, layer in enumerate(workloads.names("layers")):
        yield from ((layer, "plain", mode, "fp32", "synthetic", "default") for mode in MODES)
        yield layer, "plain", "inference", "fp32", "synthetic", "best"
        yield layer, "plain", "inference", "fp32", "generated", "default"
        for place, variant in enumerate(variants(layer)[1:]):
            modes = ("inference", "eval", "training") if variant.startswith("loss=") else ("inference", "training")
            yield from ((layer, variant, mode, "fp32", "synthetic", "default") for mode in modes)
            if (number + place) % 2:
                yield layer, variant, "inference", "fp32", "synthetic", "best"
        for place, precision in enumerate(HALF if engine in SIXTEEN else ()):
            modes = [mode for mode in ("inference", "training") if runs(engine, layer, mode, precision)]
            if modes:
                mode = modes[(number + place) % len(modes)]
                yield layer, "plain", mode, precision, "synthetic", "default"
        if engine in SIXTEEN:
            yield layer, "plain", "inference", HALF[number % 2], "synthetic", "best"


def every(engine):
    for layer in workloads.names("layers"):
        for variant in variants(layer):
            for mode in MODES:
                yield layer, variant, mode, "fp32", "synthetic", "default"
            yield layer, variant, "inference", "fp32", "synthetic", "best"
            yield layer, variant, "inference", "fp32", "generated", "default"
        if engine in SIXTEEN:
            for mode in ("inference", "training"):
                yield from ((layer, "plain", mode, precision, "synthetic", "default") for precision in HALF)
            yield from ((layer, "plain", "inference", precision, "synthetic", "best") for precision in HALF[:2])


def variants(layer):
    """The ways to run a layer that its dimensions with choices offer, one at a time; the first is plain."""
    found = ["plain"]
    for name, dimension in workloads.load(layer).dimensions.items():
        found += [f"{name}={choice}" for choice in dimension.choices[1:]]
    return found


def case_of(engine, key):
    layer, variant, mode, precision, _, _ = key
    module = workloads.load(layer)
    first = next(iter(workloads.named_sizes(module).values()))
    changed = dict([variant.split("=")]) if "=" in variant else {}
    size = {**first, **module.tiny, **changed}
    dimensions = {name: size[name] for name in module.dimensions}
    return Case(layer, "tiny", dimensions, mode, BATCH, precision, 1, engine, "cpu")


def outcome_of(engine, key):
    print(engine, *key, file=sys.stderr, flush=True)  # The last line says where a process ended.
    case, settings = case_of(engine, key), Settings(data=key[4], tuning=key[5])
    try:
        selection.require(case)
    except Unavailable as error:
        return {"outcome": "skipped", "text": str(error)}
    try:
        return {"outcome": "passed", **tried(case, settings)}
    except Unavailable as error:
        return {"outcome": "unavailable", "text": str(error)}
    except Wrong as error:
        return {"outcome": "wrong", "text": str(error)}
    except Exception:  # noqa: BLE001 - one broken case is to be told, and not to hide the others
        return {"outcome": "error", "text": traceback.format_exc()}


def compiled(graph, case, settings):
    precision = PRECISIONS[case.precision]
    weights = values.weights(graph, precision.weights)
    inputs = [values.inputs(graph, precision.compute)]
    return backends.load(case.backend).compile(graph, weights, inputs, case, settings), weights


def tried(case, settings):
    """What a program was seen to do; Wrong where its numbers are."""
    graph = workloads.checked(case)
    program, weights = compiled(graph, case, settings)
    seen = {
        "compute": program.compute_dtype,
        "held": program.weight_dtype,
        "check": check.require(program, graph, case, weights),
    }
    seen["facts"] = program.facts
    outputs = program.outputs()
    precision = PRECISIONS[case.precision]
    output = outputs["output"]
    seen["fits"] = {kind: bool((values.rounded(output, kind) == output).all()) for kind in ("float16", "bfloat16")}
    seen["has_loss"] = "loss" in outputs
    if case.mode == "training":
        seen["loaded"] = all(np.array_equal(values.rounded(w, "float32"), weights[n]) for n, w in arrays(program))
        program.set_learning_rate(0.0)
        program.run()
        seen["still"] = all(np.array_equal(w, weights[n]) for n, w in arrays(program))
    if settings.data == "generated":
        seen["batches"] = taken(program, graph, weights, precision)
    return {**seen, **zeroed(program, graph, weights, precision)}


def arrays(program):
    return program.weights().items()


def taken(program, graph, weights, precision):
    """Which of three host batches each of six runs has answered; -1: none."""
    batches = [values.inputs(graph, precision.compute, batch) for batch in range(3)]
    expected = [evaluate(graph, weights, batch, "float64")[0] for batch in batches]
    program.feed(batches)
    found = []
    for _ in range(6):
        program.run()
        got = program.outputs()["output"]
        found.append(next((i for i, e in enumerate(expected) if np.allclose(got, e, atol=1e-3)), -1))
    return found


def zeroed(program, graph, weights, precision):
    """How far the output for inputs of zeros is from the reference's."""
    inputs = values.inputs(graph, precision.compute, zero=True)
    program.feed([inputs])
    program.run()
    expected, _ = evaluate(graph, program.weights() if program.training else weights, inputs, "float64")
    return {"zero_error": float(np.abs(program.outputs()["output"] - expected).max())}


def draws(engine):
    """Two runs of a chain that draws its own numbers."""
    case = case_of(engine, ("hmc", "plain", "inference", "fp32", "synthetic", "default"))
    program, _ = compiled(workloads.of_case(case), case, Settings(tuning="default"))
    found = []
    for _ in range(3):
        program.run()
        found.append(program.outputs()["output"].ravel().tolist())
    return found


def normal(net):
    return net.random(STEPS, 1, values="normal")


def unit(net):
    return net.random(STEPS, 1, values="unit")


# What a step draws in CHAINS chains of STEPS steps.
CHAINS, STEPS = 64, 500
DRAWN = {
    "normal": normal,
    "unit": unit,
    "two normals": lambda net: net.mul(normal(net), normal(net)),
    "a normal and a unit": lambda net: net.mul(normal(net), unit(net)),
}


def numbers(engine):
    """The moments of what two runs draw, and the correlation of neighbours: by name of DRAWN."""
    found = {}
    for name, build in DRAWN.items():
        graph = Graph(CHAINS)
        graph.output = build(graph)
        case = Case("hmc", "drawn", {}, "inference", CHAINS, "fp32", 1, engine, "cpu")
        program, _ = compiled(graph, case, Settings(tuning="default"))
        runs = []
        for _ in range(2):
            program.run()
            runs.append(np.array(program.outputs()["output"], "float64")[:, :, 0])
        drawn = np.array(runs)
        found[name] = {"mean": drawn.mean(), "variance": drawn.var()}
        for axis, neighbour in enumerate(("run", "chain", "step")):
            ordered = np.moveaxis(drawn, axis, 0)
            found[name][neighbour] = float(np.corrcoef(ordered[1:].ravel(), ordered[:-1].ravel())[0, 1])
    return found


def models():
    """What the ONNX model of each case is made of; all of them pass the checker."""
    import onnx

    from bench.backends._onnx import model as _onnx_model

    found = {}
    for key in keys("onnxruntime"):
        case = case_of("onnxruntime", key)
        for graph in (workloads.of_case(case), workloads.checked(case)):
            model = _onnx_model.model(graph, values.weights(graph, "float32"))
            onnx.checker.check_model(model, full_check=True)
            facts = {"opsets": [(o.domain, o.version) for o in model.opset_import], "ir": model.ir_version}
            ends = [*model.graph.input, *model.graph.output]
            facts["static"] = all(
                d.WhichOneof("value") == "dim_value" for e in ends for d in e.type.tensor_type.shape.dim
            )
            facts["operators"] = sorted(operators(model.graph))
            found[f"{name(key)}-{graph.fingerprint}"] = facts
    return found


def operators(graph):
    found = set()
    for node in graph.node:
        found.add(node.op_type)
        for attribute in node.attribute:
            if attribute.HasField("g"):
                found |= operators(attribute.g)
    return found


def name(key):
    return "-".join(key)


def answers(engine, thorough):
    cases = {name(key): outcome_of(engine, key) for key in keys(engine, thorough)}
    return {**cases, "draws": draws(engine), "numbers": numbers(engine)}

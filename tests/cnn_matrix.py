"""One backend on small image networks, as tests/backends/matrices.py runs it; test_cnn_backends.py judges.

Quick keys run by default, thorough ones with --thorough. The thorough ones are each model in each mode, each variant
on three models and in training, and each precision on four models. The quick ones are pairs: a family with a mode; a
precision with a mode, with another family each time; a variant with a mode, and variants of different dimensions
together. Mode and family interact (what is trained, and by which gradient), mode and precision too (what is held in
which type); precisions, variants and ways of training meet no code of each other.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import sys
import traceback

import numpy as np

from bench import backends, check, registry, selection, workloads
from bench.cases.case import MODES, Case, Settings
from bench.cases.errors import Unavailable, Wrong
from bench.cases.precision import PRECISIONS
from bench.cases.recipe import Recipe
from bench.graph import Graph, draws
from bench.graph.reference import evaluate
from bench.workloads import network

# Images of 33 pixels in 5 classes; odd, so that paddings and strides have an end to be wrong at.
BATCH = 3
KNOWN = ("resnet", "resnext", "mobilenet", "efficientnet")
# The first model of a new family.
NEW = tuple(
    next(iter(registry.load(network.PACKAGE, name).MODELS))
    for name in registry.names(network.PACKAGE)
    if name not in KNOWN
)
FAMILIES = (
    *("resnet8", "resnet50", "resnext14_32x4d", "resnext50_32x4d"),
    *("mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0", *NEW),
)
VARIED = ("resnet8", "mobilenet_v3_small", "efficientnet_b0")
# The large ones take their time; the small ones of their families have all that is trained in them.
LARGE = ("resnet50", "resnext50_32x4d")
TRAINED = (("mobilenet_v3_small", "same"), ("efficientnet_b0", "wide"))
PREDICTED = ("resnet8", "efficientnet_b0")
SIXTEEN = ("resnet8", "resnext14_32x4d", "mobilenet_v3_small", "efficientnet_b0")
# The blocks that sabotage has wrong.
SABOTAGED = {
    "resnet8": ("conv1", "layer1.0", "layer2.0", "layer3.0", "fc"),
    "mobilenet_v3_small": ("features.0", "features.6", "head"),
}
VARIANTS = {
    "plain": {},
    "group": {"norm_type": "group"},
    "fast": {"norm_type": "group", "enable_fast_groupnorm": "on"},
    "none": {"norm_type": "none"},
    "uint8": {"eight_bit_io": "on"},
    # An even image, where the two paddings differ.
    "same": {"padding_rule": "same", "image_size": 40},
    "pad4": {"input_image_padding": "on"},
    "device": {"normalization_location": "device"},
    "wide": {"group_dim": 16, "expand_ratio": 4},
}
# Variants of dimensions that do not meet: those of norms with those of images.
COMBINED = {
    "group pad4": {**VARIANTS["group"], **VARIANTS["pad4"]},
    "fast device": {**VARIANTS["fast"], **VARIANTS["device"]},
}
QUICK_MODELS = ("resnet8", "resnext14_32x4d", "mobilenet_v3_small", "efficientnet_b0", *NEW)
# Model, variant and mode, on the smallest model that has it; uint8 is run with generated data.
QUICK_VARIANTS = (
    ("mobilenet_v2", "plain", "inference"),
    ("resnext14_32x4d", "group pad4", "inference"),
    ("resnet8", "group pad4", "training"),
    ("resnet8", "fast device", "inference"),
    ("resnet8", "fast device", "training"),
    ("mobilenet_v3_small", "none", "inference"),
    ("resnet8", "none", "training"),
    ("resnet8", "same", "training"),
    ("efficientnet_b0", "wide", "inference"),
)
QUICK_PRECISIONS = (
    ("mobilenet_v3_small", "bf16", "inference"),
    ("resnet8", "bf16", "training"),
    ("resnext14_32x4d", "bf16m", "inference"),
    ("mobilenet_v3_small", "bf16m", "training"),
    ("efficientnet_b0", "fp16", "inference"),
    ("resnet8", "fp16", "training"),
)
# "both" has "smoothed" and "mixup" in it.
QUICK_RECIPES = ("smoothed tensorflow", "cutmix", "both", "accumulated", "recomputed")
RECIPES = {
    "plain": {},
    "smoothed": {"label_smoothing": 0.1},
    "smoothed tensorflow": {"label_smoothing": 0.1, "label_smoothing_definition": "tensorflow"},
    "mixup": {"mixup_alpha": 0.2},
    "cutmix": {"cutmix_lambda_low": 0.2, "cutmix_lambda_high": 0.8},
    "both": {"mixup_alpha": 0.2, "cutmix_lambda": 0.5, "label_smoothing": 0.1},
    "accumulated": {"gradient_accumulation": 3},
    "recomputed": {"recompute": "auto"},
}
PLAIN = ("plain", "synthetic", "default")


def keys(engine, thorough=True):
    """Every case that a backend claims to run: (model, variant, mode, precision, recipe, data, tuning)."""
    made = backends.load(engine)
    for key in dict.fromkeys([*quick(), *(every() if thorough else ())]):
        _, _, mode, precision, *_ = key
        if mode in made.modes and not made.unsupported(precision, mode, "cpu"):
            yield key


def quick():
    for model in QUICK_MODELS:
        yield from ((model, "plain", mode, "fp32", *PLAIN) for mode in MODES)
    yield from ((model, variant, mode, "fp32", *PLAIN) for model, variant, mode in QUICK_VARIANTS)
    yield from ((model, "plain", mode, precision, *PLAIN) for model, precision, mode in QUICK_PRECISIONS)
    yield from (("resnet8", "plain", "training", "fp32", recipe, "synthetic", "default") for recipe in QUICK_RECIPES)
    yield "resnet8", "plain", "inference", "fp32", "plain", "synthetic", "best"
    for mode in ("inference", "training"):
        yield "resnet8", "uint8", mode, "fp32", "plain", "generated", "default"


def every():
    for model in FAMILIES:
        yield from ((model, "plain", mode, "fp32", *PLAIN) for mode in (MODES[:1] if model in LARGE else MODES))
    for model in VARIED:
        for variant in list(VARIANTS)[1:]:
            if set(VARIANTS[variant]) <= {*workloads.load(model).dimensions}:
                yield model, variant, "inference", "fp32", *PLAIN
                if (model, variant) in TRAINED or model == "resnet8":
                    yield model, variant, "training", "fp32", *PLAIN
    for model in SIXTEEN:
        for precision in ("bf16", "bf16m", "fp16"):
            yield model, "plain", "inference", precision, *PLAIN
            if model in ("resnet8", "mobilenet_v3_small") or precision == "bf16m":
                yield model, "plain", "training", precision, *PLAIN
    for recipe in list(RECIPES)[1:]:
        yield "resnet8", "plain", "training", "fp32", recipe, "synthetic", "default"
    yield "efficientnet_b0", "plain", "training", "fp32", "recomputed", "synthetic", "default"


def case_of(engine, key):
    model, variant, mode, precision, *_ = key
    module = workloads.load(model)
    first = next(iter(workloads.named_sizes(module).values()))
    size = {**first, **module.tiny, **{**VARIANTS, **COMBINED}[variant]}
    size = module.canonical({name: size[name] for name in module.dimensions})
    return Case(model, "tiny", size, mode, BATCH, precision, 1, engine, "cpu")


def settings_of(key):
    return Settings(recipe=Recipe(**RECIPES[key[4]]), data=key[5], tuning=key[6])


def compiled(graph, case, settings):
    precision = PRECISIONS[case.precision]
    weights = drawn(graph, case, precision.weights)
    inputs = [draws.inputs(graph, precision.compute)]
    return backends.load(case.backend).compile(graph, weights, inputs, case, settings), weights


DRAWN = {}


def drawn(graph, case, dtype):
    """The weights of a graph, kept for its other modes: drawing the large ones takes longer than to use them."""
    key = (case.workload, dtype, tuple((weight.name, weight.shape) for weight in graph.weights))
    if key not in DRAWN:
        DRAWN.clear()
        DRAWN[key] = draws.weights(graph, dtype)
    return DRAWN[key]


def outcome_of(engine, key):
    print(engine, *key, file=sys.stderr, flush=True)  # The last line says where a process ended.
    case, settings = case_of(engine, key), settings_of(key)
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


def tried(case, settings):
    """What a program was seen to do; Wrong where its numbers are."""
    graph = workloads.checked(case, settings.recipe)
    program, weights = compiled(graph, case, settings)
    seen = {
        "compute": program.compute_dtype,
        "held": program.weight_dtype,
        "check": check.require(program, graph, case, weights),
    }
    if settings.data == "generated":
        seen["batches"] = taken(program, graph, weights)
    return seen


def taken(program, graph, weights):
    """Which of three host batches each of six runs has answered; -1: none."""
    batches = [draws.inputs(graph, "float32", batch) for batch in range(3)]
    expected = [evaluate(graph, weights, batch, "float64")[0] for batch in batches]
    if program.training:
        program.set_learning_rate(0.0)
    program.feed(batches)
    found = []
    for _ in range(6):
        program.run()
        got = program.outputs()["output"]
        found.append(next((i for i, e in enumerate(expected) if np.allclose(got, e, atol=1e-4)), -1))
    return found


def predicted(engine, model, recipe="plain"):
    """How far a training program's `predict` is from the inference graph of the same images: at the weights that three
    updates leave, and when they are put back. `moved`, `left`: how far running statistics are from where they began."""
    key = (model, "plain", "training", "fp32", recipe, "synthetic", "default")
    case, settings = case_of(engine, key), settings_of(key)
    graph = workloads.of_case(case, settings.recipe)
    program, weights = compiled(graph, case, settings)
    program.set_learning_rate(1e-3)
    for _ in range(3):
        program.run()
    batch = draws.inputs(graph, "float32", 7)
    plain = workloads.of_case(dataclasses.replace(case, mode="inference"))
    images = {"input0": batch["input0"]}
    found = []
    for _ in range(2):
        held = program.weights()
        moved = max(apart(held[name], weights[name]) for name in held if "running" in name)
        found.append((moved, apart(program.predict(batch), evaluate(plain, held, images, "float64")[0])))
        program.load(weights)
    (moved, trained), (left, put_back) = found
    return {"moved": moved, "trained": trained, "left": left, "put back": put_back}


def mean_of_many(engine, precision):
    """How far the mean of 40,000 pixels near 6 is off; their sum is above what fp16 holds. None: not supported."""
    net = Graph(1)
    x = net.normalise(net.image(3, 200), (-0.3,) * 3, (0.1,) * 3)
    net.output = net.global_mean(net.add(x, x))
    if backends.load(engine).unsupported(precision, "inference", "cpu"):
        return None
    case = Case("mean", "many", {}, "inference", 1, precision, 1, engine, "cpu")
    inputs = draws.inputs(net, PRECISIONS[precision].compute)
    try:
        program = backends.load(engine).compile(net, {}, [inputs], case, Settings(tuning="default"))
    except Unavailable:
        return None
    return apart(program.outputs()["output"], evaluate(net, {}, inputs, "float64")[0])


def apart(one, other):
    return float(np.linalg.norm(one - other) / np.linalg.norm(other))


def sabotaged(model, spoil):
    """What check.require says of torch's training program: of the right one, and of one that has a block wrong."""
    key = (model, "plain", "training", "fp32", *PLAIN)
    case = case_of("torch", key)
    graph = workloads.checked(case)
    program, weights = compiled(graph, case, settings_of(key))
    found = {"": said(program, graph, case, weights)}
    for block in SABOTAGED[model]:
        found[block] = said(spoil(program, graph, block, weights), graph, case, weights)
        program.load(weights)
    return found


@contextlib.contextmanager
def updates_of_the_reference_kept():
    """Within the context, the update that the reference makes of the same inputs is computed once: it depends on no
    program, and takes most of a check."""
    made, known = check._Update, {}

    def update(graph, case, weights, inputs, group):
        key = (graph.fingerprint, *(array.tobytes() for array in inputs.values()))
        if key not in known:
            known[key] = made(graph, case, weights, inputs, group)
        return copy.copy(known[key])

    check._Update = update
    try:
        yield
    finally:
        check._Update = made


def said(program, graph, case, weights):
    try:
        check.require(program, graph, case, weights)
    except Wrong as error:
        return str(error)
    return ""


def one_norm_off(program, graph, block, weights):
    """Within the program, half of the first scales of a block, or of the head's biases, are 1 % too large."""
    name, factor = off(graph, block)

    def load(given):
        program.load({**given, name: given[name] * factor})

    def told():
        held = program.weights()
        return {**held, name: held[name] / factor}

    return changed(program, load=load, weights=told)


def changed(program, **methods):
    """The program with other methods."""
    copied = copy.copy(program)
    vars(copied).update(methods)
    return copied


def off(graph, block):
    """A weight of a block, and the factors that make half of it 1 % too large. (Were all of a norm's scales too large,
    the next norm of a batch would take it out again.)"""
    weight = next(w for node in graph.nodes if node.block == block for w in node.weights if len(w.shape) == 1)
    factors = np.ones(weight.shape, np.float32)
    factors[: len(factors) // 2] = 1.01
    return weight.name, factors


def one_block_still(program, graph, block, weights):
    """The weights of a block do not move."""
    names = [w.name for node in graph.nodes if node.block == block for w in node.weights]

    def told():
        return {**program.weights(), **{name: np.asarray(weights[name], "float64") for name in names}}

    return changed(program, weights=told)


def name(key):
    return "-".join(key)


def answers(engine, thorough):
    answer = {name(key): outcome_of(engine, key) for key in keys(engine, thorough)}
    if "training" in backends.load(engine).modes:
        answer["predicted"] = {model: predicted(engine, model) for model in PREDICTED}
        answer["predicted"]["mixed"] = predicted(engine, "resnet8", "both")
    if engine == "torch":
        with updates_of_the_reference_kept():
            answer["off"] = {model: sabotaged(model, one_norm_off) for model in SABOTAGED}
            answer["still"] = {model: sabotaged(model, one_block_still) for model in SABOTAGED}
    answer["means"] = {precision: mean_of_many(engine, precision) for precision in ("fp32", "bf16", "fp16")}
    return answer

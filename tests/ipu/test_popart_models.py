"""The ONNX models for PopART have only what PopART 3.4 supports."""

from __future__ import annotations

import json
from pathlib import Path

import backend_matrix
import cnn_matrix
import numpy as np
import pytest

from bench import workloads
from bench.backends._onnx import model as _onnx_model
from bench.backends.popart.operations import OPERATIONS
from bench.cases.case import MODES
from bench.cases.precision import PRECISIONS
from bench.cases.recipe import DEFAULT_RECIPE as NO_RECIPE
from bench.cases.recipe import Recipe
from bench.graph import draws

onnx = pytest.importorskip("onnx")

FACTS = json.loads((Path(__file__).resolve().parents[1] / "fakes" / "facts.json").read_text())["onnx_support"]
# PopART replaces Gemm and Constant before it looks up operators.
SPECIAL = ("Constant", "Gemm")
# The attributes that PopART supports, of operators that have more in ONNX.
ATTRIBUTES = {
    "LSTM": {"hidden_size"},
    "GRU": {"hidden_size", "linear_before_reset"},
    "RNN": {"hidden_size"},
    "Conv": {"kernel_shape", "strides", "pads", "group"},
    "MaxPool": {"kernel_shape", "strides", "pads"},
    "BatchNormalization": {"epsilon", "momentum"},
}
FLOATS = {1: "float32", 10: "float16"}
NETWORKS = ("resnet8", "resnext14_32x4d", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0", *cnn_matrix.NEW)
LAYERS = [(layer, variant) for layer in workloads.names("layers") for variant in backend_matrix.variants(layer)]
VARIED = [(model, variant) for model in cnn_matrix.VARIED for variant in cnn_matrix.VARIANTS if variant != "plain"]
PLAIN = [*LAYERS, *((model, "plain") for model in NETWORKS), *VARIED]
MIXED = ("mixup", "cutmix", "both")


def exists(name, variant, mode, precision="fp32"):
    """Whether the case exists."""
    module, network = workloads.load(name), name not in workloads.names("layers")
    varied = not network or set(cnn_matrix.VARIANTS[variant]) <= {*module.dimensions}
    return varied and not workloads.unsupported(name, mode, precision)


def by_turns(cases, kept):
    """All cases; those of networks that are not in `kept` run with --thorough only."""
    layers = workloads.names("layers")
    return [
        case if case[0] in layers or case in kept else pytest.param(*case, marks=pytest.mark.thorough) for case in cases
    ]


EVERY = [(name, variant, mode) for name, variant in PLAIN for mode in MODES if exists(name, variant, mode)]
# Each change of a network runs in one network and one mode, because the changed nodes depend on neither.
CHANGED = {variant: (model, variant) for model, variant in reversed(VARIED) if exists(model, variant, "inference")}
EVERY = by_turns(EVERY, [(*pair, MODES[index % 3]) for index, pair in enumerate(CHANGED.values())] + [
    (name, "plain", mode) for name in NETWORKS for mode in MODES
])  # fmt: skip
HALVES = [
    (name, mode, precision)
    for name in (*workloads.names("layers"), *NETWORKS)
    for mode in MODES
    for precision in ("fp16", "fp16m")
    if exists(name, "plain", mode, precision)
]
# Each network runs in both 16-bit precisions, in two modes of three.
TURNS = [
    (name, MODES[(index + turn) % 3], precision)
    for index, name in enumerate(NETWORKS)
    for turn, precision in enumerate(("fp16", "fp16m"))
]
# Workloads whose types are checked number by number.
TYPED = ("dense", "lstm", "conv", "resnet8", "efficientnet_b0")
HALVES = by_turns(HALVES, TURNS)


def model_of(name, variant, mode, precision="fp32", recipe=NO_RECIPE, timed=False):
    """The model of a case, the weights of each initializer, its graph and its weights."""
    matrix = backend_matrix if name in workloads.names("layers") else cnn_matrix
    case = matrix.case_of("popart", (name, variant, mode, precision, "", ""))
    graph = workloads.of_case(case, recipe) if timed else workloads.checked(case, recipe)
    weights = draws.weights(graph, PRECISIONS[precision].weights)
    return (*_onnx_model.lowered(graph, weights, precision, own=OPERATIONS), graph, weights)


def nodes(graph):
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from nodes(attribute.g)


def require_taken(model):
    onnx.checker.check_model(model)
    assert model.ir_version <= 6
    domains = {node.domain for node in nodes(model.graph)}
    opsets = {one.domain: one.version for one in model.opset_import}
    assert opsets == {"": FACTS["max_opset"], **{domain: 1 for domain in domains - {""}}}
    assert domains <= {"", "ai.graphcore"}
    for one in [*model.graph.input, *model.graph.output]:
        assert one.type.tensor_type.elem_type != onnx.TensorProto.INT64, one.name
        assert all(size.HasField("dim_value") for size in one.type.tensor_type.shape.dim), one.name
    for node in nodes(model.graph):
        if node.domain:
            assert node.op_type.lower() in FACTS["graphcore_builder_operators"]
            continue
        since = onnx.defs.get_schema(node.op_type, 11).since_version
        assert node.op_type in SPECIAL or since in FACTS["operators"].get(node.op_type, ()), node.op_type
        given = {one.name for one in node.attribute if not one.name.startswith("__")}
        assert given <= ATTRIBUTES.get(node.op_type, given), node.op_type
    # No operator has inputs of two types, and all shapes are known.
    onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)


@pytest.mark.parametrize("name, variant, mode", EVERY)
def test_popart_takes_the_model_of_every_layer_and_network(name, variant, mode):
    require_taken(model_of(name, variant, mode)[0])


@pytest.mark.parametrize("name, mode, precision", HALVES)
def test_popart_takes_the_model_in_16_bits_whose_numbers_are_16_bits_but_the_loss(name, mode, precision):
    model, _, graph, _ = model_of(name, "plain", mode, precision)

    require_taken(model)
    if name in TYPED:
        require_16_bits(model, graph, mode)


@pytest.mark.parametrize("recipe", MIXED)
def test_popart_takes_the_model_that_is_trained_on_blended_images(recipe):
    made = model_of("resnet8", "plain", "training", recipe=Recipe(**cnn_matrix.RECIPES[recipe]))

    require_taken(made[0])


@pytest.mark.parametrize("name", ["efficientnet_b0", "mobilenet_v3_small"])
def test_popart_takes_the_model_that_drops_out(name):
    made = model_of(name, "plain", "training", timed=True)

    assert "Dropout" in {node.op_type for node in made[0].graph.node}
    require_taken(made[0])


def require_16_bits(model, graph, mode):
    """All floating-point numbers are FLOAT16, except those of the loss and its labels."""
    tensors = [*model.graph.input, *model.graph.output]
    kinds = {one.name: one.type.tensor_type.elem_type for one in tensors}
    loss = graph.nodes[graph.loss.node].inputs[1:] if mode != "inference" else ()
    exact = {"loss", *(f"input{tensor.node}" for tensor in loss)}
    for tensor, kind in kinds.items():
        if kind in FLOATS:
            assert FLOATS[kind] == ("float32" if tensor in exact else "float16"), tensor
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    inner = {one.name: one.type.tensor_type.elem_type for one in inferred.graph.value_info}
    # The only cast to fp32 is the start of the loss.
    wide = {name for name, kind in inner.items() if kind == 1}
    begun = [node.output[0] for node in model.graph.node if node.op_type == "Cast" and node.output[0] in wide]
    made_by = {name: index for index, node in enumerate(model.graph.node) for name in node.output}
    constants = {node.output[0] for node in model.graph.node if node.op_type == "Constant"}
    assert len(begun) == (mode != "inference")
    assert all(made_by[name] >= made_by[begun[0]] for name in wide - constants)


@pytest.mark.parametrize(
    "name, precision", [("lstm", "fp32"), ("resnet8", "fp32"), ("resnet8", "fp16m"), ("gru", "fp16")]
)
def test_what_popart_trains_is_weights_and_nothing_else(name, precision):
    model, held, graph, weights = model_of(name, "plain", "training", precision)
    arrays = {one.name: onnx.numpy_helper.to_array(one) for one in model.graph.initializer}

    assert set(arrays) == set(held)
    assert sorted(weight.name for parts in held.values() for weight, _ in parts) == sorted(
        w.name for w in graph.weights
    )
    found = {}
    for one, parts in held.items():
        found.update(_onnx_model.taken_apart(parts, arrays[one]))
        np.testing.assert_array_equal(_onnx_model.initializer(parts, weights, arrays[one]), arrays[one])
    for weight in graph.weights:
        expected = weights[weight.name]
        exact = weight.trained or precision != "fp16m"
        np.testing.assert_allclose(found[weight.name], expected, rtol=0 if exact else 1e-3)


def test_a_norm_that_is_trained_has_the_results_that_popart_looks_for():
    model = model_of("resnet8", "plain", "training")[0]
    norms = [node for node in model.graph.node if node.op_type == "BatchNormalization"]

    assert norms
    assert {len(node.output) for node in norms} == {5}
    # The suite's momentum is the share of the new statistics, and ONNX's that of the old ones.
    assert {one.f for node in norms for one in node.attribute if one.name == "momentum"} == {np.float32(0.9)}


@pytest.mark.parametrize("variant", ["group", "fast"])
def test_a_group_norm_is_popart_s_own_operator_with_its_mean_and_variance(variant):
    model, _, graph, _ = model_of("resnet8", variant, "training")
    norms = [node for node in model.graph.node if node.domain == "ai.graphcore"]
    groups = [node.attrs["groups"] for node in graph.nodes if node.op == "group_norm"]

    assert {node.op_type for node in norms} == {"GroupNormalization"}
    # Its input, scale and shift; its result, and what its gradient reads.
    assert {(len(node.input), len(node.output)) for node in norms} == {(3, 3)}
    assert [one.i for node in norms for one in node.attribute if one.name == "num_groups"] == groups != []
    assert {one.f for node in norms for one in node.attribute if one.name == "epsilon"} == {np.float32(1e-5)}
    assert not {"InstanceNormalization", "Transpose"} & {node.op_type for node in model.graph.node}


def test_the_file_that_onnx_runtime_runs_is_the_file_that_popart_runs():
    from bench.backends import onnxruntime, popart

    for name, mode in (("lstm", "inference"), ("resnet8", "eval"), ("dense", "eval")):
        model, _, graph, weights = model_of(name, "plain", mode)
        assert onnxruntime.exported(graph, weights) == popart.exported(graph, weights) == model.SerializeToString()

"""The models of the fake popart: what PopART 3.4 refuses of them, and what they compute."""

from __future__ import annotations

import functools

import contract
import numpy as np

SUPPORT = contract.facts()["onnx_support"]
# The domain of PopART's own operators.
OWN = "ai.graphcore"
# PopART rewrites Gemm before it looks for an operator, and makes a constant tensor of a Constant.
SPECIAL = ("Constant", "Gemm")
# Attributes of recurrent layers that PopART refuses, or knows one value of.
REFUSED = ("activation_alpha", "activation_beta", "clip", "input_forget", "direction", "activations")


def array(proto):
    from onnx import numpy_helper

    return numpy_helper.to_array(proto).copy()


def nodes(graph):
    """Every node of a graph, and of the graphs in it."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from nodes(attribute.g)


def checked(model, training, options, loss, refuse):
    """The model in `model`, bytes; `refuse(text)` raises for what PopART does not take."""
    import onnx

    proto = onnx.load_model_from_string(model)
    opsets = {one.domain: one.version for one in proto.opset_import}
    used = {one.domain for one in nodes(proto.graph)} | {""}
    if proto.ir_version > 6 or opsets != {domain: {"": 11, OWN: 1}.get(domain) for domain in used}:
        refuse(f"opsets {proto.opset_import}, IR version {proto.ir_version}")
    for node in nodes(proto.graph):
        _check_node(node, training, refuse)
    for one in proto.graph.input:
        kind = one.type.tensor_type
        if kind.elem_type == onnx.TensorProto.INT64:
            refuse(f"input {one.name} is INT64")
        if any(not size.HasField("dim_value") for size in kind.shape.dim):
            refuse(f"Input tensor '{one.name}' must be specified in InputShapeInfo")
    if training or not options.constantWeights:
        _check_variables(proto, refuse)
    if training and types(proto).get(loss, (None,))[0] != ():
        refuse(f"the loss {loss} is no scalar tensor of the model")
    return proto


def _check_node(node, training, refuse):
    from onnx import defs

    name = node.op_type
    if node.domain == OWN:
        _check_own(node, refuse)
        return
    version = defs.get_schema(name, 11).since_version
    if name not in SPECIAL and version not in SUPPORT["operators"].get(name, ()):
        refuse(f"No OpDefinition found for ai.onnx.{name}:{version}")
    attributes = [one.name for one in node.attribute]
    if name in ("LSTM", "GRU", "RNN") and set(attributes) & set(REFUSED):
        refuse(f"{name}: unsupported attribute among {attributes}")
    if name == "BatchNormalization" and training and len(node.output) != 5:
        refuse(f"the Ir is in training mode, yet this batch-normalization Op has only {len(node.output)} output(s)")
    if training and name in ("Scan", "Loop"):
        refuse(f"Failed to get a gradient op for {name}")


def _check_own(node, refuse):
    """Attributes and results of an operator of PopART's own (`groupnorm.cpp`)."""
    if node.op_type.lower() not in SUPPORT["graphcore_builder_operators"]:
        refuse(f"No OpDefinition found for {OWN}.{node.op_type}:1")
    attributes = {one.name for one in node.attribute if not one.name.startswith("__")}
    if node.op_type == "GroupNormalization" and not (
        {"num_groups"} <= attributes <= {"num_groups", "epsilon"} and (len(node.input), len(node.output)) == (3, 3)
    ):
        refuse(f"GroupNormalization has attributes {attributes}, {len(node.input)} inputs, {len(node.output)} outputs")


def _check_variables(proto, refuse):
    for one in proto.graph.initializer:
        if array(one).dtype.kind != "f":
            refuse(f"initializer {one.name} of integers becomes a variable, and has no data for its consumer")


def types(proto):
    """(shape, numpy's name of the type) of inputs and outputs."""
    names = {1: "float32", 10: "float16", 6: "int32", 2: "uint8"}
    found = {}
    for one in [*proto.graph.input, *proto.graph.output]:
        kind = one.type.tensor_type
        found[one.name] = tuple(size.dim_value for size in kind.shape.dim), names[kind.elem_type]
    return found


def inputs(proto):
    return [one.name for one in proto.graph.input]


def placed(proto, options, refuse):
    """How many IPUs the nodes are placed on."""
    marks = [
        {one.name: one.i for one in node.attribute if one.name.startswith("__")}
        for node in proto.graph.node
        if node.op_type != "Constant"
    ]
    ipus = [mark.get("__ipu_number") for mark in marks]
    if options.virtualGraphMode.name == "Off":
        if any(ipu is not None for ipu in ipus):
            refuse("virtualGraphMode is Off, but a node has a virtual graph id")
        return 1
    if any(ipu is None for ipu in ipus):
        refuse("virtualGraphMode is Manual, but a node has no virtual graph id")
    if options.enablePipelining and any("__pipeline_stage" not in mark for mark in marks):
        refuse("enablePipelining, but a node has no pipeline stage")
    return max(ipus) + 1


@functools.lru_cache(maxsize=4)
def _runtime(model):
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def computed(proto, weights, batch, scale, options):
    """The outputs by name; in training, where `scale` is the factor on the loss, also the gradients, and the running
    statistics as they move."""
    names = [one.name for one in proto.graph.output]
    if not scale and all(value.dtype != np.float16 for value in weights.values()) and _plain(proto):
        for one in proto.graph.initializer:
            one.raw_data = np.ascontiguousarray(weights[one.name]).tobytes() if one.name in weights else one.raw_data
        return dict(zip(names, _runtime(proto.SerializeToString()).run(names, batch))), {}, {}
    return _by_torch(proto, weights, batch, scale, names, options.groupNormStridedChannelGrouping)


def _plain(proto):
    """Whether ONNX Runtime can run a model."""
    if any(node.domain for node in nodes(proto.graph)):
        return False
    kinds = {one.type.tensor_type.elem_type for one in [*proto.graph.input, *proto.graph.output]}
    return 10 not in kinds


def _by_torch(proto, weights, batch, scale, names, strided):
    import onnx_torch
    import torch

    torch.set_num_threads(1)
    training = bool(scale)
    leaves = {name: torch.from_numpy(value.copy()) for name, value in weights.items()}
    norms = [node for node in proto.graph.node if node.op_type == "BatchNormalization"]
    running = {name for node in norms for name in node.input[3:5]}
    if training:
        for name, leaf in leaves.items():
            leaf.requires_grad_(name not in running)
    given = {**leaves, **{name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in batch.items()}}
    with torch.set_grad_enabled(training):
        values = onnx_torch.run(proto.graph, given, training, strided)
    found = {name: values[name].detach().numpy() for name in names}
    if not training:
        return found, {}, {}
    (values["loss"] * scale).backward()
    grads = {name: leaf.grad.numpy() for name, leaf in leaves.items() if leaf.grad is not None}
    moved = {node.input[3 + i]: values[node.output[1 + i]].detach().numpy() for node in norms for i in (0, 1)}
    return found, grads, moved

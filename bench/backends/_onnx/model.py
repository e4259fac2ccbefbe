"""A graph as an ONNX model: opset 11, IR 6, static shapes. ONNX Runtime and OpenVINO run the same file, and PopART too
but for operators of its own.

PopART 3.4 reads ONNX up to opset 11 and IR 6. There Squeeze takes its axes as an attribute, and Softmax flattens.
PopART has no 64-bit integers, so labels are INT32. Sequences are (time, batch, features), as in ONNX's recurrent
operators; `native` and `canonical` transpose the arrays.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, Mapping, Sequence, Tuple

from bench.backends._onnx.lowering import Lowering, regate, unregate
from bench.backends._onnx.primitives import OPS, native_shape
from bench.cases.precision import PRECISIONS
from bench.graph import Graph, Weight
from bench.program import Arrays

__all__ = ["Held", "canonical", "initializer", "lowered", "model", "native", "native_shape", "results", "taken_apart"]

# The weights in an initializer, in order, with the kind of their gates.
Held = Sequence[Tuple[Weight, str]]


def native(array: Any, dtype: Any) -> Any:
    """An input array for the model: sequences time-major, integers int32, bytes unchanged."""
    import numpy as np

    if array.dtype.kind == "u":
        return np.ascontiguousarray(array)
    if array.dtype.kind == "i":
        return np.ascontiguousarray(array.swapaxes(0, 1) if array.ndim > 1 else array, np.int32)
    array = array.swapaxes(0, 1) if array.ndim == 3 else array
    return np.ascontiguousarray(array, dtype)


def canonical(output: Any) -> Any:
    """An output in float64 and in the layout of the graph."""
    import numpy as np

    output = np.asarray(output, np.float64)
    return output.swapaxes(0, 1) if output.ndim == 3 else output


def results(named: Mapping[str, Any]) -> Arrays:
    """The results of a session, in float64 and in the graph's shapes."""
    import numpy as np

    return {k: canonical(v) if k == "output" else np.asarray(v, np.float64).reshape(()) for k, v in named.items()}


def initializer(held: Held, weights: Mapping[str, Any], like: Any) -> Any:
    """The array of an initializer, with the shape and type of `like`, from `weights`."""
    import numpy as np

    parts = [regate(weights[weight.name], kind) if kind else weights[weight.name] for weight, kind in held]
    return np.concatenate([np.ravel(part) for part in parts]).reshape(like.shape).astype(like.dtype)


def taken_apart(held: Held, array: Any) -> Arrays:
    """The weights in an initializer by name, in float64 and in the graph's layouts."""
    import numpy as np

    weights, rest = {}, np.ravel(np.asarray(array, np.float64))
    for weight, kind in held:
        values, rest = np.split(rest, [int(np.prod(weight.shape))])
        values = values.reshape(weight.shape)
        weights[weight.name] = unregate(values, kind) if kind else values
    return weights


def model(graph: Graph, weights: Mapping[str, Any]) -> Any:
    """Return the ModelProto of `graph` with `weights`, in fp32."""
    return lowered(graph, weights)[0]


def lowered(
    graph: Graph,
    weights: Mapping[str, Any],
    precision: str = "fp32",
    mark: Callable[[int], Dict[str, Any]] = lambda index: {},
    own: Mapping[str, Callable[..., Any]] = {},
) -> Tuple[Any, Dict[str, Held]]:
    """Return the ModelProto of `graph` with `weights`, and the weights in each initializer by its name.

    precision   16-bit arithmetic is FLOAT16, except for the loss and its targets; weights of another type are cast
    mark        the attributes of the ONNX nodes of a node, by its index in the graph
    own         lowerings to operators of another domain, whose version is 1, by primitive
    """
    import onnx
    from onnx import TensorProto, helper

    types = PRECISIONS[precision]
    variable = graph.training or types.weights != types.compute
    lowering = Lowering({**OPS, **own}, weights, types.compute, types.weights, graph.loss.node, variable, mark)
    values = lowering.graph(graph.nodes)
    kinds = {"classes": TensorProto.INT32, "uint8": TensorProto.UINT8}
    targets = [tensor.node for tensor in graph.nodes[graph.loss.node].inputs[1:]] if graph.loss.node >= 0 else []
    inputs = []
    for name, node in graph.inputs.items():
        number = TensorProto.FLOAT if any(graph.nodes[index] is node for index in targets) else lowering.type
        kind = kinds.get(node.attrs["values"], number)
        inputs.append(helper.make_tensor_value_info(name, kind, native_shape(node.shape, kind == TensorProto.INT32)))
    ends = {"output": (graph.output, lowering.type)}
    if graph.loss.node >= 0:
        ends["loss"] = (graph.loss, TensorProto.FLOAT)
    outputs = []
    for name, (end, kind) in ends.items():
        lowering.nodes.append(helper.make_node("Identity", [values[end.node][end.output]], [name]))
        lowering.marked(lowering.nodes[-1:], end.node)
        outputs.append(helper.make_tensor_value_info(name, kind, native_shape(end.shape, False)))
    body = helper.make_graph(lowering.nodes, "layerbench", inputs, outputs, initializer=lowering.initializers)
    domains = {node.domain for node in lowering.nodes} - {""}
    opsets = [helper.make_opsetid("", 11), *(helper.make_opsetid(domain, 1) for domain in sorted(domains))]
    proto = helper.make_model(body, opset_imports=opsets, ir_version=6)
    onnx.checker.check_model(proto)
    return proto, lowering.parameters

"""Graph to an ONNX model: opset 11, IR 6, static shapes. ONNX Runtime and OpenVINO run the same file.

PopART 3.4 reads ONNX up to opset 11 and IR 6, so that is where the model stays: Squeeze takes its axes
as an attribute, and Softmax flattens. Sequences are (time, batch, features), as ONNX's recurrent
operators have them; `native` and `canonical` turn the arrays.
"""

from __future__ import annotations

from typing import Any, Mapping

from bench.backends._onnx_ops import Lowering, native_shape
from bench.graph import Graph
from bench.step import Arrays


def native(array: Any, dtype: Any) -> Any:
    """A fed array as the model wants it: sequences time-major, integers int64, bytes as they are."""
    import numpy as np

    if array.dtype.kind == "u":
        return np.ascontiguousarray(array)
    if array.dtype.kind == "i":
        return np.ascontiguousarray(array.swapaxes(0, 1) if array.ndim > 1 else array)
    array = array.swapaxes(0, 1) if array.ndim == 3 else array
    return np.ascontiguousarray(array, dtype)


def canonical(output: Any) -> Any:
    import numpy as np

    output = np.asarray(output, np.float64)
    return output.swapaxes(0, 1) if output.ndim == 3 else output


def results(named: Mapping[str, Any]) -> Arrays:
    """What a session returned, in the graph's shapes and float64."""
    import numpy as np

    return {k: canonical(v) if k == "output" else np.asarray(v, np.float64).reshape(()) for k, v in named.items()}


def model(graph: Graph, weights: Mapping[str, Any]) -> Any:
    """Return the ModelProto of `graph`, fp32, with `weights` inside."""
    import onnx
    from onnx import TensorProto, helper

    kinds = {"classes": TensorProto.INT64, "uint8": TensorProto.UINT8}
    lowering = Lowering(weights)
    values = lowering.graph(graph.nodes)
    inputs = []
    for name, node in graph.inputs.items():
        kind = kinds.get(node.attrs["values"], TensorProto.FLOAT)
        shape = native_shape(node.shape, kind == TensorProto.INT64)
        inputs.append(helper.make_tensor_value_info(name, kind, shape))
    ends = {"output": graph.output}
    if graph.loss.node >= 0:
        ends["loss"] = graph.loss
    outputs = []
    for name, end in ends.items():
        lowering.nodes.append(helper.make_node("Identity", [values[end.node][end.output]], [name]))
        outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, native_shape(end.shape, False)))
    body = helper.make_graph(lowering.nodes, "layerbench", inputs, outputs, initializer=lowering.initializers)
    made = helper.make_model(body, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)
    onnx.checker.check_model(made)
    return made

"""Graph to an ONNX model: opset 11, IR 6, static shapes. ONNX Runtime and OpenVINO run the same file.

PopART 3.4 reads ONNX up to opset 11 and IR 6, so that is where the model stays: Squeeze takes its axes
as an attribute, and Softmax flattens. Sequences are (time, batch, features), as ONNX's recurrent
operators have them; `native` and `canonical` turn the arrays.
"""

from __future__ import annotations

from typing import Any, Dict, List, Mapping

from bench.backends._onnx_ops import OPS, native_shape
from bench.graph import Graph, Node
from bench.step import Arrays


def native(array: Any, dtype: Any) -> Any:
    """A fed array as the model wants it: sequences time-major, integers int64."""
    import numpy as np

    if array.dtype.kind == "i":
        return np.ascontiguousarray(array.swapaxes(0, 1))
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

    lowering = Lowering(weights)
    values = lowering.graph(graph.nodes)
    inputs = []
    for name, node in graph.inputs.items():
        kind = TensorProto.INT64 if node.attrs["values"] == "classes" else TensorProto.FLOAT
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


class Lowering:
    """Collects the nodes and initializers of one model; a scan's body has nodes of its own."""

    def __init__(self, weights: Mapping[str, Any]) -> None:
        self.weights = weights
        self.nodes: List[Any] = []
        self.initializers: List[Any] = []
        self.count = 0

    def graph(self, nodes: List[Node], sources: Mapping[int, str] = {}) -> Dict[int, List[str]]:
        """Lower nodes in order; return the names of the results of each."""
        values: Dict[int, List[str]] = {}
        for index, node in enumerate(nodes):
            args = [values[tensor.node][tensor.output] for tensor in node.inputs]
            if index in sources:
                values[index] = [sources[index]]
            elif node.op == "input":
                values[index] = [f"input{index}"]
            else:
                made = OPS[node.op](self, node, *args)
                values[index] = made if isinstance(made, list) else [made]
        return values

    def op(self, kind: str, *inputs: str, outputs: int = 1, **attrs: Any) -> Any:
        """Add one node; return the name of its result, or the list of the names of its `outputs`."""
        from onnx import helper

        self.count += 1
        names = [f"{kind.lower()}{self.count}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, **attrs))
        return names[0] if outputs == 1 else names

    def constant(self, array: Any) -> str:
        from onnx import numpy_helper

        self.count += 1
        name = f"constant{self.count}"
        self.initializers.append(numpy_helper.from_array(array, name))
        return name

    def scalar(self, value: float) -> str:
        import numpy as np

        return self.constant(np.asarray(value, np.float32))

    def weight(self, node: Node, name: str) -> Any:
        """The weight of that name, or None where the layer has none."""
        for weight in node.weights:
            if weight.name.endswith(f".{name}"):
                return self.weights[weight.name]
        return None

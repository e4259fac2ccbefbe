"""Collects the nodes and initializers of an ONNX model."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Mapping, Sequence, Tuple

from bench.graph import Node, Weight, naming

# The gates of a graph have torch's order, i f g o and r z n. ONNX has i o f c and z r h.
GATE_ORDER = {"rnn": (0,), "lstm": (0, 3, 1, 2), "gru": (1, 0, 2)}


def regate(array: Any, kind: str) -> Any:
    """A recurrent weight, (gates * hidden, ...), with its gates in ONNX's order."""
    import numpy as np

    order = GATE_ORDER[kind]
    return np.concatenate([np.split(array, len(order))[gate] for gate in order])


def unregate(array: Any, kind: str) -> Any:
    """The inverse of `regate`: the gates in torch's order again."""
    import numpy as np

    order = GATE_ORDER[kind]
    return np.concatenate([np.split(array, len(order))[order.index(gate)] for gate in range(len(order))])


class Lowering:
    """Collects the nodes and initializers of one model.

    compute, held   the types of the arithmetic and of the weights; the node `loss` is computed in fp32
    variable   constants are Constant nodes, not initializers: PopART updates every initializer
    mark       the attributes of the ONNX nodes of a node, by its index in the graph
    parameters the weights in each initializer, in order, with the kind of their gates
    """

    def __init__(
        self,
        ops: Mapping[str, Callable[..., Any]],
        weights: Mapping[str, Any],
        compute: str = "float32",
        held: str = "float32",
        loss: int = -1,
        variable: bool = False,
        mark: Callable[[int], Dict[str, Any]] = lambda index: {},
    ) -> None:
        self.ops, self.weights = ops, weights
        self.compute, self.held, self.loss, self.variable, self.mark = compute, held, loss, variable, mark
        self.nodes: List[Any] = []
        self.initializers: List[Any] = []
        self.parameters: Dict[str, Sequence[Tuple[Weight, str]]] = {}
        self.count = 0
        # The name of the graph's node that is lowered: the names of its ONNX nodes and tensors start with it.
        self.scope = ""
        # The indices of the inputs of type uint8.
        self.bytes: List[int] = []

    def graph(self, nodes: List[Node], sources: Mapping[int, str] = {}) -> Dict[int, List[str]]:
        """Lower nodes in order; return the names of the outputs of each.

        sources   the names of the states and slices of a scan's body, whose nodes are not marked
        """
        values: Dict[int, List[str]] = {}
        for index, node in enumerate(nodes):
            args = [values[tensor.node][tensor.output] for tensor in node.inputs]
            if index in sources:
                values[index] = [sources[index]]
            elif node.op == "input":
                values[index] = [f"input{index}"]
                if node.attrs["values"] == "uint8":
                    self.bytes.append(index)
            else:
                if not sources:
                    self.scope = naming.scope(index, node) + "."
                first, names = len(self.nodes), self._lower(node, args, not sources and index == self.loss)
                values[index] = names if isinstance(names, list) else [names]
                if not sources:
                    self.marked(self.nodes[first:], index)
        return values

    def _lower(self, node: Node, args: List[str], loss: bool) -> Any:
        if not loss or self.compute == "float32":
            return self.ops[node.op](self, node, *args)
        compute, self.compute = self.compute, "float32"
        names = self.ops[node.op](self, node, self.op("Cast", args[0], to=self.type), *args[1:])
        self.compute = compute
        return names

    def marked(self, nodes: Sequence[Any], index: int) -> None:
        """Add the attributes of `mark` to the ONNX nodes of the graph's node `index`."""
        from onnx import helper

        for node in nodes:
            if node.op_type != "Constant":
                node.attribute.extend(helper.make_attribute(*pair) for pair in self.mark(index).items())

    @property
    def type(self) -> int:
        """The type of the arithmetic as ONNX's enum: FLOAT or FLOAT16."""
        return {"float32": 1, "float16": 10}[self.compute]

    def op(self, kind: str, *inputs: str, outputs: int = 1, **attrs: Any) -> Any:
        """Add one node; return the name of its output, or a list of names if it has several."""
        from onnx import helper

        self.count += 1
        names = [f"{self.scope}{kind.lower()}{self.count}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, name=f"{self.scope}{kind}{self.count}", **attrs))
        return names[0] if outputs == 1 else names

    def constant(self, array: Any) -> str:
        """Add a constant: real numbers in the type of the arithmetic, integers unchanged."""
        from onnx import helper, numpy_helper

        array = array.astype(self.compute) if array.dtype.kind == "f" else array
        if not self.variable:
            return self._initializer(array)
        self.count += 1
        name = f"constant{self.count}"
        self.nodes.append(helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array, name)))
        return name

    def parameter(self, array: Any, *held: Tuple[Weight, str]) -> str:
        """Add an initializer for the weights `held`; return a name of it in the type of the arithmetic.

        Trained weights of another type are cast. Running statistics are in the type of the arithmetic themselves,
        because the operator updates them in place.
        """
        dtype = self.held if all(weight.trained for weight, _ in held) else self.compute
        name = self._initializer(array.astype(dtype))
        self.parameters[name] = held
        return str(self.op("Cast", name, to=self.type)) if dtype != self.compute else name

    def _initializer(self, array: Any) -> str:
        from onnx import numpy_helper

        self.count += 1
        name = f"constant{self.count}"
        self.initializers.append(numpy_helper.from_array(array, name))
        return name

    def scalar(self, value: float) -> str:
        import numpy as np

        return self.constant(np.asarray(value, np.float32))

    def named(self, node: Node, name: str, *shape: int) -> List[str]:
        """A list with the weight of that name; empty if the layer does not have it."""
        weights = [weight for weight in node.weights if weight.name.endswith(f".{name}")]
        return [self.parameter(self.weights[w.name].reshape(shape or w.shape), (w, "")) for w in weights]

    def gates(self, node: Node, kind: str, *names: str) -> str:
        """The weights of these names, concatenated, with their gates in ONNX's order."""
        import numpy as np

        held = [(w, kind) for name in names for w in node.weights if w.name.endswith(f".{name}")]
        arrays = [regate(self.weights[weight.name], kind) for weight, _ in held]
        return self.parameter(np.concatenate(arrays)[None], *held)

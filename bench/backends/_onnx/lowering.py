"""What collects the nodes and initializers of an ONNX model, one primitive after another."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Mapping, Sequence, Tuple

from bench.graph import Node, Weight

# Ours are torch's: i f g o and r z n. ONNX has i o f c and z r h.
GATE_ORDER = {"rnn": (0,), "lstm": (0, 3, 1, 2), "gru": (1, 0, 2)}


def regate(array: Any, kind: str) -> Any:
    """A stacked recurrent weight, (gates * hidden, ...), with its gates in ONNX's order."""
    import numpy as np

    order = GATE_ORDER[kind]
    return np.concatenate([np.split(array, len(order))[gate] for gate in order])


def unregate(array: Any, kind: str) -> Any:
    """The same with its gates in torch's order again."""
    import numpy as np

    order = GATE_ORDER[kind]
    return np.concatenate([np.split(array, len(order))[order.index(gate)] for gate in range(len(order))])


class Lowering:
    """Collects the nodes and initializers of one model; a scan's body has nodes of its own.

    compute, held   the types of the arithmetic and of the weights; the node `loss` is computed in fp32
    variable   only weights are initializers, and what is none is a Constant: PopART moves every initializer
    mark       attributes for every ONNX node that a node of the graph becomes
    parameters the weights in each initializer, one behind the other, with the kind of their gates
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
        # The inputs that are bytes.
        self.bytes: List[int] = []

    def graph(self, nodes: List[Node], sources: Mapping[int, str] = {}) -> Dict[int, List[str]]:
        """Lower nodes in order; return the names of the results of each."""
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
                first, made = len(self.nodes), self._lower(node, args, not sources and index == self.loss)
                values[index] = made if isinstance(made, list) else [made]
                if not sources:
                    self.marked(self.nodes[first:], index)
        return values

    def _lower(self, node: Node, args: List[str], loss: bool) -> Any:
        if not loss or self.compute == "float32":
            return self.ops[node.op](self, node, *args)
        compute, self.compute = self.compute, "float32"
        made = self.ops[node.op](self, node, self.op("Cast", args[0], to=self.type), *args[1:])
        self.compute = compute
        return made

    def marked(self, nodes: Sequence[Any], index: int) -> None:
        from onnx import helper

        for made in nodes:
            if made.op_type != "Constant":
                made.attribute.extend(helper.make_attribute(*pair) for pair in self.mark(index).items())

    @property
    def type(self) -> int:
        """ONNX's number of the type of the arithmetic: FLOAT or FLOAT16."""
        return {"float32": 1, "float16": 10}[self.compute]

    def op(self, kind: str, *inputs: str, outputs: int = 1, **attrs: Any) -> Any:
        """Add one node; return the name of its result, or the list of the names of its `outputs`."""
        from onnx import helper

        self.count += 1
        names = [f"{kind.lower()}{self.count}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, **attrs))
        return names[0] if outputs == 1 else names

    def constant(self, array: Any) -> str:
        """What never changes; numbers in the type of the arithmetic, integers as they are."""
        from onnx import helper, numpy_helper

        array = array.astype(self.compute) if array.dtype.kind == "f" else array
        if not self.variable:
            return self._initializer(array)
        self.count += 1
        name = f"constant{self.count}"
        self.nodes.append(helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array, name)))
        return name

    def parameter(self, array: Any, *held: Tuple[Weight, str]) -> str:
        """An initializer that is made of the weights `held`. What comes of it is in the type of the arithmetic: trained
        weights are cast where they are held in another; running statistics are not, for they are what is moved."""
        kept = self.held if all(weight.trained for weight, _ in held) else self.compute
        name = self._initializer(array.astype(kept))
        self.parameters[name] = held
        return str(self.op("Cast", name, to=self.type)) if kept != self.compute else name

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
        """The weight of that name as a list of one tensor; an empty one where the layer has none."""
        found = [weight for weight in node.weights if weight.name.endswith(f".{name}")]
        return [self.parameter(self.weights[w.name].reshape(shape or w.shape), (w, "")) for w in found]

    def gates(self, node: Node, kind: str, *names: str) -> str:
        """The stacked weights of these names in ONNX's order of the gates, one behind the other."""
        import numpy as np

        held = [(w, kind) for name in names for w in node.weights if w.name.endswith(f".{name}")]
        arrays = [regate(self.weights[weight.name], kind) for weight, _ in held]
        return self.parameter(np.concatenate(arrays)[None], *held)

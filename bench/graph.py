"""What a workload computes: a recorded list of primitive operations that names no framework.

A workload calls the methods of a Graph; each records one Node with its shape, weights and cost, and
raises ValueError when the shapes do not fit. A backend lowers the nodes, one function a primitive.

Shapes   rows (batch, features), sequences (batch, time, features), images (batch, channels, height,
         width); the batch axis is always there, and static
Weights  torch's layouts: dense (out, in), conv (out, in / groups, kernel, kernel), recurrent
         (gates * hidden, in) with the gates in torch's order: i f g o and r z n
FLOPs    2 x multiply-accumulate of dense, convolution and gates; biases, activations and other
         elementwise work are counted apart (`elementwise`)

No numpy here: the harness records graphs to refuse impossible sizes, and must stay light.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Sequence, Tuple, Union

Shape = Tuple[int, ...]

GATES = {"rnn": 1, "lstm": 4, "gru": 3}
ELEMENTWISE_OPS = {"add": 1, "sub": 1, "mul": 1, "log": 1, "relu": 1, "affine": 2, "where_less": 1}


@dataclass(frozen=True)
class Weight:
    """One trainable array; its values are drawn uniformly within +-1 / sqrt(fan_in)."""

    name: str
    shape: Shape
    fan_in: int


@dataclass(frozen=True)
class Tensor:
    """One result of one node: (index of the node, index of the result) and its shape."""

    node: int
    output: int
    shape: Shape


@dataclass(frozen=True)
class Node:
    """One primitive: what it reads, how it is set, what it weighs and costs."""

    op: str
    inputs: Tuple[Tensor, ...]
    shapes: Tuple[Shape, ...]
    attrs: Dict[str, Any] = field(default_factory=dict)
    weights: Tuple[Weight, ...] = ()
    flops: int = 0

    @property
    def shape(self) -> Shape:
        return self.shapes[0]


class Graph:
    """A recording. `random_as_inputs` turns the draws of random numbers into inputs, so that a
    result can be checked; without it they are primitives, as they are when timed."""

    def __init__(self, batch_size: int, random_as_inputs: bool = False, prefix: str = "") -> None:
        self.batch_size = batch_size
        self.random_as_inputs = random_as_inputs
        self.prefix = prefix
        self.nodes: List[Node] = []
        self.output = Tensor(-1, 0, ())
        self.loss = Tensor(-1, 0, ())

    # ---- sources -----------------------------------------------------------------------------

    def input(self, *shape: int) -> Tensor:
        """The batch of inputs: uniform within +-1."""
        return self._source("input", shape, values="uniform")

    def labels(self, *shape: int, values: str) -> Tensor:
        """What the loss compares with. `values`: normal, distribution (sums to 1 over the last
        axis), bits (0 or 1) or classes (the integers 0 and 1)."""
        return self._source("input", shape, values=values)

    def random(self, *shape: int, values: str) -> Tensor:
        """Fresh random numbers in every step. `values`: normal, or unit (uniform in 0..1)."""
        return self._source("input" if self.random_as_inputs else "random", shape, values=values)

    def fill(self, value: float, *shape: int) -> Tensor:
        """A constant."""
        return self._source("fill", shape, value=value)

    # ---- layers ------------------------------------------------------------------------------

    def dense(self, x: Tensor, units: int, bias: bool = True) -> Tensor:
        """x W' + b over the last axis."""
        features = x.shape[-1]
        weights = [self._weight("weight", (units, features), features)]
        if bias:
            weights.append(self._weight("bias", (units,), features))
        flops = 2 * math.prod(x.shape) * units
        return self._add("dense", [x], [x.shape[:-1] + (units,)], {}, weights, flops)

    def conv(
        self,
        x: Tensor,
        filters: int,
        kernel_size: int,
        *,
        stride: int = 1,
        padding: Union[int, str] = 0,
        groups: int = 1,
        bias: bool = True,
    ) -> Tensor:
        """A 2-D convolution of a square kernel. `padding`: pixels on every side, or "same", which is
        TensorFlow's rule: ceil(size / stride) pixels come out, an odd pixel goes to the end."""
        _, channels, height, width = x.shape
        if channels % groups or filters % groups:
            raise ValueError(f"groups={groups} must divide the input channels ({channels}) and the filters ({filters})")
        pads = [_pads(size, kernel_size, stride, padding) for size in (height, width)]
        outs = [(size + sum(pad) - kernel_size) // stride + 1 for size, pad in zip((height, width), pads)]
        if min(outs) < 1:
            raise ValueError(
                f"kernel_size={kernel_size} with padding={padding} does not fit an image of {height}x{width}"
            )
        fan_in = channels // groups * kernel_size**2
        shape = (filters, channels // groups, kernel_size, kernel_size)
        weights = [self._weight("weight", shape, fan_in)]
        if bias:
            weights.append(self._weight("bias", (filters,), fan_in))
        attrs = {"stride": stride, "pads": pads, "groups": groups, "same": padding == "same"}
        out = (self.batch_size, filters, outs[0], outs[1])
        return self._add("conv", [x], [out], attrs, weights, 2 * math.prod(out) * fan_in)

    def rnn(self, x: Tensor, hidden: int, bias: bool = True) -> Tensor:
        """A tanh layer over whole sequences from a zero state; returns every state."""
        return self._recurrent("rnn", x, hidden, bias)

    def lstm(self, x: Tensor, hidden: int, bias: bool = True) -> Tensor:
        """An LSTM layer over whole sequences from a zero state; returns every h."""
        return self._recurrent("lstm", x, hidden, bias)

    def gru(self, x: Tensor, hidden: int, bias: bool = True) -> Tensor:
        """A GRU layer, reset after the product, from a zero state; returns every state."""
        return self._recurrent("gru", x, hidden, bias)

    def cell(self, kind: str, x: Tensor, states: Sequence[Tensor], bias: bool = True) -> List[Tensor]:
        """One time step of rnn, lstm or gru: x (batch, features), states (h,) or (h, c); new states."""
        hidden = states[0].shape[-1]
        weights = self._gate_weights(kind, x.shape[-1], hidden, bias)
        flops = 2 * self.batch_size * GATES[kind] * hidden * (x.shape[-1] + hidden)
        shapes = [state.shape for state in states]
        return self._add_many(f"{kind}_cell", [x, *states], shapes, {}, weights, flops)

    def last(self, x: Tensor) -> Tensor:
        """The last time step of a sequence: (batch, features)."""
        return self._add("last", [x], [(x.shape[0], x.shape[2])])

    def scan(
        self,
        body: Callable[..., Sequence[Tensor]],
        states: Sequence[Tensor],
        sequences: Sequence[Tensor],
    ) -> Tensor:
        """Run `body(net, states, slices)` once a time step, in an explicit loop.

        states     the tensors (batch, features) that the loop carries; body returns the new ones
        sequences  the tensors (batch, time, features) that are cut into one slice a step
        Returns    the first state after every step, (batch, time, features)
        """
        steps = sequences[0].shape[1]
        inner = Graph(self.batch_size, prefix=f"{self.prefix}n{len(self.nodes)}.")
        inner_states = [inner._source("state", state.shape[1:]) for state in states]
        slices = [inner._source("slice", (seq.shape[2],)) for seq in sequences]
        ends = list(body(inner, inner_states, slices))
        attrs = {"body": inner, "steps": steps, "states": len(states), "ends": ends}
        batch, features = states[0].shape
        weights = inner.weights
        return self._add(
            "scan",
            [*states, *sequences],
            [(batch, steps, features)],
            attrs,
            weights,
            steps * inner.flops,
        )

    # ---- elementwise -------------------------------------------------------------------------

    def add(self, a: Tensor, b: Tensor) -> Tensor:
        return self._alike("add", [a, b], a.shape)

    def sub(self, a: Tensor, b: Tensor) -> Tensor:
        return self._alike("sub", [a, b], a.shape)

    def mul(self, a: Tensor, b: Tensor) -> Tensor:
        return self._alike("mul", [a, b], a.shape)

    def log(self, x: Tensor) -> Tensor:
        return self._add("log", [x], [x.shape])

    def relu(self, x: Tensor) -> Tensor:
        return self._add("relu", [x], [x.shape])

    def affine(self, x: Tensor, scale: float, shift: float = 0.0) -> Tensor:
        """scale * x + shift."""
        return self._add("affine", [x], [x.shape], {"scale": scale, "shift": shift})

    def where_less(self, a: Tensor, b: Tensor, then: Tensor, other: Tensor) -> Tensor:
        """`then` where a < b, else `other`."""
        return self._alike("where_less", [a, b, then, other], then.shape)

    # ---- losses: scalars, computed in fp32 whatever the precision ---------------------------------

    def mean(self, x: Tensor) -> Tensor:
        """The mean of all elements."""
        return self._add("mean", [x], [()])

    def softmax_cross_entropy(self, x: Tensor, labels: Tensor) -> Tensor:
        """Softmax over the last axis against dense labels, averaged over the other axes."""
        return self._alike("softmax_cross_entropy", [x, labels], ())

    def squared_error(self, x: Tensor, labels: Tensor) -> Tensor:
        """The mean of (x - labels)^2."""
        return self._alike("squared_error", [x, labels], ())

    def flat_softmax_nll(self, x: Tensor, labels: Tensor) -> Tensor:
        """Softmax over batch and features of each time step together (ONNX's old default axis on
        PopART's time-major sequences), then the summed negative log-likelihood of integer labels."""
        return self._add("flat_softmax_nll", [x, labels], [()])

    def flat_softmax_squared_error(self, x: Tensor, labels: Tensor) -> Tensor:
        """Softmax over each whole image, then the summed squared difference to the labels."""
        return self._alike("flat_softmax_squared_error", [x, labels], ())

    # ---- what a recording tells --------------------------------------------------------------

    @property
    def inputs(self) -> Dict[str, Node]:
        """The arrays that are fed, by name, in order; `labels` may be among them."""
        return {name: node for name, node in self._named("input")}

    @property
    def weights(self) -> List[Weight]:
        return [weight for node in self.nodes for weight in node.weights]

    @property
    def parameters(self) -> int:
        return sum(math.prod(weight.shape) for weight in self.weights)

    @property
    def flops(self) -> int:
        """Of one forward pass over the batch."""
        return sum(node.flops for node in self.nodes)

    @property
    def elementwise(self) -> int:
        """Elementwise operations of one forward pass over the batch, losses left out."""
        total = 0
        for node in self.nodes:
            total += ELEMENTWISE_OPS.get(node.op, 0) * math.prod(node.shape)
            if node.op == "scan":
                total += node.attrs["steps"] * node.attrs["body"].elementwise
        return total

    @property
    def elements_moved(self) -> int:
        """Inputs, weights and output, each once: what must cross the memory bus at the least."""
        inputs = sum(math.prod(node.shape) for node in self.inputs.values())
        return inputs + self.parameters + math.prod(self.output.shape)

    @property
    def fingerprint(self) -> str:
        """Twelve hex digits that change when what is computed changes."""
        return hashlib.sha256(json.dumps(self._plain(), sort_keys=True).encode()).hexdigest()[:12]

    # ---- recording ---------------------------------------------------------------------------

    def _plain(self) -> List[Any]:
        rows: List[Any] = []
        for node in self.nodes:
            attrs = {k: v for k, v in node.attrs.items() if k not in ("body", "ends")}
            body = None
            if node.op == "scan":
                body = [node.attrs["body"]._plain(), [[end.node, end.output] for end in node.attrs["ends"]]]
            inputs = [[t.node, t.output] for t in node.inputs]
            weights = [list(weight.shape) for weight in node.weights]
            rows.append([node.op, inputs, [list(s) for s in node.shapes], attrs, weights, body])
        return [rows, [self.output.node, self.output.output], self.loss.node]

    def _named(self, op: str) -> List[Tuple[str, Node]]:
        return [(f"{op}{i}", node) for i, node in enumerate(self.nodes) if node.op == op]

    def _weight(self, name: str, shape: Shape, fan_in: int) -> Weight:
        return Weight(f"{self.prefix}n{len(self.nodes)}.{name}", shape, fan_in)

    def _gate_weights(self, kind: str, features: int, hidden: int, bias: bool) -> List[Weight]:
        rows = GATES[kind] * hidden
        weights = [
            self._weight("weight_ih", (rows, features), hidden),
            self._weight("weight_hh", (rows, hidden), hidden),
        ]
        if bias:
            weights.append(self._weight("bias_ih", (rows,), hidden))
        if bias and kind == "gru":
            # Only here do two biases differ: the second stands inside the product with the reset gate.
            weights.append(self._weight("bias_hh", (rows,), hidden))
        return weights

    def _recurrent(self, kind: str, x: Tensor, hidden: int, bias: bool) -> Tensor:
        batch, steps, features = x.shape
        weights = self._gate_weights(kind, features, hidden, bias)
        flops = 2 * batch * steps * GATES[kind] * hidden * (features + hidden)
        return self._add(kind, [x], [(batch, steps, hidden)], {"hidden": hidden}, weights, flops)

    def _alike(self, op: str, inputs: Sequence[Tensor], shape: Shape) -> Tensor:
        if len({tensor.shape for tensor in inputs}) > 1:
            shapes = ", ".join(str(tensor.shape) for tensor in inputs)
            raise ValueError(f"{op} takes operands of one shape, not {shapes}")
        return self._add(op, inputs, [shape])

    def _source(self, op: str, shape: Sequence[int], **attrs: Any) -> Tensor:
        return self._add(op, [], [(self.batch_size, *shape)], attrs)

    def _add(
        self,
        op: str,
        inputs: Sequence[Tensor],
        shapes: Sequence[Shape],
        attrs: Union[Dict[str, Any], None] = None,
        weights: Sequence[Weight] = (),
        flops: int = 0,
    ) -> Tensor:
        return self._add_many(op, inputs, shapes, attrs, weights, flops)[0]

    def _add_many(
        self,
        op: str,
        inputs: Sequence[Tensor],
        shapes: Sequence[Shape],
        attrs: Union[Dict[str, Any], None] = None,
        weights: Sequence[Weight] = (),
        flops: int = 0,
    ) -> List[Tensor]:
        self.nodes.append(Node(op, tuple(inputs), tuple(shapes), attrs or {}, tuple(weights), flops))
        index = len(self.nodes) - 1
        return [Tensor(index, i, shape) for i, shape in enumerate(shapes)]


def _pads(size: int, kernel_size: int, stride: int, padding: Union[int, str]) -> Tuple[int, int]:
    if padding == "same":
        total = max((-(-size // stride) - 1) * stride + kernel_size - size, 0)
        return total // 2, total - total // 2
    return int(padding), int(padding)

"""What a workload computes: a recorded list of primitive operations that names no framework.

A workload calls the methods of a Graph; each records one Node with its shape, weights and cost, and
raises ValueError when the shapes do not fit. A backend lowers the nodes, one function a primitive.

Shapes   rows (batch, features), sequences (batch, time, features), images (batch, channels, height,
         width); the batch axis is always there, and static
Weights  torch's layouts: dense (out, in), conv (out, in / groups, kernel, kernel), recurrent
         (gates * hidden, in) with the gates in torch's order: i f g o and r z n
FLOPs    2 x multiply-accumulate of dense, convolution and gates; biases, activations, norms and other
         elementwise work count as none
"""

from __future__ import annotations

import math
from typing import Callable, List, Sequence

from bench.graph.image_primitives import Convolutional
from bench.graph.recording import Node, Tensor, Weight

__all__ = ["GATES", "Graph", "Node", "Tensor", "Weight"]

GATES = {"rnn": 1, "lstm": 4, "gru": 3}


class Graph(Convolutional):
    """A recording of primitives; those of images are in `bench/graph/image_primitives.py`."""

    # ---- sources -----------------------------------------------------------------------------

    def input(self, *shape: int) -> Tensor:
        """The batch of inputs: uniform within +-1."""
        return self._source("input", shape, values="uniform")

    def labels(self, *shape: int, values: str, count: int = 2) -> Tensor:
        """What the loss compares with. `values`: normal, distribution (sums to 1 over the last
        axis), bits (0 or 1) or classes (integers below `count`)."""
        return self._source("input", shape, values=values, **({"count": count} if values == "classes" else {}))

    def random(self, *shape: int, values: str) -> Tensor:
        """Fresh random numbers in every step. `values`: normal, or unit (uniform in 0..1)."""
        return self._source("input" if self.random_as_inputs else "random", shape, values=values)

    def fill(self, value: float, *shape: int) -> Tensor:
        """A constant."""
        return self._source("fill", shape, value=value)

    # ---- layers ------------------------------------------------------------------------------

    def dense(self, x: Tensor, units: int, bias: bool = True, name: str = "") -> Tensor:
        """x W' + b over the last axis."""
        features = x.shape[-1]
        weights = [self._weight("weight", (units, features), features, label=name)]
        if bias:
            weights.append(self._weight("bias", (units,), features, label=name))
        flops = 2 * math.prod(x.shape) * units
        return self._add("dense", [x], [x.shape[:-1] + (units,)], {}, weights, flops=flops)

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
        first = self._add(f"{kind}_cell", [x, *states], shapes, {}, weights, flops=flops)
        return [Tensor(first.node, index, shape) for index, shape in enumerate(shapes)]

    def last(self, x: Tensor) -> Tensor:
        """The last time step of a sequence: (batch, features)."""
        return self._add("last", [x], [(x.shape[0], x.shape[2])], flops=0)

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
            flops=steps * inner.flops,
        )

    # ---- elementwise -------------------------------------------------------------------------

    def add(self, a: Tensor, b: Tensor) -> Tensor:
        return self._alike("add", [a, b], a.shape)

    def sub(self, a: Tensor, b: Tensor) -> Tensor:
        return self._alike("sub", [a, b], a.shape)

    def mul(self, a: Tensor, b: Tensor) -> Tensor:
        return self._alike("mul", [a, b], a.shape)

    def log(self, x: Tensor) -> Tensor:
        return self._add("log", [x], [x.shape], flops=0)

    def relu(self, x: Tensor) -> Tensor:
        return self.activation(x, "relu")

    def affine(self, x: Tensor, scale: float, shift: float = 0.0) -> Tensor:
        """scale * x + shift."""
        return self._add("affine", [x], [x.shape], {"scale": scale, "shift": shift}, flops=0)

    def where_less(self, a: Tensor, b: Tensor, then: Tensor, other: Tensor) -> Tensor:
        """`then` where a < b, else `other`."""
        return self._alike("where_less", [a, b, then, other], then.shape)

    # ---- losses: scalars, computed in fp32 whatever the precision ---------------------------------

    def mean(self, x: Tensor) -> Tensor:
        """The mean of all elements."""
        return self._add("mean", [x], [()], flops=0)

    def softmax_cross_entropy(self, x: Tensor, labels: Tensor) -> Tensor:
        """Softmax over the last axis against dense labels, averaged over the other axes."""
        return self._alike("softmax_cross_entropy", [x, labels], ())

    def squared_error(self, x: Tensor, labels: Tensor) -> Tensor:
        """The mean of (x - labels)^2."""
        return self._alike("squared_error", [x, labels], ())

    def flat_softmax_nll(self, x: Tensor, labels: Tensor) -> Tensor:
        """Softmax over batch and features of each time step together (ONNX's old default axis on
        PopART's time-major sequences), then the summed negative log-likelihood of integer labels."""
        return self._add("flat_softmax_nll", [x, labels], [()], flops=0)

    def flat_softmax_squared_error(self, x: Tensor, labels: Tensor) -> Tensor:
        """Softmax over each whole image, then the summed squared difference to the labels."""
        return self._alike("flat_softmax_squared_error", [x, labels], ())

    # ---- what several of them share ------------------------------------------------------------

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
        return self._add(kind, [x], [(batch, steps, hidden)], {"hidden": hidden}, weights, flops=flops)

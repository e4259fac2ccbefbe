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

import contextlib
import math
from typing import Any, Callable, Dict, FrozenSet, Iterator, List, Mapping, Optional, Sequence, Tuple, Union

from bench.cache import fingerprint
from bench.cases.recipe import DEFAULT_RECIPE, Recipe
from bench.graph.recording import SOURCES, Node, Shape, Tensor, Weight

__all__ = ["GATES", "Graph", "Node", "Tensor", "Weight"]

Padding = Union[int, str]
GATES = {"rnn": 1, "lstm": 4, "gru": 3}


class Graph:
    """The nodes in the order in which they were recorded; `output` and `loss` are two of their results.

    random_as_inputs   draws of random numbers become inputs, so that a result can be checked; without
                       it they are primitives, as they are when timed
    training           a graph that is trained: norms use the batch's statistics, dropout drops
    recipe             how it is trained: images may be blended, labels smoothed
    sample             records a small copy for inference, with the same weights, which are measured there when drawn
    """

    def __init__(
        self,
        batch_size: int,
        random_as_inputs: bool = False,
        training: bool = False,
        recipe: Recipe = DEFAULT_RECIPE,
        prefix: str = "",
    ) -> None:
        self.batch_size = batch_size
        self.random_as_inputs = random_as_inputs
        self.training = training
        self.recipe = recipe
        self.prefix = prefix
        self.block = ""
        self.nodes: List[Node] = []
        self.output = Tensor(-1, 0, ())
        self.loss = Tensor(-1, 0, ())
        self.sample: Optional[Callable[[], Any]] = None

    @property
    def inputs(self) -> Dict[str, Node]:
        """The arrays that are fed, by name, in order; `labels` may be among them."""
        return {name: node for name, node in self._named("input")}

    @property
    def label_inputs(self) -> List[str]:
        """The names of the inputs that the loss compares with."""
        compared = self.nodes[self.loss.node].inputs[1:] if self.loss.node >= 0 else ()
        return [f"input{tensor.node}" for tensor in compared]

    @property
    def forward_inputs(self) -> List[str]:
        """The names of the other inputs, which the forward pass reads."""
        labels = self.label_inputs
        return [name for name in self.inputs if name not in labels]

    @property
    def weights(self) -> List[Weight]:
        return [weight for node in self.nodes for weight in node.weights]

    @property
    def parameters(self) -> int:
        """Trained numbers; running statistics are not among them."""
        return sum(math.prod(weight.shape) for weight in self.weights if weight.trained)

    @property
    def blocks(self) -> List[str]:
        """The names of the blocks, in order."""
        return list(dict.fromkeys(node.block for node in self.nodes if node.block))

    @property
    def flops(self) -> int:
        """Of one forward pass over the batch."""
        return sum(node.flops for node in self.nodes)

    @property
    def elements_moved(self) -> int:
        """Inputs, weights and output, each once: what must cross the memory bus at the least."""
        inputs = sum(math.prod(node.shape) for node in self.inputs.values())
        return inputs + sum(math.prod(weight.shape) for weight in self.weights) + math.prod(self.output.shape)

    @property
    def operations(self) -> FrozenSet[str]:
        """The operations that a backend lowers, those within loops too."""
        ops = {node.op for node in self.nodes if node.op not in SOURCES}
        return frozenset(ops).union(*(node.attrs["body"].operations for node in self.nodes if node.op == "scan"))

    @property
    def fingerprint(self) -> str:
        """Twelve hex digits that change when what is computed changes."""
        return fingerprint(self._plain())

    def recompute_segments(self, nodes: Mapping[int, Node]) -> List[Dict[int, Node]]:
        """Some nodes one by one, but for the blocks that run again in the backward pass, which stay whole."""
        found: List[Dict[int, Node]] = [{index: node} for index, node in nodes.items() if node.op in SOURCES]
        for index, node in nodes.items():
            if node.op in SOURCES:
                continue
            last = next(iter(found[-1].values())) if found else node
            joined = self.training and self.recipe.recomputes(node.block)
            if joined and last is not node and last.op not in SOURCES and last.block == node.block:
                found[-1][index] = node
            else:
                found.append({index: node})
        return found

    def inputs_of(self, nodes: Mapping[int, Node]) -> List[int]:
        """The nodes, in order, whose results some nodes read and do not make."""
        return sorted({tensor.node for node in nodes.values() for tensor in node.inputs if tensor.node not in nodes})

    def results_of(self, nodes: Mapping[int, Node]) -> List[Tensor]:
        """The results of some nodes, in order, that others read."""
        later = [tensor for node in self.nodes[max(nodes) + 1 :] for tensor in node.inputs]
        found = {tensor.node: tensor for tensor in [*later, self.output] if tensor.node in nodes}
        return [found[index] for index in sorted(found)]

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

    def _weight(self, name: str, shape: Shape, fan_in: float, kind: str = "uniform", label: str = "") -> Weight:
        """A weight of the node about to be recorded; its layer's `label`, or else the node's number, names it."""
        return Weight(f"{self.prefix}{label or f'n{len(self.nodes)}'}.{name}", shape, fan_in, kind)

    def _source(self, op: str, shape: Sequence[int], **attrs: Any) -> Tensor:
        return self._add(op, [], [(self.batch_size, *shape)], attrs, flops=0)

    def _alike(self, op: str, inputs: Sequence[Tensor], shape: Shape) -> Tensor:
        if len({tensor.shape for tensor in inputs}) > 1:
            shapes = ", ".join(str(tensor.shape) for tensor in inputs)
            raise ValueError(f"{op} takes operands of one shape, not {shapes}")
        return self._add(op, inputs, [shape], flops=0)

    def _add(
        self,
        op: str,
        inputs: Sequence[Tensor],
        shapes: Sequence[Shape],
        attrs: Union[Dict[str, Any], None] = None,
        weights: Sequence[Weight] = (),
        *,
        flops: int,
    ) -> Tensor:
        """Record a node and return its first result.

        flops   of one forward pass over the batch; every primitive states them. Elementwise work, pools and norms: 0
        """
        self.nodes.append(Node(op, tuple(inputs), tuple(shapes), attrs or {}, tuple(weights), flops, self.block))
        return Tensor(len(self.nodes) - 1, 0, shapes[0])

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

    # ---- images --------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def in_block(self, name: str) -> Iterator[None]:
        """Name what is recorded within: a block can be recomputed, and a pipeline can be cut before it."""
        before, self.block = self.block, name
        try:
            yield
        finally:
            self.block = before

    def image(self, channels: int, size: int, values: str = "uniform") -> Tensor:
        """A batch of square images. `values`: uniform within +-1, pixels (0 to 255, floats) or uint8."""
        return self._source("input", (channels, size, size), values="image" if values == "uniform" else values)

    def normalise(self, x: Tensor, mean: Tuple[float, ...], std: Tuple[float, ...]) -> Tensor:
        """(x / 255 - mean) / std by channel, in the precision of the arithmetic, from any type."""
        attrs = {
            "scale": [1 / (255 * s) for s in std],
            "shift": [-m / s for m, s in zip(mean, std)],
        }
        return self._add("normalise", [x], [x.shape], attrs, flops=0)

    def pad_channels(self, x: Tensor, channels: int) -> Tensor:
        """Channels of zeros behind the others, up to `channels`."""
        return self._add("pad_channels", [x], [(x.shape[0], channels, *x.shape[2:])], flops=0)

    def conv(
        self,
        x: Tensor,
        filters: int,
        kernel_size: int,
        *,
        stride: int = 1,
        padding: Padding = 0,
        groups: int = 1,
        bias: bool = True,
        name: str = "",
    ) -> Tensor:
        """A 2-D convolution of a square kernel. `padding`: pixels on every side, or "same", which is
        TensorFlow's rule: ceil(size / stride) pixels come out, an odd pixel goes to the end.
        Named, it belongs to a deep network, whose weights are drawn to keep the signal's size."""
        _, channels, height, width = x.shape
        if channels % groups or filters % groups:
            raise ValueError(f"groups={groups} must divide the input channels ({channels}) and the filters ({filters})")
        pads, outs = _window((height, width), kernel_size, stride, padding)
        fan_in = channels // groups * kernel_size**2
        shape = (filters, channels // groups, kernel_size, kernel_size)
        weights = [self._weight("weight", shape, fan_in, "deep" if name else "uniform", name)]
        if bias:
            weights.append(self._weight("bias", (filters,), fan_in, label=name))
        attrs = {"stride": stride, "pads": pads, "groups": groups, "same": padding == "same"}
        out = (self.batch_size, filters, outs[0], outs[1])
        return self._add("conv", [x], [out], attrs, weights, flops=2 * math.prod(out) * fan_in)

    def batch_norm(self, x: Tensor, *, eps: float, momentum: float, last: bool = False, name: str = "") -> Tensor:
        """Normalise by channel: in training with the batch's mean and (biased) variance, moving the
        running ones by `momentum` towards them; otherwise with the running ones. `last`: the end of a
        residual branch, whose scale is drawn small (training starts it at zero)."""
        count = (x.shape[1],)
        weights = [
            self._weight("weight", count, 1, "last_scale" if last else "scale", name),
            self._weight("bias", count, 1, "shift", name),
            self._weight("running_mean", count, 1, "mean", name),
            self._weight("running_var", count, 1, "variance", name),
        ]
        attrs = {"eps": eps, "momentum": momentum, "training": self.training}
        return self._add("batch_norm", [x], [x.shape], attrs, weights, flops=0)

    def group_norm(
        self, x: Tensor, groups: int, *, eps: float, strided: bool = False, last: bool = False, name: str = ""
    ) -> Tensor:
        """Normalise over pixels and the channels of a group, row by row. `strided`: channel c belongs
        to group c % groups (the IPU's fast variant); otherwise a group's channels are neighbours."""
        channels = x.shape[1]
        if channels % groups:
            raise ValueError(f"norm_num_groups={groups} must divide every norm's channels; {channels} is one of them")
        weights = [
            self._weight("weight", (channels,), 1, "last_scale" if last else "scale", name),
            self._weight("bias", (channels,), 1, "shift", name),
        ]
        return self._add(
            "group_norm", [x], [x.shape], {"eps": eps, "groups": groups, "strided": strided}, weights, flops=0
        )

    def activation(self, x: Tensor, kind: str) -> Tensor:
        """relu, relu6, sigmoid, silu (x sigmoid(x)), hardsigmoid (relu6(x + 3) / 6), hardswish."""
        return self._add(kind, [x], [x.shape], flops=0)

    def max_pool(self, x: Tensor, kernel_size: int, *, stride: int, padding: Padding) -> Tensor:
        """The largest pixel of a window; padding as for `conv`, and it never wins."""
        pads, outs = _window(x.shape[2:], kernel_size, stride, padding)
        attrs = {"kernel": kernel_size, "stride": stride, "pads": pads, "same": padding == "same"}
        return self._add("max_pool", [x], [(x.shape[0], x.shape[1], outs[0], outs[1])], attrs, flops=0)

    def global_mean(self, x: Tensor) -> Tensor:
        """The mean over all pixels: (batch, channels)."""
        return self._add("global_mean", [x], [x.shape[:2]], flops=0)

    def pooled(self, x: Tensor) -> Tensor:
        """The mean over all pixels, kept as an image of one pixel: (batch, channels, 1, 1)."""
        return self._add("pooled", [x], [(*x.shape[:2], 1, 1)], flops=0)

    def gate(self, x: Tensor, gate: Tensor) -> Tensor:
        """x times a factor for each row and channel (batch, channels, 1, 1), or for each row
        (batch, 1, 1, 1)."""
        return self._add("gate", [x, gate], [x.shape], flops=0)

    def dropout(self, x: Tensor, rate: float, rows: bool = False) -> Tensor:
        """Zero a share `rate` of the elements, or of whole rows (drop connect), and scale up the rest.

        Nothing outside training. The draws are an input where a result is to be checked.
        """
        if not self.training or not rate:
            return x
        shape = (1,) * (len(x.shape) - 1) if rows else x.shape[1:]
        if self.random_as_inputs:
            kept = self._source("input", shape, values="kept", rate=rate)
            return self.gate(x, kept) if rows else self._add("mul", [x, kept], [x.shape], flops=0)
        return self._add("dropout", [x], [x.shape], {"rate": rate, "rows": rows}, flops=0)

    def blended(self, x: Tensor) -> Tensor:
        """The images blended as the recipe says: share x + (1 - share) y, where y is the batch rolled by
        some rows. The shares are inputs: one a row (batch, 1, 1, 1), or one a pixel (batch, 1, height, width)."""
        for kind in self.recipe.blends:
            pixels = x.shape[2:] if kind == "cutmix" else (1, 1)
            share = self._source("input", (1, *pixels), values="unit")
            # Cutmix takes the second neighbour, so that mixup's pair is not cut into itself.
            shift = 2 if kind == "cutmix" and self.batch_size > 2 else 1
            x = self._add("blend", [x, share], [x.shape], {"shift": shift}, flops=0)
        return x

    # ---- the loss of image networks ---------------------------------------------------------------

    def cross_entropy(
        self, x: Tensor, labels: Tensor, on: float = 1.0, off: float = 0.0, shares: Union[Tensor, None] = None
    ) -> Tensor:
        """Softmax cross entropy, averaged over the rows, against integer labels (batch,): `on` for the
        labelled class and `off` for the others, which is what label smoothing comes to.

        shares   (batch, labels): the weights of the row's own label and of those that belong to the
                 images blended in, in the order of `rolls`
        """
        shifts = [node.attrs["shift"] for node in self.nodes if node.op == "blend"] if shares else []
        every: List[Tensor] = [x, labels, *([shares] if shares else [])]
        attrs = {"on": on, "off": off, "rolls": rolls(shifts)}
        return self._add("cross_entropy", every, [()], attrs, flops=0)

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


def rolls(shifts: List[int]) -> List[int]:
    """By how many rows each label's image was rolled, when the batch was blended once for each shift:
    none [0], one [0, s], two [0, s, t, s + t]."""
    found = [0]
    for shift in shifts:
        found += [roll + shift for roll in found]
    return found


def _window(
    sizes: Tuple[int, ...], kernel_size: int, stride: int, padding: Padding
) -> Tuple[List[Tuple[int, int]], List[int]]:
    """The pixels of padding, before and behind, and the pixels that come out, by axis."""
    pads = [_pads(size, kernel_size, stride, padding) for size in sizes]
    outs = [(size + sum(pad) - kernel_size) // stride + 1 for size, pad in zip(sizes, pads)]
    if min(outs) < 1:
        raise ValueError(
            f"kernel_size={kernel_size} with padding={padding} does not fit an image of {sizes[0]}x{sizes[1]}"
        )
    return pads, outs


def _pads(size: int, kernel_size: int, stride: int, padding: Padding) -> Tuple[int, int]:
    if padding != "same":
        return int(padding), int(padding)
    total = max((math.ceil(size / stride) - 1) * stride + kernel_size - size, 0)
    return total // 2, total - total // 2

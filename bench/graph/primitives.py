"""The primitives: a Graph records them, independent of any framework.

A workload calls the methods of a Graph. Each records one Node with its shape, weights and FLOP, and raises ValueError
if the shapes do not fit. A backend lowers the nodes, one function for each primitive.

Shapes   rows (batch, features), sequences (batch, time, features), images (batch, channels, height,
         width); the batch axis is always present, and static
Weights  torch's layouts: dense (out, in), conv (out, in / groups, kernel, kernel), recurrent
         (gates * hidden, in) with the gates in torch's order: i f g o and r z n
FLOPs    2 x multiply-accumulate of dense, convolution and gates; biases, activations, norms and other
         elementwise work count as zero
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

    random_as_inputs   random numbers are inputs, so that a result can be checked; else they are primitives, as in the
                       timed graph
    training           norms use the batch's statistics, and dropout is active
    recipe             says whether images are mixed and labels smoothed
    sample             records a small inference graph with the same weights, on which the weights are scaled
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
        """The nodes of the arrays that are fed, by name, in order, labels among them."""
        return {name: node for name, node in self._named("input")}

    @property
    def label_inputs(self) -> List[str]:
        """The names of the inputs that only the loss reads."""
        labels = self.nodes[self.loss.node].inputs[1:] if self.loss.node >= 0 else ()
        return [f"input{tensor.node}" for tensor in labels]

    @property
    def forward_inputs(self) -> List[str]:
        """The names of the inputs that the forward pass reads."""
        labels = self.label_inputs
        return [name for name in self.inputs if name not in labels]

    @property
    def weights(self) -> List[Weight]:
        return [weight for node in self.nodes for weight in node.weights]

    @property
    def parameters(self) -> int:
        """The number of trained values, without running statistics."""
        return sum(math.prod(weight.shape) for weight in self.weights if weight.trained)

    @property
    def blocks(self) -> List[str]:
        """The names of the blocks, in order."""
        return list(dict.fromkeys(node.block for node in self.nodes if node.block))

    @property
    def flops(self) -> int:
        """FLOP of one forward pass over the batch."""
        return sum(node.flops for node in self.nodes)

    @property
    def elements_moved(self) -> int:
        """The elements of inputs, weights and output, each once: the least that must cross the memory bus."""
        inputs = sum(math.prod(node.shape) for node in self.inputs.values())
        return inputs + sum(math.prod(weight.shape) for weight in self.weights) + math.prod(self.output.shape)

    @property
    def operations(self) -> FrozenSet[str]:
        """The primitives that a backend lowers, those within loops too."""
        ops = {node.op for node in self.nodes if node.op not in SOURCES}
        return frozenset(ops).union(*(node.attrs["body"].operations for node in self.nodes if node.op == "scan"))

    @property
    def fingerprint(self) -> str:
        """Twelve hex digits, a hash of the recorded computation."""
        return fingerprint(self._plain())

    def recompute_segments(self, nodes: Mapping[int, Node]) -> List[Dict[int, Node]]:
        """`nodes` in segments: a block that is recomputed is one segment, and any other node is one by itself."""
        segments: List[Dict[int, Node]] = [{index: node} for index, node in nodes.items() if node.op in SOURCES]
        for index, node in nodes.items():
            if node.op in SOURCES:
                continue
            last = next(iter(segments[-1].values())) if segments else node
            joined = self.training and self.recipe.recomputes(node.block)
            if joined and last is not node and last.op not in SOURCES and last.block == node.block:
                segments[-1][index] = node
            else:
                segments.append({index: node})
        return segments

    def inputs_of(self, nodes: Mapping[int, Node]) -> List[int]:
        """The nodes outside of `nodes` whose results these read, in order."""
        return sorted({tensor.node for node in nodes.values() for tensor in node.inputs if tensor.node not in nodes})

    def results_of(self, nodes: Mapping[int, Node]) -> List[Tensor]:
        """The results of `nodes` that later nodes read, or that are the output, in order."""
        later = [tensor for node in self.nodes[max(nodes) + 1 :] for tensor in node.inputs]
        results = {tensor.node: tensor for tensor in [*later, self.output] if tensor.node in nodes}
        return [results[index] for index in sorted(results)]

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
        """A weight of the next node; its name starts with the layer's `label`, or with the node's number."""
        return Weight(f"{self.prefix}{label or f'n{len(self.nodes)}'}.{name}", shape, fan_in, kind)

    def _source(self, op: str, shape: Sequence[int], **attrs: Any) -> Tensor:
        return self._add(op, [], [(self.batch_size, *shape)], attrs, flops=0)

    def _same_shape(self, op: str, inputs: Sequence[Tensor], shape: Shape) -> Tensor:
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
        """A batch of inputs, uniform within +-1."""
        return self._source("input", shape, values="uniform")

    def labels(self, *shape: int, values: str, count: int = 2) -> Tensor:
        """The labels of the loss. `values`: normal, distribution (sums to 1 over the last axis), bits (0 or 1) or
        classes (integers below `count`)."""
        return self._source("input", shape, values=values, **({"count": count} if values == "classes" else {}))

    def random(self, *shape: int, values: str) -> Tensor:
        """New random numbers in every step. `values`: normal, or unit (uniform in 0..1)."""
        return self._source("input" if self.random_as_inputs else "random", shape, values=values)

    def fill(self, value: float, *shape: int) -> Tensor:
        """A constant."""
        return self._source("fill", shape, value=value)

    # ---- layers ------------------------------------------------------------------------------

    def dense(self, x: Tensor, units: int, bias: bool = True, name: str = "") -> Tensor:
        """Return x W' + b over the last axis."""
        features = x.shape[-1]
        weights = [self._weight("weight", (units, features), features, label=name)]
        if bias:
            weights.append(self._weight("bias", (units,), features, label=name))
        flops = 2 * math.prod(x.shape) * units
        return self._add("dense", [x], [x.shape[:-1] + (units,)], {}, weights, flops=flops)

    def rnn(self, x: Tensor, hidden: int, bias: bool = True) -> Tensor:
        """A tanh RNN layer over whole sequences from a zero state; returns every state."""
        return self._recurrent("rnn", x, hidden, bias)

    def lstm(self, x: Tensor, hidden: int, bias: bool = True) -> Tensor:
        """An LSTM layer over whole sequences from a zero state; returns every h."""
        return self._recurrent("lstm", x, hidden, bias)

    def gru(self, x: Tensor, hidden: int, bias: bool = True) -> Tensor:
        """A GRU layer, reset after the product, from a zero state; returns every state."""
        return self._recurrent("gru", x, hidden, bias)

    def cell(self, kind: str, x: Tensor, states: Sequence[Tensor], bias: bool = True) -> List[Tensor]:
        """One time step of rnn, lstm or gru: x (batch, features), states (h,) or (h, c). Returns the new states."""
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
        """Run `body(net, states, slices)` once for each time step, in an explicit loop.

        states     the tensors (batch, features) that the loop carries; `body` returns the new ones
        sequences  the tensors (batch, time, features); each step gets one slice (batch, features)
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
        return self._same_shape("add", [a, b], a.shape)

    def sub(self, a: Tensor, b: Tensor) -> Tensor:
        return self._same_shape("sub", [a, b], a.shape)

    def mul(self, a: Tensor, b: Tensor) -> Tensor:
        return self._same_shape("mul", [a, b], a.shape)

    def log(self, x: Tensor) -> Tensor:
        return self._add("log", [x], [x.shape], flops=0)

    def relu(self, x: Tensor) -> Tensor:
        return self.activation(x, "relu")

    def affine(self, x: Tensor, scale: float, shift: float = 0.0) -> Tensor:
        """Return scale * x + shift."""
        return self._add("affine", [x], [x.shape], {"scale": scale, "shift": shift}, flops=0)

    def where_less(self, a: Tensor, b: Tensor, then: Tensor, other: Tensor) -> Tensor:
        """`then` where a < b, else `other`."""
        return self._same_shape("where_less", [a, b, then, other], then.shape)

    # ---- losses: scalars, computed in fp32 whatever the precision ---------------------------------

    def mean(self, x: Tensor) -> Tensor:
        """The mean of all elements."""
        return self._add("mean", [x], [()], flops=0)

    def softmax_cross_entropy(self, x: Tensor, labels: Tensor) -> Tensor:
        """Cross entropy of the softmax over the last axis with dense labels, averaged over the other axes."""
        return self._same_shape("softmax_cross_entropy", [x, labels], ())

    def squared_error(self, x: Tensor, labels: Tensor) -> Tensor:
        """The mean of (x - labels)^2."""
        return self._same_shape("squared_error", [x, labels], ())

    def flat_softmax_nll(self, x: Tensor, labels: Tensor) -> Tensor:
        """The sum of the negative log-likelihood of integer labels.

        The softmax runs over batch and features of each time step together (ONNX's old default axis on PopART's
        time-major sequences).
        """
        return self._add("flat_softmax_nll", [x, labels], [()], flops=0)

    def flat_softmax_squared_error(self, x: Tensor, labels: Tensor) -> Tensor:
        """The sum of the squared differences between the softmax over each whole image and the labels."""
        return self._same_shape("flat_softmax_squared_error", [x, labels], ())

    # ---- images --------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def in_block(self, name: str) -> Iterator[None]:
        """A block holds the nodes recorded within: it can be recomputed, and a pipeline can be cut before it."""
        outer, self.block = self.block, name
        try:
            yield
        finally:
            self.block = outer

    def image(self, channels: int, size: int, values: str = "uniform") -> Tensor:
        """A batch of square images. `values`: uniform within +-1, pixels (0 to 255, floats) or uint8."""
        return self._source("input", (channels, size, size), values="image" if values == "uniform" else values)

    def normalise(self, x: Tensor, mean: Tuple[float, ...], std: Tuple[float, ...]) -> Tensor:
        """Return (x / 255 - mean) / std by channel, from any type, in the precision of the arithmetic."""
        attrs = {
            "scale": [1 / (255 * s) for s in std],
            "shift": [-m / s for m, s in zip(mean, std)],
        }
        return self._add("normalise", [x], [x.shape], attrs, flops=0)

    def pad_channels(self, x: Tensor, channels: int) -> Tensor:
        """Append channels of zeros, up to `channels`."""
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
        """A 2-D convolution with a square kernel.

        padding   pixels on every side, or "same", TensorFlow's rule: the output has ceil(size / stride) pixels on a
                  side, and an odd pixel of padding goes to the end
        name      given for a layer of a deep network, whose weights are scaled to keep the signal's size
        """
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
        """Normalise each channel.

        Training uses the mean and the (biased) variance of the batch, and moves the running statistics towards them by
        `momentum`. Otherwise the running statistics are used.

        last   the end of a residual branch: its scale is small, and zero where training starts
        """
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
        """Normalise over the pixels and channels of a group, for each row of the batch.

        strided   channel c belongs to group c % groups (the IPU's fast variant); else groups are contiguous
        """
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
        """`kind`: relu, relu6, sigmoid, silu (x sigmoid(x)), hardsigmoid (relu6(x + 3) / 6) or hardswish."""
        return self._add(kind, [x], [x.shape], flops=0)

    def max_pool(self, x: Tensor, kernel_size: int, *, stride: int, padding: Padding) -> Tensor:
        """The largest pixel of each window. `padding` as for `conv`; padded pixels are minus infinity."""
        pads, outs = _window(x.shape[2:], kernel_size, stride, padding)
        attrs = {"kernel": kernel_size, "stride": stride, "pads": pads, "same": padding == "same"}
        return self._add("max_pool", [x], [(x.shape[0], x.shape[1], outs[0], outs[1])], attrs, flops=0)

    def global_mean(self, x: Tensor) -> Tensor:
        """The mean over all pixels: (batch, channels)."""
        return self._add("global_mean", [x], [x.shape[:2]], flops=0)

    def pooled(self, x: Tensor) -> Tensor:
        """The mean over all pixels, as an image of one pixel: (batch, channels, 1, 1)."""
        return self._add("pooled", [x], [(*x.shape[:2], 1, 1)], flops=0)

    def gate(self, x: Tensor, gate: Tensor) -> Tensor:
        """Return x times `gate`: (batch, channels, 1, 1), or (batch, 1, 1, 1)."""
        return self._add("gate", [x, gate], [x.shape], flops=0)

    def dropout(self, x: Tensor, rate: float, rows: bool = False) -> Tensor:
        """Set a random share `rate` of the elements, or of whole rows (drop connect), to zero, and scale up the others.

        Outside training it returns x. The scaled mask is an input if `random_as_inputs`.
        """
        if not self.training or not rate:
            return x
        shape = (1,) * (len(x.shape) - 1) if rows else x.shape[1:]
        if self.random_as_inputs:
            mask = self._source("input", shape, values="kept", rate=rate)
            return self.gate(x, mask) if rows else self._add("mul", [x, mask], [x.shape], flops=0)
        return self._add("dropout", [x], [x.shape], {"rate": rate, "rows": rows}, flops=0)

    def blended(self, x: Tensor) -> Tensor:
        """The images mixed by the recipe's mixup and cutmix: share x + (1 - share) y, y being the batch rolled by rows.

        The shares are inputs: mixup's are (batch, 1, 1, 1), and cutmix's (batch, 1, height, width).
        """
        for kind in self.recipe.blends:
            pixels = x.shape[2:] if kind == "cutmix" else (1, 1)
            share = self._source("input", (1, *pixels), values="unit")
            # Cutmix takes the image two rows away, so that it does not cut mixup's pair into itself.
            shift = 2 if kind == "cutmix" and self.batch_size > 2 else 1
            x = self._add("blend", [x, share], [x.shape], {"shift": shift}, flops=0)
        return x

    # ---- the loss of image networks ---------------------------------------------------------------

    def cross_entropy(
        self, x: Tensor, labels: Tensor, on: float = 1.0, off: float = 0.0, shares: Union[Tensor, None] = None
    ) -> Tensor:
        """Softmax cross entropy with integer labels (batch,), averaged over the rows.

        on, off  the target of the labelled class and of each other class: label smoothing
        shares   (batch, labels): the weights of the row's own label and of the labels of the images mixed in, in the
                 order of `rolls`
        """
        shifts = [node.attrs["shift"] for node in self.nodes if node.op == "blend"] if shares else []
        inputs: List[Tensor] = [x, labels, *([shares] if shares else [])]
        attrs = {"on": on, "off": off, "rolls": rolls(shifts)}
        return self._add("cross_entropy", inputs, [()], attrs, flops=0)

    # ---- shared by several primitives ----------------------------------------------------------

    def _gate_weights(self, kind: str, features: int, hidden: int, bias: bool) -> List[Weight]:
        rows = GATES[kind] * hidden
        weights = [
            self._weight("weight_ih", (rows, features), hidden),
            self._weight("weight_hh", (rows, hidden), hidden),
        ]
        if bias:
            weights.append(self._weight("bias_ih", (rows,), hidden))
        if bias and kind == "gru":
            # Two biases differ only in a GRU: the reset gate multiplies the second one.
            weights.append(self._weight("bias_hh", (rows,), hidden))
        return weights

    def _recurrent(self, kind: str, x: Tensor, hidden: int, bias: bool) -> Tensor:
        batch, steps, features = x.shape
        weights = self._gate_weights(kind, features, hidden, bias)
        flops = 2 * batch * steps * GATES[kind] * hidden * (features + hidden)
        return self._add(kind, [x], [(batch, steps, hidden)], {"hidden": hidden}, weights, flops=flops)


def rolls(shifts: List[int]) -> List[int]:
    """The rows by which each label's image was rolled, if the batch was mixed once for each shift.

    No shift gives [0], one [0, s], and two [0, s, t, s + t].
    """
    totals = [0]
    for shift in shifts:
        totals += [total + shift for total in totals]
    return totals


def _window(
    sizes: Tuple[int, ...], kernel_size: int, stride: int, padding: Padding
) -> Tuple[List[Tuple[int, int]], List[int]]:
    """By axis: the pixels of padding before and after, and the pixels of the output."""
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

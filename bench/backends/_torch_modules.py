"""Graph to torch modules: a single node is the bare module, a chain nn.Sequential, else torch.fx.

Sequences are (time, batch, features) in here, which is what torch's recurrent layers take without
a copy; `bench/backends/torch.py` turns inputs and outputs.
"""

from __future__ import annotations

import operator
from typing import Any, Callable, Dict, List, Mapping, Tuple

import torch
from torch import fx, nn

from bench.graph import Graph, Node
from bench.step import Arrays

Parameters = Dict[str, nn.Parameter]


class Lowered:
    """A module, and which of its parameters holds which weight of the graph."""

    def __init__(self, graph: Graph, weights: Mapping[str, Any]) -> None:
        self.parameters: Parameters = {}
        nodes = {i: n for i, n in enumerate(graph.nodes) if i <= graph.output.node}
        self.module = self._module(graph, nodes)
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(torch.from_numpy(weights[name]))

    def _module(self, graph: Graph, nodes: Dict[int, Node]) -> nn.Module:
        work = [node for node in nodes.values() if node.op != "input"]
        chain = all(len(n.inputs) == 1 and n.inputs[0].node == i - 1 for i, n in nodes.items() if n in work)
        if not chain:
            return self._traced(graph, [graph.output])
        layers = [self._recurrent(run) if run[0].op in LAYERS else self._layer(run[0]) for run in _runs(work)]
        return layers[0] if len(layers) == 1 else nn.Sequential(*layers)

    def _traced(self, graph: Graph, ends: List[Any]) -> fx.GraphModule:
        modules: Dict[str, nn.Module] = {}
        traced = fx.Graph()
        values: Dict[int, Any] = {}
        last = max(end.node for end in ends)
        for index, node in enumerate(graph.nodes[: last + 1]):
            args = tuple(values[t.node] if t.output == 0 else values[t.node][t.output] for t in node.inputs)
            if node.op in ("input", "state", "slice"):
                values[index] = traced.placeholder(f"{node.op}{index}")
            elif node.op in FUNCTIONS:
                values[index] = FUNCTIONS[node.op](traced, node, args)
            else:
                modules[f"{node.op}{index}"] = self._layer(node)
                values[index] = traced.call_module(f"{node.op}{index}", args)
        results = tuple(values[end.node] for end in ends)
        traced.output(results if len(results) > 1 else results[0])
        return fx.GraphModule(modules, traced)

    def _layer(self, node: Node) -> nn.Module:
        layer: nn.Module
        bias = any(w.name.endswith("bias_ih") or w.name.endswith("bias") for w in node.weights)
        if node.op == "dense":
            layer = nn.Linear(node.inputs[0].shape[-1], node.shape[-1], bias=bias)
            self._hold(node, layer)
        elif node.op == "conv":
            layer = self._conv(node, bias)
        elif node.op in LAYERS:
            layer = self._recurrent([node])
        elif node.op in CELLS:
            layer = CELLS[node.op](node.inputs[0].shape[-1], node.shape[-1], bias=bias)
            self._hold(node, layer)
        elif node.op == "scan":
            layer = self._scan(node)
        elif node.op == "random":
            layer = Random(node.shape, node.attrs["values"])
        elif node.op == "fill":
            layer = Fill(node.shape, node.attrs["value"])
        else:
            layer = {"relu": nn.ReLU, "last": Last}[node.op]()
        return layer

    def _recurrent(self, run: List[Node]) -> nn.Module:
        """Layers of one kind and width on top of each other are one module of several layers."""
        first = run[0]
        layer: nn.Module = LAYERS[first.op](
            first.inputs[0].shape[-1], first.attrs["hidden"], num_layers=len(run), bias=len(first.weights) > 2
        )
        for depth, node in enumerate(run):
            for weight in node.weights:
                self.parameters[weight.name] = getattr(layer, f"{weight.name.rsplit('.', 1)[-1]}_l{depth}")
        self._freeze_spare_biases(layer, [weight.name for node in run for weight in node.weights])
        return layer

    def _conv(self, node: Node, bias: bool) -> nn.Module:
        (top, bottom), (left, right) = node.attrs["pads"]
        even = top == bottom and left == right
        conv = nn.Conv2d(
            node.inputs[0].shape[1],
            node.shape[1],
            node.weights[0].shape[2],
            stride=node.attrs["stride"],
            padding=(top, left) if even else 0,
            groups=node.attrs["groups"],
            bias=bias,
        )
        self._hold(node, conv)
        return conv if even else nn.Sequential(nn.ZeroPad2d((left, right, top, bottom)), conv)

    def _scan(self, node: Node) -> nn.Module:
        body, ends = node.attrs["body"], node.attrs["ends"]
        first = node.attrs["states"]
        inner = [n for n in body.nodes if n.op not in ("state", "slice")]
        if len(inner) == 1 and inner[0].op in CELLS:
            loop = LSTMLoop if inner[0].op == "lstm_cell" else CellLoop
            return loop(self._layer(inner[0]))
        return Scan(self._traced(body, ends), first)

    def _hold(self, node: Node, layer: nn.Module) -> None:
        for weight in node.weights:
            self.parameters[weight.name] = getattr(layer, weight.name.rsplit(".", 1)[-1])
        self._freeze_spare_biases(layer, [weight.name for weight in node.weights])

    def _freeze_spare_biases(self, layer: nn.Module, names: List[str]) -> None:
        held = {id(self.parameters[name]) for name in names}
        for parameter in layer.parameters():
            if id(parameter) not in held:
                # torch has two biases where the sum is all that counts: the second stays zero.
                nn.init.zeros_(parameter)
                parameter.requires_grad_(False)


def _runs(nodes: List[Node]) -> List[List[Node]]:
    """Consecutive recurrent layers of one kind, width and bias together; every other node alone."""
    runs: List[List[Node]] = []
    for node in nodes:
        kind = (node.op, node.attrs.get("hidden"), len(node.weights))
        before = runs[-1][0] if runs else None
        if before and node.op in LAYERS and kind == (before.op, before.attrs.get("hidden"), len(before.weights)):
            runs[-1].append(node)
        else:
            runs.append([node])
    return runs


class RNN(nn.RNN):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x)[0]


class LSTM(nn.LSTM):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x)[0]


class GRU(nn.GRU):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x)[0]


class Last(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[-1]


class Fill(nn.Module):
    """A constant, made once; it takes the module's type and device."""

    def __init__(self, shape: Tuple[int, ...], value: float) -> None:
        super().__init__()
        self.register_buffer("value", torch.full(shape, value))

    def forward(self) -> torch.Tensor:
        return self.value


class Random(nn.Module):
    """Fresh draws, (time, batch, features), of the module's type and on its device."""

    def __init__(self, shape: Tuple[int, ...], values: str) -> None:
        super().__init__()
        self.register_buffer("like", torch.empty(shape).transpose(0, 1).contiguous())
        self.draw = torch.randn_like if values == "normal" else torch.rand_like

    def forward(self) -> torch.Tensor:
        return self.draw(self.like)


class CellLoop(nn.Module):
    """nn.RNNCell or nn.GRUCell, called once a time step."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, h: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        trace = []
        for step in x:
            h = self.cell(step, h)
            trace.append(h)
        return torch.stack(trace)


class LSTMLoop(nn.Module):
    """nn.LSTMCell, called once a time step."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, h: torch.Tensor, c: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        trace = []
        for step in x:
            h, c = self.cell(step, (h, c))
            trace.append(h)
        return torch.stack(trace)


class Scan(nn.Module):
    """Any body, called once a time step."""

    def __init__(self, body: nn.Module, states: int) -> None:
        super().__init__()
        self.body = body
        self.states = states

    def forward(self, *args: torch.Tensor) -> torch.Tensor:
        states, trace = args[: self.states], []
        for slices in zip(*args[self.states :]):
            ends = self.body(*states, *slices)
            states = ends if isinstance(ends, tuple) else (ends,)
            trace.append(states[0])
        return torch.stack(trace)


def _affine(traced: fx.Graph, node: Node, args: Tuple[Any, ...]) -> Any:
    scaled = traced.call_function(operator.mul, (args[0], node.attrs["scale"]))
    return traced.call_function(operator.add, (scaled, node.attrs["shift"])) if node.attrs["shift"] else scaled


def _where_less(traced: fx.Graph, node: Node, args: Tuple[Any, ...]) -> Any:
    less = traced.call_function(operator.lt, args[:2])
    return traced.call_function(torch.where, (less, *args[2:]))


def _call(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda traced, node, args: traced.call_function(function, args)


FUNCTIONS: Dict[str, Callable[..., Any]] = {
    "add": _call(operator.add),
    "sub": _call(operator.sub),
    "mul": _call(operator.mul),
    "log": _call(torch.log),
    "affine": _affine,
    "where_less": _where_less,
}
LAYERS: Dict[str, Any] = {"rnn": RNN, "lstm": LSTM, "gru": GRU}
CELLS: Dict[str, Any] = {"rnn_cell": nn.RNNCell, "lstm_cell": nn.LSTMCell, "gru_cell": nn.GRUCell}


def loss(node: Node, output: torch.Tensor, labels: List[torch.Tensor]) -> torch.Tensor:
    """The loss of a batch, in fp32."""
    functional = nn.functional
    output = output.float()
    if node.op == "mean":
        return output.mean()
    if node.op == "softmax_cross_entropy":
        return functional.cross_entropy(output.flatten(0, -2), labels[0].flatten(0, -2))
    if node.op == "squared_error":
        return functional.mse_loss(output, labels[0])
    flat = output.flatten(1)
    if node.op == "flat_softmax_nll":
        flat = functional.log_softmax(flat, dim=1)
        return -flat.view_as(output).gather(2, labels[0].unsqueeze(2)).sum()
    return functional.mse_loss(flat.softmax(1), labels[0].flatten(1), reduction="sum")


def to_native(array: Any, sequence: bool) -> torch.Tensor:
    """A numpy array as a tensor; sequences become (time, batch, ...)."""
    tensor = torch.from_numpy(array)
    return tensor.transpose(0, 1).contiguous() if sequence else tensor


def arrays(parameters: Parameters) -> Arrays:
    return {name: p.detach().cpu().double().numpy() for name, p in parameters.items()}

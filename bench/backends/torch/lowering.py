"""A graph as torch modules: a single node is the bare module, a chain an nn.Sequential, anything else torch.fx.

Sequences are (time, batch, features), which torch's recurrent layers take without a copy. The programs transpose
the inputs and outputs.
"""

from __future__ import annotations

import contextlib
import operator
from typing import Any, Callable, Dict, Iterator, List, Mapping, Sequence, Tuple

import torch
from torch import fx, nn
from torch.utils.checkpoint import checkpoint

from bench.backends.torch import images
from bench.backends.torch.sequences import CELLS, LAYERS, CellLoop, Fill, Last, LSTMLoop, Random, Scan
from bench.graph import Graph, Node, Tensor
from bench.graph.recording import SOURCES
from bench.program import Arrays

Parameters = Dict[str, nn.Parameter]


class Lowered:
    """A module, and its parameters by the names of the graph's weights.

    plain   for a compiler that optimises by itself: every recurrent layer is a module of its own with biases, and no
            block is recomputed
    layers  if the graph is a chain: its modules, and the indexes of the nodes that each computes
    traced  otherwise: the modules of torch.fx that compute the graph, whose nodes have the index in `meta`
    """

    def __init__(self, graph: Graph, weights: Mapping[str, Any], plain: bool = False) -> None:
        self.plain = plain
        self.parameters: Parameters = {}
        self.graph = graph
        self.layers: List[Tuple[nn.Module, Tuple[int, ...]]] = []
        self.traced: List[fx.GraphModule] = []
        self.module = self._module(graph)
        self.load(weights)

    def load(self, weights: Mapping[str, Any]) -> None:
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(torch.from_numpy(weights[name]))

    def _module(self, graph: Graph) -> nn.Module:
        nodes = {i: n for i, n in enumerate(graph.nodes) if i <= graph.output.node}
        work = [node for node in nodes.values() if node.op != "input"]
        chain = all(len(n.inputs) == 1 and n.inputs[0].node == i - 1 for i, n in nodes.items() if n in work)
        if not chain or any(node.block for node in work):
            return self._traced(graph, nodes, [graph.output])
        runs = [[node] for node in work] if self.plain else _runs(work)
        layers = [self._recurrent(run) if run[0].op in LAYERS else self._layer(run[0]) for run in runs]
        first = len(nodes) - len(work)
        for layer, run in zip(layers, runs):
            self.layers.append((layer, tuple(range(first, first + len(run)))))
            first += len(run)
        return layers[0] if len(layers) == 1 else nn.Sequential(*layers)

    def _traced(self, graph: Graph, nodes: Dict[int, Node], ends: List[Tensor]) -> fx.GraphModule:
        """Some nodes of a graph as one module. Its arguments are what they read from other nodes, in order."""
        modules: Dict[str, nn.Module] = {}
        traced = fx.Graph()
        values: Dict[int, Any] = {}
        sources = [index for index, node in nodes.items() if node.op in SOURCES]
        for index in [*sources, *graph.inputs_of(nodes)]:
            values[index] = traced.placeholder(f"{graph.nodes[index].op}{index}")
        # The nodes of a single block are in a Recomputed already.
        whole = self.plain or len({node.block for node in nodes.values()}) == 1
        for segment in [{index: node} for index, node in nodes.items()] if whole else graph.recompute_segments(nodes):
            first = next(iter(segment))
            if len(segment) > 1:
                inputs, results = graph.inputs_of(segment), graph.results_of(segment)
                name = "block" + next(iter(segment.values())).block.replace(".", "_")
                modules[name] = Recomputed(self._traced(graph, segment, results))
                called = traced.call_module(name, tuple(values[index] for index in inputs))
                for position, result in enumerate(results):
                    values[result.node] = called[position] if len(results) > 1 else called
                continue
            node, count = segment[first], len(traced.nodes)
            args = tuple(values[t.node] if t.output == 0 else values[t.node][t.output] for t in node.inputs)
            if node.op in FUNCTIONS:
                values[first] = FUNCTIONS[node.op](traced, node, args)
            elif node.op not in SOURCES:
                modules[f"{node.op}{first}"] = self._layer(node, graph.nodes)
                values[first] = traced.call_module(f"{node.op}{first}", args)
            for made in list(traced.nodes)[count:]:
                made.meta["layerbench"] = first
        outputs = tuple(values[end.node] for end in ends)
        traced.output(outputs if len(outputs) > 1 else outputs[0])
        module = fx.GraphModule(modules, traced)
        if graph is self.graph:
            self.traced.append(module)
        return module

    def _layer(self, node: Node, nodes: Sequence[Node] = ()) -> nn.Module:
        layer: nn.Module
        if node.op in LAYERS:
            return self._recurrent([node])
        if node.op == "scan":
            return self._scan(node)
        if node.op in RELUS:
            return RELUS[node.op](inplace=bool(nodes) and images.in_place(list(nodes), node))
        if node.op in CELLS:
            layer = CELLS[node.op](node.inputs[0].shape[-1], node.shape[-1], bias=len(node.weights) > 2)
        else:
            layer = MODULES[node.op](node)
        self._hold(node, images.weighted(layer))
        return layer

    def _recurrent(self, run: List[Node]) -> nn.Module:
        """One module for stacked recurrent layers of the same kind and width."""
        first = run[0]
        layer: nn.Module = LAYERS[first.op](
            first.inputs[0].shape[-1],
            first.attrs["hidden"],
            num_layers=len(run),
            bias=self.plain or len(first.weights) > 2,
        )
        for depth, node in enumerate(run):
            for weight in node.weights:
                self.parameters[weight.name] = getattr(layer, f"{weight.name.rsplit('.', 1)[-1]}_l{depth}")
        self._freeze_unused_biases(layer, [weight.name for node in run for weight in node.weights])
        return layer

    def _scan(self, node: Node) -> nn.Module:
        body, ends = node.attrs["body"], node.attrs["ends"]
        operations = [n for n in body.nodes if n.op not in ("state", "slice")]
        if len(operations) == 1 and operations[0].op in CELLS:
            loop = LSTMLoop if operations[0].op == "lstm_cell" else CellLoop
            return loop(self._layer(operations[0]))
        return Scan(self._traced(body, dict(enumerate(body.nodes)), ends), node.attrs["states"])

    def _hold(self, node: Node, layer: nn.Module) -> None:
        for weight in node.weights:
            self.parameters[weight.name] = getattr(layer, weight.name.rsplit(".", 1)[-1])
        self._freeze_unused_biases(layer, [weight.name for weight in node.weights])

    def _freeze_unused_biases(self, layer: nn.Module, names: List[str]) -> None:
        used = {id(self.parameters[name]) for name in names}
        for parameter in layer.parameters():
            if id(parameter) not in used:
                # torch adds two biases where the graph has one: the second stays zero.
                nn.init.zeros_(parameter)
                parameter.requires_grad_(False)


class Recomputed(nn.Module):
    """A block whose activations are computed again in the backward pass: only its arguments are saved."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, *args: torch.Tensor) -> Any:
        if not (self.training and torch.is_grad_enabled()):
            return self.block(*args)
        return checkpoint(self.block, *args, use_reentrant=False, context_fn=self._contexts)

    def _contexts(self) -> Tuple[Any, Any]:
        return contextlib.nullcontext(), self._keep_statistics()

    @contextlib.contextmanager
    def _keep_statistics(self) -> Iterator[None]:
        """Leave the running statistics unchanged: the forward pass has updated them already."""
        norms = [module for module in self.block.modules() if isinstance(module, nn.BatchNorm2d)]
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.momentum = 0.0
        try:
            yield
        finally:
            for norm, momentum in zip(norms, momenta):
                norm.momentum = momentum


def _runs(nodes: List[Node]) -> List[List[Node]]:
    """Runs of consecutive recurrent layers of one kind, width and bias. Any other node is a run by itself."""
    runs: List[List[Node]] = []
    for node in nodes:
        kind = (node.op, node.attrs.get("hidden"), len(node.weights))
        previous = runs[-1][0] if runs else None
        if (
            previous
            and node.op in LAYERS
            and kind == (previous.op, previous.attrs.get("hidden"), len(previous.weights))
        ):
            runs[-1].append(node)
        else:
            runs.append([node])
    return runs


def _affine(traced: fx.Graph, node: Node, args: Tuple[Any, ...]) -> Any:
    scaled = traced.call_function(operator.mul, (args[0], node.attrs["scale"]))
    return traced.call_function(operator.add, (scaled, node.attrs["shift"])) if node.attrs["shift"] else scaled


def _where_less(traced: fx.Graph, node: Node, args: Tuple[Any, ...]) -> Any:
    less = traced.call_function(operator.lt, args[:2])
    return traced.call_function(torch.where, (less, *args[2:]))


def _call(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda traced, node, args: traced.call_function(function, args)


def _dense(node: Node) -> nn.Module:
    return nn.Linear(node.inputs[0].shape[-1], node.shape[-1], bias=len(node.weights) > 1)


# A module of a node. A weight of the graph is the module's parameter of that name.
MODULES: Dict[str, Callable[[Node], nn.Module]] = {
    **images.MODULES,
    "dense": _dense,
    "random": lambda node: Random(node.shape, node.attrs["values"]),
    "fill": lambda node: Fill(node.shape, node.attrs["value"]),
    "last": lambda node: Last(),
}
RELUS: Dict[str, Any] = {"relu": nn.ReLU, "relu6": nn.ReLU6}
FUNCTIONS: Dict[str, Callable[..., Any]] = {
    **images.FUNCTIONS,
    "add": _call(operator.add),
    "sub": _call(operator.sub),
    "mul": _call(operator.mul),
    "log": _call(torch.log),
    "affine": _affine,
    "where_less": _where_less,
}


def loss(node: Node, output: torch.Tensor, labels: List[torch.Tensor]) -> torch.Tensor:
    """The loss of a batch, in fp32."""
    functional = nn.functional
    output = output.float()
    if node.op == "mean":
        return output.mean()
    if node.op == "cross_entropy":
        return images.cross_entropy(node.attrs, output, *labels)
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

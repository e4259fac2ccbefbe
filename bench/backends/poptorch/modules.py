"""What PopTorch compiles: a module whose first dimension is the batch, with the loss inside."""

from __future__ import annotations

import contextlib
from typing import Any, Dict, Iterator, List, Mapping, Tuple

import torch
from torch import nn

from bench.backends.torch import lowering as modules
from bench.cases.recipe import Recipe
from bench.graph import Graph

# Of a norm: they stay in 32 bits where the weights do.
RUNNING = ("running_mean", "running_var")


class Whole(nn.Module):
    """Arrays of a batch to the output, with the loss where there is one. Sequences are turned in here: only the
    first dimension is cut into batches.

    ran   the type of the output, as PopTorch's tensors have it when it traces
    """

    def __init__(self, sdk: Any, model: nn.Module, graph: Graph, mode: str, compute: torch.dtype) -> None:
        super().__init__()
        self.sdk, self.model, self.graph, self.mode, self.compute = sdk, model, graph, mode, compute
        self.labels = labels_of(graph)
        self.overlap: Any = None
        # PopTorch traces a shallow copy.
        self.ran: Dict[str, str] = {}

    def forward(self, *arrays: torch.Tensor) -> Any:
        if self.overlap is not None:
            arrays = tuple(self.sdk.set_overlap_for_input(array, self.overlap) for array in arrays)
        named = dict(zip(self.graph.inputs, map(self._turned, self.graph.inputs, arrays)))
        output = self.model(*[self._number(array) for name, array in named.items() if name not in self.labels])
        self.ran["compute"] = str(output.dtype).replace("torch.", "")
        results = [output.transpose(0, 1) if output.dim() == 3 else output]
        if self.mode != "inference":
            loss = modules.loss(self.graph.nodes[self.graph.loss.node], output, [named[name] for name in self.labels])
            results.append(self.sdk.identity_loss(loss, reduction="none") if self.mode == "training" else loss)
        if self.overlap is not None:
            results = [self.sdk.set_overlap_for_output(result, self.overlap) for result in results]
        return tuple(results) if len(results) > 1 else results[0]

    def _turned(self, name: str, array: torch.Tensor) -> torch.Tensor:
        node = self.graph.inputs[name]
        sequence = len(node.shape) == 3 or (len(node.shape) == 2 and node.attrs["values"] == "classes")
        return array.transpose(0, 1) if sequence else array

    def _number(self, array: torch.Tensor) -> torch.Tensor:
        """Bytes become numbers here, on the device."""
        return array.to(self.compute) if array.dtype == torch.uint8 else array


class Cast(nn.Module):
    """A module with 32-bit weights that computes with 16-bit ones. In PopTorch an operation of both types is done
    in 32 bits, so all of them are cast."""

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.model, self.dtype = model, dtype

    def forward(self, *args: torch.Tensor) -> Any:
        with self._cast():
            return self.model(*args)

    @contextlib.contextmanager
    def _cast(self) -> Iterator[None]:
        held: List[Tuple[nn.Module, str, Any]] = []
        for module in self.model.modules():
            for own in (module._parameters, module._buffers):
                for name, tensor in list(own.items()):
                    if tensor is not None and tensor.dtype == torch.float32 and name not in RUNNING:
                        held.append((module, name, tensor))
                        del own[name]
                        # By its name: a recurrent layer has a list of its weights, which follows.
                        setattr(module, name, tensor.to(self.dtype))
        try:
            yield
        finally:
            for module, name, tensor in held:
                delattr(module, name)
                if isinstance(tensor, nn.Parameter):
                    setattr(module, name, tensor)
                else:
                    module._buffers[name] = tensor


def labels_of(graph: Graph) -> List[str]:
    """The inputs that the loss compares with."""
    if graph.loss.node < 0:
        return []
    return [f"input{tensor.node}" for tensor in graph.nodes[graph.loss.node].inputs[1:]]


def hold(model: nn.Module, dtype: torch.dtype) -> None:
    """Make all numbers of a model of one type. Its tensors stay the same objects, buffers too, which `half()`
    would replace."""
    for tensor in [*model.parameters(), *model.buffers()]:
        if tensor.is_floating_point():
            tensor.data = tensor.data.to(dtype)


def place(sdk: Any, model: nn.Module, graph: Graph, stage_of: Mapping[str, int]) -> List[int]:
    """Begin a block at the first layer of each stage; return the stages that have one."""
    begun: List[int] = []
    for block, layer in _layers(model, graph):
        stage = stage_of.get(block, 0)
        if stage not in begun:
            begun.append(stage)
            sdk.BeginBlock(layer, ipu_id=stage)
    return begun


def keep(sdk: Any, model: nn.Module, graph: Graph, recipe: Recipe) -> None:
    """Checkpoint what is not to be computed again: all of the blocks that the recipe leaves out, and the end of each
    other."""
    layers = _layers(model, graph)
    ends = {block: layer for block, layer in layers}
    for block, layer in layers:
        if not recipe.recomputes(block) or ends[block] is layer:
            layer.register_forward_hook(lambda module, args, output: sdk.recomputationCheckpoint(output))


def _layers(model: nn.Module, graph: Graph) -> List[Tuple[str, nn.Module]]:
    """The layers of a traced network in order, each with its block."""
    children = dict(model.named_children())
    named = [(node.block, f"{node.op}{index}") for index, node in enumerate(graph.nodes)]
    return [(block, children[name]) for block, name in named if name in children]

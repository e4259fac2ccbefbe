"""The module that PopTorch compiles. Its first dimension is the batch, and it computes the loss."""

from __future__ import annotations

import contextlib
from typing import Any, Dict, Iterator, List, Mapping, Tuple

import torch
from torch import nn

from bench.backends.torch import lowering as modules
from bench.backends.torch.images import StridedGroupNorm
from bench.backends.torch.sequences import Scan
from bench.cases.recipe import Recipe
from bench.graph import Graph

# The running statistics of a norm, which are in 32 bits if the weights are.
RUNNING = ("running_mean", "running_var")


class Whole(nn.Module):
    """A function of the inputs of a batch that returns the output, and the loss if there is one.

    PopTorch splits only the first dimension into batches, so sequences come as (batch, time, ...) and are transposed.

    dtypes   the type of the output under "compute", once PopTorch has traced the module
    """

    def __init__(self, sdk: Any, model: nn.Module, graph: Graph, mode: str, compute: torch.dtype) -> None:
        super().__init__()
        self.sdk, self.model, self.graph, self.mode, self.compute = sdk, model, graph, mode, compute
        self.labels = labels_of(graph)
        self.overlap: Any = None
        # A dictionary, because PopTorch traces a shallow copy of the module.
        self.dtypes: Dict[str, str] = {}

    def forward(self, *arrays: torch.Tensor) -> Any:
        if self.overlap is not None:
            arrays = tuple(self.sdk.set_overlap_for_input(array, self.overlap) for array in arrays)
        named = dict(zip(self.graph.inputs, map(self._time_first, self.graph.inputs, arrays)))
        output = self.model(*[self._real(array) for name, array in named.items() if name not in self.labels])
        self.dtypes["compute"] = str(output.dtype).replace("torch.", "")
        results = [output.transpose(0, 1) if output.dim() == 3 else output]
        if self.mode != "inference":
            loss = modules.loss(self.graph.nodes[self.graph.loss.node], output, [named[name] for name in self.labels])
            results.append(self.sdk.identity_loss(loss, reduction="none") if self.mode == "training" else loss)
        if self.overlap is not None:
            results = [self.sdk.set_overlap_for_output(result, self.overlap) for result in results]
        return tuple(results) if len(results) > 1 else results[0]

    def _time_first(self, name: str, array: torch.Tensor) -> torch.Tensor:
        node = self.graph.inputs[name]
        sequence = len(node.shape) == 3 or (len(node.shape) == 2 and node.attrs["values"] == "classes")
        return array.transpose(0, 1) if sequence else array

    def _real(self, array: torch.Tensor) -> torch.Tensor:
        """Convert bytes to real numbers, on the device."""
        return array.to(self.compute) if array.dtype == torch.uint8 else array


class DeviceGroupNorm(StridedGroupNorm):
    """A group norm with strided groups. On the device it is PopTorch's own operation, which has such groups if the
    session says so (`groupNormStridedChannelGrouping`)."""

    on_device = True

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.GroupNorm.forward(self, x) if self.on_device else super().forward(x)


class DeviceScan(Scan):
    """A scan as a loop on the device, which has no gradient. PopTorch would unroll a loop of Python over time."""

    sdk: Any = None

    def forward(self, *args: torch.Tensor) -> torch.Tensor:
        sdk, states, rows = self.sdk, list(args[: self.states]), args[self.states :]
        steps = rows[0].shape[0]

        def step(index: torch.Tensor, trace: torch.Tensor, *states: torch.Tensor) -> List[torch.Tensor]:
            slices = [sdk.dynamic_slice(row, 0, index, 1, 1).squeeze(0) for row in rows]
            ends = self.body(*states, *slices)
            ends = ends if isinstance(ends, tuple) else (ends,)
            return [index + 1, sdk.dynamic_update(trace, ends[0].unsqueeze(0), 0, index, 1), *ends]

        index = torch.zeros(1, dtype=torch.int32, device=rows[0].device)
        trace = rows[0].new_zeros((steps, *states[0].shape))
        traced: torch.Tensor = sdk.for_loop(steps, step, [index, trace, *states])[1]
        return traced


class Cast(nn.Module):
    """A module with 32-bit weights that computes with 16-bit ones.

    All weights are cast, because PopTorch computes an operation of both types in 32 bits.
    """

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
            for tensors in (module._parameters, module._buffers):
                for name, tensor in list(tensors.items()):
                    if tensor is not None and tensor.dtype == torch.float32 and name not in RUNNING:
                        held.append((module, name, tensor))
                        del tensors[name]
                        # setattr updates a recurrent layer's list of its weights as well.
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
    """The names of the inputs that are labels of the loss."""
    if graph.loss.node < 0:
        return []
    return [f"input{tensor.node}" for tensor in graph.nodes[graph.loss.node].inputs[1:]]


def hold(model: nn.Module, dtype: torch.dtype) -> None:
    """Convert a model's floating-point tensors to a type. They stay the same objects; `half()` would replace the
    buffers."""
    for tensor in [*model.parameters(), *model.buffers()]:
        if tensor.is_floating_point():
            tensor.data = tensor.data.to(dtype)


def take_device_norms(model: nn.Module) -> None:
    """Make strided group norms PopTorch's own operation."""
    for module in model.modules():
        if isinstance(module, StridedGroupNorm):
            module.__class__ = DeviceGroupNorm


def take_device_loops(sdk: Any, model: nn.Module) -> None:
    """Make scans loops of the device. Those of a single cell stay unrolled, as they are on other devices."""
    for module in model.modules():
        if type(module) is Scan:
            module.__class__ = DeviceScan
            module.sdk = sdk


def norms_on_device(model: nn.Module, on_device: bool) -> None:
    """Compute strided group norms as the device does, or on the host."""
    for module in model.modules():
        if isinstance(module, DeviceGroupNorm):
            module.on_device = on_device


def place(sdk: Any, model: nn.Module, graph: Graph, stage_of: Mapping[str, int]) -> List[int]:
    """Begin a PopTorch block at the first layer of each stage. Returns the stages that have a layer, in order."""
    placed: List[int] = []
    for block, layer in _layers(model, graph):
        stage = stage_of.get(block, 0)
        if stage not in placed:
            placed.append(stage)
            sdk.BeginBlock(layer, ipu_id=stage)
    return placed


def add_checkpoints(sdk: Any, model: nn.Module, graph: Graph, recipe: Recipe) -> None:
    """Checkpoint what is not recomputed: every layer of a block without recomputation, and the last one of the
    others."""
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

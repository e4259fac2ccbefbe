"""The primitives of image networks as torch modules and functions."""

from __future__ import annotations

import operator
from typing import Any, Callable, Dict, List

import torch
from torch import fx, nn

from bench.graph import Node

functional = nn.functional


def conv(node: Node) -> nn.Module:
    """An nn.Conv2d; after an nn.ZeroPad2d if the padding is asymmetric. `weighted(module)` returns the nn.Conv2d."""
    (top, bottom), (left, right) = node.attrs["pads"]
    symmetric = top == bottom and left == right
    layer = nn.Conv2d(
        node.inputs[0].shape[1],
        node.shape[1],
        node.weights[0].shape[2],
        stride=node.attrs["stride"],
        padding=(top, left) if symmetric else 0,
        groups=node.attrs["groups"],
        bias=len(node.weights) > 1,
    )
    return layer if symmetric else nn.Sequential(nn.ZeroPad2d((left, right, top, bottom)), layer)


def weighted(module: nn.Module) -> nn.Module:
    """The part of a module that has the weights of its node."""
    return module[-1] if isinstance(module, nn.Sequential) else module


def _batch_norm(node: Node) -> nn.Module:
    return nn.BatchNorm2d(node.shape[1], eps=node.attrs["eps"], momentum=node.attrs["momentum"])


class StridedGroupNorm(nn.GroupNorm):
    """A group norm with strided groups: channel c belongs to group c % groups."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows, channels, height, width = x.shape
        parts = x.view(rows, channels // self.num_groups, self.num_groups, height, width).transpose(1, 2)
        normed = functional.group_norm(parts.reshape(x.shape), self.num_groups, eps=self.eps)
        parts = normed.view(rows, self.num_groups, channels // self.num_groups, height, width).transpose(1, 2)
        return parts.reshape(x.shape) * self.weight[:, None, None] + self.bias[:, None, None]


def _group_norm(node: Node) -> nn.Module:
    kind = StridedGroupNorm if node.attrs["strided"] else nn.GroupNorm
    return kind(node.attrs["groups"], node.shape[1], eps=node.attrs["eps"])


def _max_pool(node: Node) -> nn.Module:
    (top, bottom), (left, right) = node.attrs["pads"]
    size, stride = node.attrs["kernel"], node.attrs["stride"]
    if top == bottom and left == right:
        return nn.MaxPool2d(size, stride, padding=(top, left))
    return nn.Sequential(nn.ConstantPad2d((left, right, top, bottom), -float("inf")), nn.MaxPool2d(size, stride))


class Normalise(nn.Module):
    """x * scale + shift for each channel. The result has the type of the buffers, also for bytes."""

    def __init__(self, scale: List[float], shift: List[float]) -> None:
        super().__init__()
        self.register_buffer("scale", torch.tensor(scale)[:, None, None])
        self.register_buffer("shift", torch.tensor(shift)[:, None, None])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scale + self.shift


class DropRows(nn.Module):
    """Drop connect: in training it sets whole rows of a batch to zero, and scales the other rows up."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return x
        kept = x.new_empty((x.shape[0], 1, 1, 1)).bernoulli_(1 - self.rate)
        return x * (kept / (1 - self.rate))


def _dropout(node: Node) -> nn.Module:
    rate = node.attrs["rate"]
    return DropRows(rate) if node.attrs["rows"] else nn.Dropout(rate)


def in_place(nodes: List[Node], node: Node) -> bool:
    """Whether a relu may overwrite its input: an operation of the same block computed it, and nothing else reads it."""
    source = node.inputs[0].node
    readers = sum(tensor.node == source for reader in nodes for tensor in reader.inputs)
    return readers == 1 and nodes[source].block == node.block and nodes[source].inputs != ()


class Blend(nn.Module):
    """In training, blends each image with the image `shift` rows before it in the batch."""

    def __init__(self, shift: int) -> None:
        super().__init__()
        self.shift = shift

    def forward(self, x: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
        return share * x + (1 - share) * x.roll(self.shift, 0) if self.training else x


def _pad_channels(traced: fx.Graph, node: Node, args: Any) -> Any:
    added = node.shape[1] - node.inputs[0].shape[1]
    return traced.call_function(functional.pad, (args[0], (0, 0, 0, 0, 0, added)))


def cross_entropy(attrs: Dict[str, Any], output: torch.Tensor, labels: torch.Tensor, *shares: Any) -> torch.Tensor:
    """The mean cross entropy with smoothed labels. With `shares`, (batch, targets), the labels are mixed."""
    on, off = attrs["on"], attrs["off"]
    if not shares and (on, off) == (1.0, 0.0):
        return functional.cross_entropy(output, labels)
    logs = functional.log_softmax(output, dim=1)
    columns = [logs.gather(1, labels.roll(roll)[:, None]) for roll in attrs["rolls"]]
    own = (torch.cat(columns, dim=1) * shares[0]).sum(1) if shares else columns[0][:, 0]
    return -((on - off) * own + off * logs.sum(1)).mean()


MODULES: Dict[str, Callable[[Node], nn.Module]] = {
    "conv": conv,
    "batch_norm": _batch_norm,
    "group_norm": _group_norm,
    "max_pool": _max_pool,
    "normalise": lambda node: Normalise(node.attrs["scale"], node.attrs["shift"]),
    "dropout": _dropout,
    "blend": lambda node: Blend(node.attrs["shift"]),
    "sigmoid": lambda node: nn.Sigmoid(),
    "silu": lambda node: nn.SiLU(),
    "hardsigmoid": lambda node: nn.Hardsigmoid(),
    "hardswish": lambda node: nn.Hardswish(),
}
FUNCTIONS: Dict[str, Callable[..., Any]] = {
    "gate": lambda traced, node, args: traced.call_function(operator.mul, args),
    "global_mean": lambda traced, node, args: traced.call_method("mean", (args[0], (2, 3))),
    "pooled": lambda traced, node, args: traced.call_method("mean", (args[0], (2, 3), True)),
    "pad_channels": _pad_channels,
}

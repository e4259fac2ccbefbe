"""Shared by the families: the dimensions of an image network, its norms and its squeeze and excitation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict

from bench.cases.dimension import Dimension
from bench.graph import Graph, Tensor
from bench.graph.primitives import Padding

# In the order in which they name a size. A family's own dimensions follow image_size.
DIMENSIONS: Dict[str, Dimension] = {
    "image_size": Dimension("i", "pixels on a side of a network's input image", maximum=4096),
    "norm_type": Dimension(
        "", "the norms of a network", choices=("batch", "group", "none"), aliases={"bn": "batch", "gn": "group"}
    ),
    "norm_num_groups": Dimension("n", "groups of channels in a group norm", default=0, maximum=4096),
    "enable_fast_groupnorm": Dimension("fast", "group norm over strided channels", choices=("off", "on")),
    "norm_eps": Dimension(
        "eps",
        "what a norm adds to the variance; family: the value of the network's authors",
        choices=("family", "1e-5", "1e-3"),
    ),
    "padding_rule": Dimension("", "equal padding on every side, or TensorFlow's SAME", choices=("symmetric", "same")),
    "input_image_padding": Dimension("pad4", "a fourth channel of zeros before the first layer", choices=("off", "on")),
    "eight_bit_io": Dimension("uint8", "images enter as bytes and are normalised on the device", choices=("off", "on")),
    "normalization_location": Dimension(
        "at", "where images are normalised", choices=("host", "device", "none"), aliases={"ipu": "device"}
    ),
    "classes": Dimension("c", "classes of a network", default=0, maximum=10**6),
}


@dataclass(frozen=True)
class Style:
    """How a network normalises and pads: `norm` adds a norm, and `pad` gives the padding of a kernel size."""

    net: Graph
    norm_type: str
    groups: int
    fast: bool
    eps: float
    momentum: float
    same: bool

    def norm(self, x: Tensor, name: str, last: bool = False) -> Tensor:
        if self.norm_type == "batch":
            return self.net.batch_norm(x, eps=self.eps, momentum=self.momentum, last=last, name=name)
        if self.norm_type == "group":
            return self.net.group_norm(x, self.groups, eps=self.eps, strided=self.fast, last=last, name=name)
        return x

    def pad(self, kernel_size: int) -> Padding:
        return "same" if self.same else kernel_size // 2

    def conv(self, x: Tensor, filters: int, kernel_size: int, name: str, *, stride: int = 1, groups: int = 1) -> Tensor:
        """Add a convolution. It has a bias only in a network without norms."""
        return self.net.conv(
            x,
            filters,
            kernel_size,
            stride=stride,
            padding=self.pad(kernel_size),
            groups=groups,
            bias=self.norm_type == "none",
            name=name,
        )


def divisible(width: float, by: int = 8) -> int:
    """The multiple of `by` nearest to `width`, but not more than a tenth below it."""
    nearest = max(by, int(width + by / 2) // by * by)
    return nearest if nearest >= 0.9 * width else nearest + by


def squeeze_excite(net: Graph, x: Tensor, width: int, name: str, activation: str, gate: str) -> Tensor:
    """Scale each channel by a gate, which two layers (the first of `width` units) compute from the channels' means."""
    y = net.activation(net.conv(net.pooled(x), width, 1, name=f"{name}.fc1"), activation)
    y = net.activation(net.conv(y, x.shape[1], 1, name=f"{name}.fc2"), gate)
    return net.gate(x, y)

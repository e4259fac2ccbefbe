"""What the families share: the dimensions of an image network, and its norms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict

from bench.cases.dimension import Dimension
from bench.graph import Graph, Tensor
from bench.graph.primitives import Padding

# In the order in which they name a size; those of a family alone stand behind image_size.
DIMENSIONS: Dict[str, Dimension] = {
    "image_size": Dimension("i", "pixels on a side of the image that a network sees", maximum=4096),
    "norm_type": Dimension(
        "", "the norms of a network", choices=("batch", "group", "none"), aliases={"bn": "batch", "gn": "group"}
    ),
    "norm_num_groups": Dimension("n", "groups of channels in a group norm", default=0, maximum=4096),
    "enable_fast_groupnorm": Dimension("fast", "group norm over strided channels", choices=("off", "on")),
    "norm_eps": Dimension(
        "eps",
        "what a norm adds to the variance; family: what the network's authors took",
        choices=("family", "1e-5", "1e-3"),
    ),
    "padding_rule": Dimension("", "pixels on every side, or TensorFlow's SAME", choices=("symmetric", "same")),
    "input_image_padding": Dimension("pad4", "a fourth channel of zeros before the first layer", choices=("off", "on")),
    "eight_bit_io": Dimension("uint8", "images enter as bytes and are normalised on the device", choices=("off", "on")),
    "normalization_location": Dimension(
        "at", "where images are normalised", choices=("host", "device", "none"), aliases={"ipu": "device"}
    ),
    "classes": Dimension("c", "classes that a network tells apart", default=0, maximum=10**6),
}


@dataclass(frozen=True)
class Style:
    """How a network normalises and pads: `norm(x, name)` adds the norm, `pad(kernel_size)` says how."""

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
        """A convolution without a bias, since a norm follows; with one where there are no norms."""
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
    found = max(by, int(width + by / 2) // by * by)
    return found if found >= 0.9 * width else found + by


def squeeze_excite(net: Graph, x: Tensor, width: int, name: str, activation: str, gate: str) -> Tensor:
    """Scale each channel by a gate that is computed from the means of all channels, by way of `width` numbers."""
    y = net.activation(net.conv(net.pooled(x), width, 1, name=f"{name}.fc1"), activation)
    y = net.activation(net.conv(y, x.shape[1], 1, name=f"{name}.fc2"), gate)
    return net.gate(x, y)

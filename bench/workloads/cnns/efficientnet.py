"""EfficientNet: inverted residuals with squeeze and excitation, scaled in width, depth and image size.

Shapes   in (batch, 3, image_size, image_size), out (batch, classes)
Item     one image
Source   Tan and Le 2019. `group_dim` is the number of channels in a group of the spatial convolution; 1 is depthwise
         (Masters et al. 2021: 16, with expand_ratio 4). Norms as in Graphcore's programs: eps 1e-3. The squeezed
         width is a quarter of the block's input. Weights have torchvision's names
"""

from __future__ import annotations

import math

from bench.cases.dimension import FILTERS_PER_GROUP, Dimension
from bench.graph import Graph, Tensor
from bench.workloads.cnns import _parts
from bench.workloads.cnns._parts import Style, divisible, squeeze_excite

EPS, MOMENTUM, GROUPS = 1e-3, 0.01, 4
DIMENSIONS = {
    **{"image_size": _parts.DIMENSIONS["image_size"]},
    "group_dim": FILTERS_PER_GROUP.with_default(1),
    "expand_ratio": Dimension("e", "inner width of a block, in widths of its input", default=6, maximum=64),
    **_parts.DIMENSIONS,
}
# The probability that training drops the last residual block for an item; earlier blocks have less, by depth.
DROP_CONNECT = 0.2
# expansion (0: expand_ratio), kernel, stride, width, blocks
STAGES = (
    (1, 3, 1, 16, 1),
    (0, 3, 2, 24, 2),
    (0, 5, 2, 40, 2),
    (0, 3, 2, 80, 3),
    (0, 5, 1, 112, 3),
    (0, 5, 2, 192, 4),
    (0, 3, 1, 320, 1),
)


def _scaled(width: float, depth: float, dropout: float, image_size: int) -> dict:  # type: ignore[type-arg]
    return {"width": width, "depth": depth, "dropout": dropout, "image_size": image_size}


MODELS = {
    "efficientnet_b0": _scaled(1.0, 1.0, 0.2, 224),
    "efficientnet_b1": _scaled(1.0, 1.1, 0.2, 240),
    "efficientnet_b2": _scaled(1.1, 1.2, 0.3, 260),
    "efficientnet_b3": _scaled(1.2, 1.4, 0.3, 300),
    "efficientnet_b4": _scaled(1.4, 1.8, 0.4, 380),
    "efficientnet_b5": _scaled(1.6, 2.2, 0.4, 456),
    "efficientnet_b6": _scaled(1.8, 2.6, 0.5, 528),
    "efficientnet_b7": _scaled(2.0, 3.1, 0.5, 600),
}


def build(
    net: Graph,
    x: Tensor,
    style: Style,
    *,
    classes: int,
    width: float,
    depth: float,
    dropout: float,
    group_dim: int,
    expand_ratio: int,
) -> Tensor:
    """Add the network to `net`, with the image `x` as input, and return the logits."""
    with net.in_block("features.0"):
        x = style.norm(style.conv(x, divisible(32 * width), 3, "features.0.0", stride=2), "features.0.1")
        x = net.activation(x, "silu")
    depths = [math.ceil(blocks * depth) for *_, blocks in STAGES]
    done = 0
    for stage, (expand, kernel, stride, filters, _) in enumerate(STAGES, start=1):
        for index in range(depths[stage - 1]):
            name = f"features.{stage}.{index}"
            with net.in_block(name):
                block = _Block(net, style, f"{name}.block", group_dim, DROP_CONNECT * done / sum(depths))
                inner = x.shape[1] * (expand or expand_ratio)
                x = block.add(x, inner, divisible(filters * width), kernel, 1 if index else stride)
            done += 1
    with net.in_block("head"):
        x = style.norm(style.conv(x, divisible(1280 * width), 1, "features.8.0"), "features.8.1")
        x = net.global_mean(net.activation(x, "silu"))
        return net.dense(net.dropout(x, dropout), classes, name="classifier.1")


class _Block:
    """One inverted residual block."""

    def __init__(self, net: Graph, style: Style, name: str, group_dim: int, drop: float) -> None:
        self.net, self.style, self.name, self.group_dim, self.drop = net, style, name, group_dim, drop

    def add(self, x: Tensor, inner: int, width: int, kernel: int, stride: int) -> Tensor:
        net, style, name = self.net, self.style, self.name
        y, part = x, 0
        if inner != x.shape[1]:
            y = style.norm(style.conv(y, inner, 1, f"{name}.0.0"), f"{name}.0.1")
            y, part = net.activation(y, "silu"), 1
        y = style.conv(y, inner, kernel, f"{name}.{part}.0", stride=stride, groups=_groups(inner, self.group_dim))
        y = net.activation(style.norm(y, f"{name}.{part}.1"), "silu")
        y = squeeze_excite(net, y, max(1, x.shape[1] // 4), f"{name}.{part + 1}", "silu", "sigmoid")
        same = stride == 1 and x.shape[1] == width
        y = style.norm(style.conv(y, width, 1, f"{name}.{part + 2}.0"), f"{name}.{part + 2}.1", last=same)
        return net.add(net.dropout(y, self.drop, rows=True), x) if same else y


def _groups(width: int, group_dim: int) -> int:
    """The largest number of groups, of at least `group_dim` channels, that divides the width.

    56 channels at 16 make two groups, since three do not divide them.
    """
    groups = max(width // group_dim, 1)
    while width % groups:
        groups -= 1
    return groups

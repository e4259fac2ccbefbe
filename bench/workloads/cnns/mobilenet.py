"""MobileNet v2 and v3: inverted residuals around depthwise convolutions.

Shapes   in (batch, 3, image_size, image_size), out (batch, classes)
Item     one image
Source   Sandler et al. 2018 (v2), Howard et al. 2019 (v3). v3 is that of Graphcore's PyTorch programs (SDK 2.4):
         1280 hidden units in the small one as well, without a bias (torchvision: 1024 in the small one, and a
         bias). Weights have torchvision's names
"""

from __future__ import annotations

from typing import Any, Tuple

from bench.graph import Graph, Tensor
from bench.workloads.cnns._parts import DIMENSIONS, Style, divisible, squeeze_excite

__all__ = ["DIMENSIONS", "MODELS", "build"]

EPS, MOMENTUM, GROUPS, DROPOUT = 1e-5, 0.1, 4, 0.2
# kernel, inner width, width, squeeze-excite, activation, stride
_LARGE = (
    (3, 16, 16, False, "relu", 1),
    (3, 64, 24, False, "relu", 2),
    (3, 72, 24, False, "relu", 1),
    (5, 72, 40, True, "relu", 2),
    (5, 120, 40, True, "relu", 1),
    (5, 120, 40, True, "relu", 1),
    (3, 240, 80, False, "hardswish", 2),
    (3, 200, 80, False, "hardswish", 1),
    (3, 184, 80, False, "hardswish", 1),
    (3, 184, 80, False, "hardswish", 1),
    (3, 480, 112, True, "hardswish", 1),
    (3, 672, 112, True, "hardswish", 1),
    (5, 672, 160, True, "hardswish", 2),
    (5, 960, 160, True, "hardswish", 1),
    (5, 960, 160, True, "hardswish", 1),
)
_SMALL = (
    (3, 16, 16, True, "relu", 2),
    (3, 72, 24, False, "relu", 2),
    (3, 88, 24, False, "relu", 1),
    (5, 96, 40, True, "hardswish", 2),
    (5, 240, 40, True, "hardswish", 1),
    (5, 240, 40, True, "hardswish", 1),
    (5, 120, 48, True, "hardswish", 1),
    (5, 144, 48, True, "hardswish", 1),
    (5, 288, 96, True, "hardswish", 2),
    (5, 576, 96, True, "hardswish", 1),
    (5, 576, 96, True, "hardswish", 1),
)
# expansion, width, blocks, stride
_V2 = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
MODELS = {
    "mobilenet_v2": {"version": 2, "rows": _V2},
    "mobilenet_v3_small": {"version": 3, "rows": _SMALL, "eps": 1e-3, "momentum": 0.01},
    "mobilenet_v3_large": {"version": 3, "rows": _LARGE, "eps": 1e-3, "momentum": 0.01},
}


def build(
    net: Graph, x: Tensor, style: Style, *, classes: int, version: int, rows: Tuple[Tuple[Any, ...], ...]
) -> Tensor:
    """Add the network to `net`, with the image `x` as input, and return the logits."""
    return (_v2 if version == 2 else _v3)(net, x, style, classes, rows)


def _v2(net: Graph, x: Tensor, style: Style, classes: int, rows: Tuple[Tuple[Any, ...], ...]) -> Tensor:
    x = _stem(net, x, style, 32, "relu6")
    index = 0
    for expand, width, depth, stride in rows:
        for block in range(depth):
            index += 1
            name = f"features.{index}"
            with net.in_block(name):
                x = _inverted(net, x, style, f"{name}.conv", expand, width, 1 if block else stride)
    with net.in_block("head"):
        x = style.norm(style.conv(x, 1280, 1, f"features.{index + 1}.0"), f"features.{index + 1}.1")
        x = net.global_mean(net.activation(x, "relu6"))
        return net.dense(net.dropout(x, DROPOUT), classes, name="classifier.1")


def _inverted(net: Graph, x: Tensor, style: Style, name: str, expand: int, width: int, stride: int) -> Tensor:
    y, inner, part = x, x.shape[1] * expand, 0
    if expand != 1:
        y = style.norm(style.conv(y, inner, 1, f"{name}.0.0"), f"{name}.0.1")
        y, part = net.activation(y, "relu6"), 1
    y = style.conv(y, inner, 3, f"{name}.{part}.0", stride=stride, groups=inner)
    y = net.activation(style.norm(y, f"{name}.{part}.1"), "relu6")
    same = stride == 1 and x.shape[1] == width
    y = style.norm(style.conv(y, width, 1, f"{name}.{part + 1}"), f"{name}.{part + 2}", last=same)
    return net.add(y, x) if same else y


def _v3(net: Graph, x: Tensor, style: Style, classes: int, rows: Tuple[Tuple[Any, ...], ...]) -> Tensor:
    x = _stem(net, x, style, 16, "hardswish")
    for index, row in enumerate(rows):
        with net.in_block(f"features.{index + 1}"):
            x = _v3_block(net, x, style, f"features.{index + 1}.block", *row)
    with net.in_block("head"):
        name = f"features.{len(rows) + 1}"
        x = style.norm(style.conv(x, 6 * x.shape[1], 1, f"{name}.0"), f"{name}.1")
        x = net.global_mean(net.activation(x, "hardswish"))
        x = net.activation(net.dense(x, 1280, bias=False, name="classifier.0"), "hardswish")
        return net.dense(net.dropout(x, DROPOUT), classes, name="classifier.3")


def _v3_block(
    net: Graph,
    x: Tensor,
    style: Style,
    name: str,
    kernel: int,
    inner: int,
    width: int,
    squeeze: bool,
    activation: str,
    stride: int,
) -> Tensor:
    y, part = x, 0
    if inner != x.shape[1]:
        y = style.norm(style.conv(y, inner, 1, f"{name}.0.0"), f"{name}.0.1")
        y, part = net.activation(y, activation), 1
    y = style.conv(y, inner, kernel, f"{name}.{part}.0", stride=stride, groups=inner)
    y, part = net.activation(style.norm(y, f"{name}.{part}.1"), activation), part + 1
    if squeeze:
        y = squeeze_excite(net, y, divisible(inner / 4), f"{name}.{part}", "relu", "hardsigmoid")
        part += 1
    same = stride == 1 and x.shape[1] == width
    y = style.norm(style.conv(y, width, 1, f"{name}.{part}.0"), f"{name}.{part}.1", last=same)
    return net.add(y, x) if same else y


def _stem(net: Graph, x: Tensor, style: Style, width: int, activation: str) -> Tensor:
    with net.in_block("features.0"):
        x = style.norm(style.conv(x, width, 3, "features.0.0", stride=2), "features.0.1")
        return net.activation(x, activation)

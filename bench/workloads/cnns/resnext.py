"""ResNeXt: ResNet's bottlenecks with the 3x3 convolution in groups, `32x4d` meaning 32 groups of 4 channels.

Shapes   in (batch, 3, image_size, image_size), out (batch, classes)
Item     one image
Source   Xie et al. 2016. ResNeXt-101 is 32x4d in Graphcore's TensorFlow programs (44.2 M weights), and 32x8d in
         torchvision and Graphcore's PyTorch programs (88.8 M). resnext29_32x4d is the CIFAR form of these
"""

from __future__ import annotations

from typing import Sequence

from bench.graph import Graph, Tensor
from bench.workloads.cnns._parts import DIMENSIONS, Style
from bench.workloads.cnns.resnet import EPS, GROUPS, MOMENTUM, residual

__all__ = ["DIMENSIONS", "EPS", "GROUPS", "MODELS", "MOMENTUM", "build"]

DROPOUT = 0.0
MODELS = {
    "resnext14_32x4d": {"depths": (1, 1, 1, 1), "group_width": 4},
    "resnext50_32x4d": {"depths": (3, 4, 6, 3), "group_width": 4},
    "resnext101_32x4d": {"depths": (3, 4, 23, 3), "group_width": 4},
    "resnext101_32x8d": {"depths": (3, 4, 23, 3), "group_width": 8},
    "resnext29_32x4d": {"depths": (3, 3, 3), "group_width": 4, "image_size": 32, "classes": 10},
}


def build(net: Graph, x: Tensor, style: Style, *, classes: int, depths: Sequence[int], group_width: int) -> Tensor:
    """Add the network to `net`, with the image `x` as input, and return the logits."""
    return residual(net, x, style, classes=classes, depths=depths, bottleneck=True, groups=32, group_width=group_width)

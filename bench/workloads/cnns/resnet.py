"""ResNet v1.5: residual blocks of 3x3 convolutions, or bottlenecks whose 3x3 convolution has the stride.

Shapes   in (batch, 3, image_size, image_size), out (batch, classes)
Item     one image
Source   He et al. 2015, with the stride in the 3x3 convolution as NVIDIA and torchvision have it (v1.5). The CIFAR
         forms are also of He et al.: 6n + 2 layers of 16, 32 and 64 channels. Weights have torchvision's names
"""

from __future__ import annotations

from typing import Sequence

from bench.graph import Graph, Tensor
from bench.workloads.cnns._parts import DIMENSIONS, Style

__all__ = ["DIMENSIONS", "MODELS", "build", "residual"]

EPS, MOMENTUM, GROUPS, DROPOUT = 1e-5, 0.1, 32, 0.0
_CIFAR = {"base": 16, "image_size": 32, "classes": 10, "norm_num_groups": 8}
MODELS = {
    "resnet18": {"depths": (2, 2, 2, 2), "bottleneck": False},
    "resnet34": {"depths": (3, 4, 6, 3), "bottleneck": False},
    "resnet50": {"depths": (3, 4, 6, 3), "bottleneck": True},
    "resnet101": {"depths": (3, 4, 23, 3), "bottleneck": True},
    "resnet152": {"depths": (3, 8, 36, 3), "bottleneck": True},
    "resnet8": {"depths": (1, 1, 1), "bottleneck": False, **_CIFAR},
    "resnet20": {"depths": (3, 3, 3), "bottleneck": False, **_CIFAR},
}


def build(
    net: Graph, x: Tensor, style: Style, *, classes: int, depths: Sequence[int], bottleneck: bool, base: int = 64
) -> Tensor:
    """Add the network to `net`, with the image `x` as input, and return the logits."""
    return residual(net, x, style, classes=classes, depths=depths, bottleneck=bottleneck, base=base)


def residual(
    net: Graph,
    x: Tensor,
    style: Style,
    *,
    classes: int,
    depths: Sequence[int],
    bottleneck: bool,
    groups: int = 1,
    group_width: int = 64,
    base: int = 64,
) -> Tensor:
    """Add a ResNet or a ResNeXt to `net` and return the logits. Three stages are the CIFAR form.

    group_width   channels of a group in the first stage's 3x3 convolutions
    base          channels of the first stage
    """
    cifar = len(depths) == 3
    with net.in_block("conv1"):
        x = style.conv(x, base, 3 if cifar else 7, "conv1", stride=1 if cifar else 2)
        x = net.relu(style.norm(x, "bn1"))
        if not cifar:
            x = net.max_pool(x, 3, stride=2, padding=style.pad(3))
    for stage, depth in enumerate(depths):
        for index in range(depth):
            name = f"layer{stage + 1}.{index}"
            stride = 2 if stage and not index else 1
            with net.in_block(name):
                width = base * 2**stage
                if bottleneck:
                    inner = width * group_width // 64 * groups
                    x = _bottleneck(net, x, style, name, width * 4, inner, stride, groups)
                else:
                    x = _basic(net, x, style, name, width, stride)
    with net.in_block("fc"):
        return net.dense(net.global_mean(x), classes, name="fc")


def _basic(net: Graph, x: Tensor, style: Style, name: str, width: int, stride: int) -> Tensor:
    y = style.conv(x, width, 3, f"{name}.conv1", stride=stride)
    y = net.relu(style.norm(y, f"{name}.bn1"))
    y = style.norm(style.conv(y, width, 3, f"{name}.conv2"), f"{name}.bn2", last=True)
    return net.relu(net.add(y, _shortcut(x, y, style, name, stride)))


def _bottleneck(
    net: Graph, x: Tensor, style: Style, name: str, width: int, inner: int, stride: int, groups: int
) -> Tensor:
    y = net.relu(style.norm(style.conv(x, inner, 1, f"{name}.conv1"), f"{name}.bn1"))
    y = style.conv(y, inner, 3, f"{name}.conv2", stride=stride, groups=groups)
    y = net.relu(style.norm(y, f"{name}.bn2"))
    y = style.norm(style.conv(y, width, 1, f"{name}.conv3"), f"{name}.bn3", last=True)
    return net.relu(net.add(y, _shortcut(x, y, style, name, stride)))


def _shortcut(x: Tensor, y: Tensor, style: Style, name: str, stride: int) -> Tensor:
    if x.shape == y.shape:
        return x
    x = style.conv(x, y.shape[1], 1, f"{name}.downsample.0", stride=stride)
    return style.norm(x, f"{name}.downsample.1")

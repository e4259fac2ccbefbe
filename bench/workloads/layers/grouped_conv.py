"""A chain of grouped convolutions, each with the padding that gives ceil(size / stride) pixels.

Shapes   in (batch, filter_in, input_size, input_size), out (batch, filter_out, side, side)
Item     one image through the whole chain (the original program counted each convolution as one)
Source   Graphcore's TensorFlow kernel benchmarks, SDK 1.2 to 3.0: grouped_conv.py and its tests.
         `group_dim` is the number of filters in a group, so 1 is depthwise. As in the original, all
         kernels are as deep as the first, and this sets the groups of the later convolutions
"""

from __future__ import annotations

from bench.cases.dimension import FILTER_IN, FILTER_OUT, FILTERS_PER_GROUP, INPUT_SIZE, KERNEL_SIZE, STRIDE, Dimension
from bench.graph import Graph, Tensor

ITEM = "image"
DIMENSIONS = {
    "filter_in": FILTER_IN,
    "filter_out": FILTER_OUT,
    "kernel_size": KERNEL_SIZE,
    "stride": STRIDE,
    "input_size": INPUT_SIZE,
    "block_repeats": Dimension("r", "convolutions in the chain", maximum=1000),
    "group_dim": FILTERS_PER_GROUP,
}
_DEFAULT = {
    "filter_in": 64,
    "filter_out": 64,
    "kernel_size": 3,
    "stride": 1,
    "input_size": 56,
    "block_repeats": 10,
    "group_dim": 1,
}
SIZES = (
    _DEFAULT,
    {**_DEFAULT, "block_repeats": 20, "group_dim": 8},
    {**_DEFAULT, "input_size": 112, "stride": 3, "filter_in": 32, "filter_out": 16},
)
TINY = {
    "filter_in": 8,
    "filter_out": 4,
    "kernel_size": 3,
    "stride": 2,
    "input_size": 9,
    "block_repeats": 2,
    "group_dim": 1,
}
LEARNING_RATE = 1e-30


def program_items(*, batch_size: int, block_repeats: int, **size: int) -> int:
    """Items in one batch as the original program counts them: each convolution of each image."""
    return batch_size * block_repeats


def build(
    net: Graph,
    *,
    filter_in: int,
    filter_out: int,
    kernel_size: int,
    stride: int,
    input_size: int,
    block_repeats: int,
    group_dim: int,
) -> Tensor:
    """Add the chain to `net` and return its output."""
    if filter_out % group_dim:
        raise ValueError(f"group_dim={group_dim} must divide filter_out={filter_out}")
    first_groups = filter_out // group_dim
    if filter_in % first_groups:
        raise ValueError(f"filter_out / group_dim = {first_groups} groups must divide filter_in={filter_in}")
    depth = filter_in // first_groups
    if block_repeats > 1 and filter_out % depth:
        raise ValueError(
            f"the kernels are filter_in / groups = {depth} deep, which must divide filter_out={filter_out}"
        )
    x = net.input(filter_in, input_size, input_size)
    for index in range(block_repeats):
        groups = x.shape[1] // depth
        # A name marks a deep network: its weights are scaled so that the signal, and the gradient, keep their size.
        name = f"conv{index}"
        x = net.conv(x, filter_out, kernel_size, stride=stride, padding="same", groups=groups, bias=False, name=name)
    return x


def loss(net: Graph, output: Tensor, **size: object) -> Tensor:
    return net.mean(output)

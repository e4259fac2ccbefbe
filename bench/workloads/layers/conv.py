"""One convolution with a bias over a large image.

Shapes   in (batch, filter_in, input_height, input_width)
         out (batch, filter_out, height, width), each side (input + 2 padding - kernel) // stride + 1
Item     one image
Source   Graphcore's PopART kernel benchmarks, SDK 2.0 to 3.1: conv.py. Its loss is the sum of the squared
         differences between a softmax over the whole image and 0/1 labels
"""

from __future__ import annotations

from typing import Optional

from bench.cases.dimension import FILTER_IN, FILTER_OUT, KERNEL_SIZE, STRIDE, Dimension
from bench.graph import Graph, Tensor

ITEM = "image"
DIMENSIONS = {
    "input_width": Dimension("w", "pixels in a row of the image", maximum=65536),
    "input_height": Dimension("h", "rows of the image", maximum=65536),
    "filter_in": FILTER_IN,
    "filter_out": FILTER_OUT,
    "kernel_size": KERNEL_SIZE,
    "padding": Dimension("p", "zero pixels on every side of the image", minimum=0, maximum=1024),
    "stride": STRIDE,
}
SIZES = (
    {
        "input_width": 1920,
        "input_height": 1080,
        "filter_in": 4,
        "filter_out": 64,
        "kernel_size": 4,
        "padding": 3,
        "stride": 2,
    },
)
TINY = {
    "input_width": 9,
    "input_height": 7,
    "filter_in": 4,
    "filter_out": 6,
    "kernel_size": 4,
    "padding": 3,
    "stride": 2,
}
LEARNING_RATE = 0.01


def build(
    net: Graph,
    *,
    input_width: int,
    input_height: int,
    filter_in: int,
    filter_out: int,
    kernel_size: int,
    padding: int,
    stride: int,
) -> Tensor:
    """Add the layer to `net` and return its output."""
    image = net.input(filter_in, input_height, input_width)
    return net.conv(image, filter_out, kernel_size, stride=stride, padding=padding)


def loss(net: Graph, output: Tensor, **size: object) -> Tensor:
    return net.flat_softmax_squared_error(output, net.labels(*output.shape[1:], values="bits"))


def unsupported(mode: str, precision: str) -> Optional[str]:
    """Why a case is meaningless for this layer, or None."""
    if mode == "training" and precision in ("fp16", "fp16m"):
        # The softmax runs over millions of pixels: gradients are near 1e-15, and fp16 has nothing below 6e-8.
        return "conv's loss has gradients below the range of fp16"
    return None

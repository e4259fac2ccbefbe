"""The input pipeline without a model: the host reads, decodes and crops images in batches.

Shapes   out (batch, 3, image_size, image_size), bytes
Item     one image
Source   the host benchmarks of Graphcore's CNN programs (host_benchmark in PyTorch, --dataset-benchmark in TensorFlow)
"""

from __future__ import annotations

from typing import Optional

from bench.graph import Graph, Tensor
from bench.workloads.cnns._parts import DIMENSIONS as PARTS

NAME = "host_pipeline"
ITEM = "image"
DIMENSIONS = {"image_size": PARTS["image_size"]}
SIZES = ({"image_size": 224, "batch_size": 32},)
TINY = {"image_size": 8}
LEARNING_RATE = 0.0


def build(net: Graph, *, image_size: int) -> Tensor:
    """Add the images to `net` and return them. Nothing is computed."""
    return net.image(3, image_size, "uint8")


def loss(net: Graph, output: Tensor, **size: object) -> Tensor:
    """No loss: training here means that images are shuffled and cropped at random."""
    return Tensor(-1, 0, ())


def unsupported(mode: str, precision: str) -> Optional[str]:
    if mode == "eval":
        return "host_pipeline crops images for inference or for training, and eval is like inference"
    return None if precision == "fp32" else f"host_pipeline makes bytes, so {precision} has no meaning"

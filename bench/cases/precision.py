"""Precisions: the type of the arithmetic and of the weights, and the tolerances.

`fp32` has neither TF32 nor bf16 products. In `fp16m` and `bf16m` the weights are fp32 and the arithmetic is 16-bit.

tolerance            of the relative error, norm(result - reference) / norm(reference). The float64 reference starts
                     from the same rounded weights and inputs. TF32 products have an error of about 3e-4, so they fail
                     in fp32
gradient_tolerance   of the update. It is larger, since a gradient passes each layer twice and sums over the batch.
                     (torch's softmax over the 33 million pixels of the conv layer has an error of 1.3e-3 in fp32,
                     TensorFlow's less than 5e-4.)
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Precision:
    compute: str
    weights: str
    tolerance: float
    gradient_tolerance: float
    bytes: int


PRECISIONS = {
    "fp32": Precision("float32", "float32", 5e-5, 2e-3, 4),
    "fp16": Precision("float16", "float16", 1e-2, 4e-2, 2),
    "bf16": Precision("bfloat16", "bfloat16", 5e-2, 2e-1, 2),
    "fp16m": Precision("float16", "float32", 1e-2, 4e-2, 2),
    "bf16m": Precision("bfloat16", "float32", 5e-2, 2e-1, 2),
}

# The spellings of the original programs: bits of arithmetic and weights in TensorFlow, words in PyTorch.
SPELLINGS = {"32.32": "fp32", "16.32": "fp16m", "16.16": "fp16", "full": "fp32", "half": "fp16"}


def loss_scale(precision: str, elements: int) -> float:
    """The factor on the loss in training, by which the update divides again.

    If gradients are fp16 it is a power of two near the square root of the output's number of `elements`, and else 1.
    The mean of many elements has gradients below fp16's range. With a factor of `elements`, their sums would exceed it.
    """
    if PRECISIONS[precision].compute != "float16":
        return 1.0
    return float(2 ** (elements.bit_length() // 2))

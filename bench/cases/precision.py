"""What a precision means: the type of the arithmetic, of the weights, and the error allowed.

`fp32` means fp32: no TF32, no bf16 products. In `fp16m` and `bf16m` the weights stay fp32 and the
arithmetic is 16-bit. `tolerance` bounds norm(result - reference) / norm(reference), where the
float64 reference starts from the same rounded weights and inputs. TF32 products are off by about
3e-4, so the tolerance of fp32 tells them apart. A gradient passes every layer twice and sums over the
batch: `gradient_tolerance`. (torch's softmax over the 33 million pixels of the conv layer costs 1.3e-3 in
fp32, its sums included; TensorFlow's less than 5e-4.)
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

# The spellings of the original programs: compute.weights in TensorFlow, words in PyTorch.
SPELLINGS = {"32.32": "fp32", "16.32": "fp16m", "16.16": "fp16", "full": "fp32", "half": "fp16"}


def loss_scale(precision: str, elements: int) -> float:
    """The factor on the loss in training, taken out again in the update: a power of two near the
    square root of the output's `elements` where gradients are fp16, else 1.

    A mean over many elements has gradients below fp16's range; their sums, scaled by all of
    `elements`, would leave it at the other end.
    """
    if PRECISIONS[precision].compute != "float16":
        return 1.0
    return float(2 ** (elements.bit_length() // 2))

"""Normalisation of pixels."""

from __future__ import annotations

from typing import Any, Sequence

import numpy as np

# Mean and standard deviation of red, green and blue in ImageNet's training images; white is 1.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def normalised(images: Any, mean: Sequence[float] = MEAN, std: Sequence[float] = STD, dtype: str = "float32") -> Any:
    """Return (images / 255 - mean) / std, channel by channel, computed in float32.

    Shapes   (batch, channels, height, width) in and out; the memory order is preserved
    """
    scale = np.float32(1.0) / (np.float32(255.0) * np.asarray(std, np.float32))
    offset = -np.asarray(mean, np.float32) / np.asarray(std, np.float32)
    # Two passes over the images instead of three: x * scale + offset.
    result = np.multiply(images, scale[:, None, None], dtype=np.float32)
    result += offset[:, None, None]
    return result.astype(dtype, copy=False)

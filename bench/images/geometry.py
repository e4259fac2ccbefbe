"""Which part of an image is shown, in pixels of the source. No framework, no pixels.

Evaluation   the shorter side becomes image_size * 256 / 224, then the centre is cut out
Training     a random part of 8 to 100 % of the area, its sides in a ratio of 3/4 to 4/3, and half of
             the images mirrored; after ten failures the largest such part in the middle
Source       Szegedy et al. 2015 for the random part; the sizes are those of torchvision's references
"""

from __future__ import annotations

import math
import random
from typing import Tuple

Box = Tuple[float, float, float, float]

AREA = (0.08, 1.0)
RATIO = (3 / 4, 4 / 3)
ATTEMPTS = 10
# A longer side counts up to so many shorter ones. What is cut out lies within, and a picture of
# 1 x 10000 pixels is not first enlarged to gigabytes.
LONGEST = 2


def shorter_side(image_size: int) -> int:
    """The shorter side before the centre is cut out: 256 for 224."""
    return (image_size * 256 + 112) // 224


def evaluation_box(width: int, height: int, image_size: int) -> Box:
    """Left, upper, right and lower edge of what is shown in evaluation, to be scaled to a square."""
    kept = (min(width, LONGEST * height), min(height, LONGEST * width))
    short, target = min(kept), shorter_side(image_size)
    edges = []
    for whole, side in zip((width, height), kept):
        scaled = (2 * target * side + short) // (2 * short)
        first = (scaled - image_size) // 2
        start = (whole - side) // 2
        edges.append((start + first * side / scaled, start + (first + image_size) * side / scaled))
    (left, right), (upper, lower) = edges
    return left, upper, right, lower


def training_box(width: int, height: int, draw: random.Random) -> Box:
    """Left, upper, right and lower edge of a random part; whole pixels."""
    for _ in range(ATTEMPTS):
        area = width * height * draw.uniform(*AREA)
        ratio = math.exp(draw.uniform(math.log(RATIO[0]), math.log(RATIO[1])))
        wide, high = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < wide <= width and 0 < high <= height:
            left, upper = draw.randint(0, width - wide), draw.randint(0, height - high)
            return left, upper, left + wide, upper + high
    wide = min(width, max(1, round(height * RATIO[1])))
    high = min(height, max(1, round(width / RATIO[0])))
    left, upper = (width - wide) // 2, (height - high) // 2
    return left, upper, left + wide, upper + high

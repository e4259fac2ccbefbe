"""The part of an image that a network gets, in pixels of the source.

Evaluation   the shorter side becomes image_size * 256 / 224, then the centre is cropped
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
# The longer side is first cropped to this many times the shorter one. The centre lies within it, and an image of
# 1 x 10000 pixels is not enlarged to gigabytes.
LONGEST = 2


def shorter_side(image_size: int) -> int:
    """The shorter side before the centre is cropped: 256 for 224."""
    return (image_size * 256 + 112) // 224


def evaluation_box(width: int, height: int, image_size: int) -> Box:
    """Left, upper, right and lower edge of the part for evaluation, which is then scaled to a square."""
    cropped = (min(width, LONGEST * height), min(height, LONGEST * width))
    short, target = min(cropped), shorter_side(image_size)
    edges = []
    for whole, side in zip((width, height), cropped):
        scaled = (2 * target * side + short) // (2 * short)
        first = (scaled - image_size) // 2
        start = (whole - side) // 2
        edges.append((start + first * side / scaled, start + (first + image_size) * side / scaled))
    (left, right), (upper, lower) = edges
    return left, upper, right, lower


def training_box(width: int, height: int, draw: random.Random) -> Box:
    """Left, upper, right and lower edge of a random part, in whole pixels."""
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

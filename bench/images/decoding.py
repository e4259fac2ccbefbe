"""Decodes JPEG and PNG to arrays of RGB pixels, with Pillow.

Grey, palette, CMYK and transparent images are converted. Transparency is dropped, not blended with a background; of
16 bits the upper 8 are used. Resampling is bilinear with antialiasing.
"""

from __future__ import annotations

import io
import random
import struct
import warnings
import zlib
from typing import Any, Optional

import numpy as np

from bench import signatures
from bench.images.faults import BadImage
from bench.images.geometry import evaluation_box, training_box

# Larger images are refused before they are decoded: 2 ** 26 pixels are 8192 x 8192, 200 MB of RGB.
MAX_PIXELS = 2**26


def decode(data: bytes, where: str) -> Any:
    """The image as a Pillow image in RGB. Raises BadImage, which names `where`."""
    from PIL import Image, UnidentifiedImageError

    if not data:
        raise BadImage(where, "empty")
    try:
        with warnings.catch_warnings():
            # Pillow warns of huge images, which are refused below, and of odd palettes, which are converted.
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data), formats=("JPEG", "PNG"))
            _require_size(image.size, where)
            return _rgb(image)
    except UnidentifiedImageError:
        content = signatures.description(data[: signatures.HEAD])
        raise BadImage(where, content or "not a JPEG or PNG image, or its header is damaged") from None
    except Image.DecompressionBombError:
        raise BadImage(where, f"more than the {MAX_PIXELS} pixels allowed") from None
    except BadImage:
        raise
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error) as error:
        raise BadImage(where, f"damaged: {error}") from None


def evaluated(image: Any, image_size: int) -> Any:
    """The centre of an image, (image_size, image_size, 3) of uint8."""
    width, height = image.size
    return _resized(image, evaluation_box(width, height, image_size), image_size)


def augmented(image: Any, image_size: int, draw: random.Random) -> Any:
    """A random part of an image, mirrored or not, (image_size, image_size, 3) of uint8."""
    width, height = image.size
    pixels = _resized(image, training_box(width, height, draw), image_size)
    return pixels[:, ::-1] if draw.random() < 0.5 else pixels


def shown(data: bytes, where: str, image_size: int, draw: Optional[random.Random]) -> Any:
    """The pixels that a network gets of an image: a random part with `draw`, the centre without."""
    image = decode(data, where)
    return evaluated(image, image_size) if draw is None else augmented(image, image_size, draw)


def _resized(image: Any, box: Any, image_size: int) -> Any:
    from PIL import Image

    return np.asarray(image.resize((image_size, image_size), Image.Resampling.BILINEAR, box=box))


def _rgb(image: Any) -> Any:
    from PIL import Image

    image.load()
    if image.mode.startswith("I"):
        # Pillow clips 16 bits at 255 when it converts them.
        upper = (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
        image = Image.fromarray(upper)
    return image if image.mode == "RGB" else image.convert("RGB")


def _require_size(size: Any, where: str) -> None:
    width, height = size
    if width * height > MAX_PIXELS:
        raise BadImage(where, f"{width} x {height} pixels; at most {MAX_PIXELS} are allowed")

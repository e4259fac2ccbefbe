"""Generated images in place of photographs, with similar size, bytes and decoding time.

Pixels   random fields whose amplitude falls with frequency (1 / f ** 1.1), as in photographs: mostly
         brightness, in the colour of the class, with a little sensor noise
Bytes    some 110 kB for 500 x 375, as ImageNet's: JPEG of quality 90
Seed     image `i` is the same in every format and set of the same seed, classes and size, on the same
         versions of numpy and Pillow
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import shutil
import tarfile
import tempfile
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, NamedTuple, Optional, Tuple, Union

import numpy as np

from bench import cache, locks
from bench.images import tf_example, tfrecords
from bench.images.dataset import FORMATS, Dataset, find
from bench.images.faults import one_line, require

# The cached set is generated again when this changes. Increase it when the images change.
VERSION = 1
SHARD = 128
QUALITY = 90

Tell = Callable[[int], None]


class Generated(NamedTuple):
    """One image as JPEG, its number and its class, from 0."""

    number: int
    label: int
    jpeg: bytes


def make(
    folder: Union[str, Path],
    *,
    images: int = 64,
    classes: int = 8,
    width: int = 500,
    height: int = 375,
    format: str = "folder",
    seed: int = 0,
    tell: Optional[Tell] = None,
) -> Dataset:
    """Write a complete set into an empty or new folder, or nothing, and return it.

    `tell` is called with the number of images so far. Raises ValueError for invalid arguments, and OSError if
    the set cannot be written.
    """
    target = Path(os.path.abspath(folder))
    _require(target, images, classes, width, height, format, seed)
    require("PIL", "pillow")
    if format == "tfrecord":
        require("google_crc32c", "google-crc32c")
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=str(target.parent), prefix=f".{target.name}."))
    try:
        _WRITERS[format](temporary, _generated(images, classes, (width, height), seed, tell), images, classes)
        os.chmod(str(temporary), 0o755)
        os.replace(str(temporary), str(target))
    except BaseException:
        shutil.rmtree(str(temporary), ignore_errors=True)
        raise
    return find(target, classes=None if format == "folder" else classes)


def cached(
    *, images: int = 64, classes: int = 8, width: int = 500, height: int = 375, format: str = "folder"
) -> Dataset:
    """The set in the cache folder; it is generated on first use."""
    name = f"images-{VERSION}-{format}-{images}-{classes}-{width}x{height}"
    with locks.alone(name):
        folder = cache.folder() / name
        # No other process writes under this lock, so these are left from a killed one.
        for leftover in cache.folder().glob(f".{name}.*"):
            shutil.rmtree(str(leftover), ignore_errors=True)
        if folder.is_dir() and any(folder.iterdir()):
            return find(folder, classes=None if format == "folder" else classes)
        return make(folder, images=images, classes=classes, width=width, height=height, format=format)


def picture(number: int, label: int, classes: int, size: Tuple[int, int], seed: int) -> Any:
    """Image `number`, (height, width, 3) of uint8."""
    width, height = size
    draw = np.random.default_rng([seed, number])
    light = _field(draw, height, width)
    tints = [_field(draw, height, width) for _ in range(2)]
    # Classes are colours around a circle, so that something can be learned.
    angle = 2 * np.pi * label / classes
    red, blue = 30 * np.cos(angle), 30 * np.sin(angle)
    noise = draw.normal(0.0, 4.0, (height, width))
    grey = 118 + 52 * light + noise
    channels = [grey + red + 14 * tints[0], grey, grey + blue + 14 * tints[1]]
    return np.clip(np.rint(np.stack(channels, axis=-1)), 0, 255).astype(np.uint8)


def _field(draw: Any, height: int, width: int) -> Any:
    """A smooth random field of mean 0 and standard deviation 1."""
    fall = _fall(height, width)
    waves = (draw.standard_normal(fall.shape) + 1j * draw.standard_normal(fall.shape)) * fall
    field = np.fft.irfft2(waves, s=(height, width))
    return field / (field.std() or 1.0)


@functools.lru_cache(maxsize=1)
def _fall(height: int, width: int) -> Any:
    """The amplitude of each frequency; zero for frequency zero."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None] * height, np.fft.rfftfreq(width)[None] * width)
    frequency[0, 0] = np.inf
    return frequency**-1.1


def _generated(
    images: int, classes: int, size: Tuple[int, int], seed: int, tell: Optional[Tell]
) -> Iterator[Generated]:
    from PIL import Image

    for number in range(images):
        label = number % classes
        buffer = io.BytesIO()
        Image.fromarray(picture(number, label, classes, size, seed)).save(buffer, "JPEG", quality=QUALITY)
        yield Generated(number, label, buffer.getvalue())
        if tell is not None:
            tell(number + 1)


def _write_folder(folder: Path, items: Iterator[Generated], images: int, classes: int) -> None:
    digits = len(str(classes - 1))
    for label in range(classes):
        (folder / f"class{label:0{digits}}").mkdir()
    for item in items:
        (folder / f"class{item.label:0{digits}}" / f"{item.number:08}.jpg").write_bytes(item.jpeg)


def _write_tfrecords(folder: Path, items: Iterator[Generated], images: int, classes: int) -> None:
    # Both splits are the same files: a generated set needs no separate validation images.
    shards = -(-images // SHARD)
    with contextlib.ExitStack() as files:
        for item in items:
            if item.number % SHARD == 0:
                files.close()
                name = f"{item.number // SHARD:05}-of-{shards:05}"
                file = files.enter_context((folder / f"train-{name}").open("wb"))
                os.symlink(f"train-{name}", str(folder / f"validation-{name}"))
            values: Dict[str, tf_example.Value] = {
                "image/encoded": item.jpeg,
                "image/class/label": item.label + 1,
                "image/format": b"JPEG",
            }
            tfrecords.write(file, tf_example.example(values))


def _write_tars(folder: Path, items: Iterator[Generated], images: int, classes: int) -> None:
    with contextlib.ExitStack() as files:
        for item in items:
            if item.number % SHARD == 0:
                files.close()
                tar = files.enter_context(tarfile.open(str(folder / f"images-{item.number // SHARD:06}.tar"), "w"))
            for suffix, data in (("jpg", item.jpeg), ("cls", str(item.label).encode())):
                member = tarfile.TarInfo(f"{item.number:08}.{suffix}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


_WRITERS = {"folder": _write_folder, "tfrecord": _write_tfrecords, "webdataset": _write_tars}


def _require(target: Path, images: int, classes: int, width: int, height: int, format: str, seed: int) -> None:
    if format not in FORMATS:
        raise ValueError(f"format={format!r}; allowed are {', '.join(FORMATS)}")
    for name, value in {"images": images, "classes": classes, "width": width, "height": height}.items():
        if value < 1:
            raise ValueError(f"{name}={value}; at least 1 is needed")
    if images < classes:
        raise ValueError(f"images={images}, classes={classes}; every class needs an image")
    if seed < 0:
        raise ValueError(f"seed={seed}; at least 0 is needed")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ValueError(f"{one_line(target)} is not empty; choose a new folder, nothing is overwritten")

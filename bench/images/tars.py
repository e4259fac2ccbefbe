"""WebDataset tars: <key>.jpg, .jpeg or .png beside <key>.cls, which holds the label as text.

A key ends at the first dot of the file's name, and the files of one key are consecutive. Files with
other suffixes are ignored.
"""

from __future__ import annotations

import os
import re
import tarfile
from typing import Any, BinaryIO, Callable, Dict, Iterable, Iterator, Mapping, NamedTuple, Optional, Tuple, Union

from bench.images.faults import BadImage

Sample = Mapping[str, Any]

IMAGES = ("jpg", "jpeg", "png")
LABEL = "cls"
BLOCK = 512

_NAME = re.compile(r"((?:.*/)?[^./]+)[.]([^/]*)")


class Labelled(NamedTuple):
    """One undecoded image of a tar, with the label as stored."""

    key: str
    image: bytes
    label: int


def where(path: str, key: str) -> str:
    return f"{path}, key {key}"


def samples(path: str, grouped: Callable[[BinaryIO, str], Iterable[Sample]]) -> Iterator[Union[Labelled, BadImage]]:
    """Each image of a tar, or its fault. `grouped` turns the open file into samples as webdataset
    makes them: `__key__`, and the bytes of each file under its suffix."""
    damage = None
    try:
        damage = damaged(path)
        if damage is not None:
            yield damage
        with open(path, "rb") as file:
            for sample in grouped(file, path):
                item = _labelled(sample, path)
                if item is not None:
                    yield item
    except (tarfile.TarError, EOFError, ValueError, OSError) as error:
        # The damage of this file has been reported already.
        if damage is None:
            yield BadImage(path, _reason(error))


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"cannot be read: {error.strerror or error}"
    # For a repeated key, webdataset gives the reason as the first of several arguments.
    return f"{error.args[0] if error.args else error}; the rest of the file is lost"


def grouped(file: BinaryIO, path: str) -> Iterator[Sample]:
    """Samples read without webdataset, which would import torch beside TensorFlow."""
    return _grouped(_files(file))


def named(file: BinaryIO, path: str) -> Iterator[Sample]:
    """The same samples without content: only headers are read."""
    return _grouped(_names(file))


def _grouped(files: Iterable[Tuple[str, bytes]]) -> Iterator[Sample]:
    sample: Dict[str, Any] = {}
    for name, data in files:
        match = _NAME.fullmatch(name)
        if match is None:
            continue
        key, suffix = match[1], match[2].lower()
        if sample and sample["__key__"] != key:
            yield sample
            sample = {}
        if suffix in sample:
            raise ValueError(f"{name}: duplicate file name in tar file")
        sample["__key__"] = key
        sample[suffix] = data
    if sample:
        yield sample


def _files(file: BinaryIO) -> Iterator[Tuple[str, bytes]]:
    with tarfile.open(fileobj=file, mode="r|") as tar:
        for member in tar:
            content = tar.extractfile(member) if member.isreg() else None
            if content is not None:
                yield member.name, content.read()
            # Otherwise tarfile would keep every member in memory.
            tar.members = []  # type: ignore[attr-defined]


def _names(file: BinaryIO) -> Iterator[Tuple[str, bytes]]:
    size = os.fstat(file.fileno()).st_size
    with tarfile.open(fileobj=file, mode="r:") as tar:
        for member in tar:
            if member.offset_data + member.size > size:
                raise tarfile.ReadError("unexpected end of data")
            if member.isreg():
                yield member.name, b""


def _labelled(sample: Sample, path: str) -> Optional[Union[Labelled, BadImage]]:
    """The image of a sample with its label, or its fault. None: the sample has no image and no label."""
    key = str(sample["__key__"])
    images = [suffix for suffix in IMAGES if suffix in sample]
    if not images and LABEL not in sample:
        return None
    if not images:
        return BadImage(where(path, key), f"a label ({key}.{LABEL}) without an image")
    if len(images) > 1:
        return BadImage(where(path, key), f"two images, {images[0]} and {images[1]}")
    if LABEL not in sample:
        return BadImage(where(path, key), f"an image without a label ({key}.{LABEL})")
    text = sample[LABEL]
    try:
        return Labelled(key, sample[images[0]], int(text))
    except ValueError:
        return BadImage(where(path, key), f"its label is {bytes(text[:20])!r}, not a number")


def damaged(path: str) -> Optional[BadImage]:
    """The damage of a tar: an invalid header, or no end mark. None: it is intact.

    Python's tarfile, which webdataset uses, takes a damaged header for the end of the file without an error.
    Only headers are read: 8 ms for a tar of 1250 images.
    """
    with open(path, "rb") as file:
        size, at = os.fstat(file.fileno()).st_size, 0
        if size == 0:
            return BadImage(path, "empty")
        while at + BLOCK <= size:
            file.seek(at)
            header = file.read(BLOCK)
            if not any(header):
                return None
            length = _length(header)
            if length is None:
                return BadImage(path, f"no tar, or damaged, at byte {at}; what follows is lost")
            at += BLOCK + (length + BLOCK - 1) // BLOCK * BLOCK
    return BadImage(path, f"cut off at byte {size}")


def _length(header: bytes) -> Optional[int]:
    """The length in bytes of the file after a header; None if the checksum is wrong."""
    try:
        total = int(header[148:156].rstrip(b"\0 ") or b"0", 8)
        if total != sum(header) - sum(header[148:156]) + 8 * ord(" "):
            return None
        if header[124] & 0x80:
            return int.from_bytes(header[125:136], "big")
        return int(header[124:136].strip(b"\0 ") or b"0", 8)
    except ValueError:
        return None

"""TFRecord files, read and written without TensorFlow.

    length (8 bytes)   its checksum (4)   data (length bytes)   its checksum (4)

Checksum   CRC-32C, rotated and shifted. A wrong checksum of data is a fault of that record. A wrong checksum of a
           length ends the file, since the start of the next record is unknown
Source     tensorflow/core/lib/io/record_writer.h. PyPI's `tfrecord` (1.14) reads the same files, but
           does not verify checksums
"""

from __future__ import annotations

import os
import struct
from typing import BinaryIO, Callable, Iterator, Union

from bench import signatures
from bench.images.faults import BadImage

# The data of a record, its fault, or None for one that is not wanted.
Item = Union[bytes, BadImage, None]

_HEADER = struct.Struct("<QI")
_DELTA = 0xA282EAD8


def where(path: str, number: int) -> str:
    return f"{path}, record {number}"


def records(path: str, wanted: Callable[[int], bool]) -> Iterator[Item]:
    """The data of each wanted record, or its fault; None for the others, which are not read."""
    try:
        with open(path, "rb") as file:
            yield from _records(file, path, wanted)
    except OSError as error:
        yield BadImage(path, f"cannot be read: {error.strerror}")


def _records(file: BinaryIO, path: str, wanted: Callable[[int], bool]) -> Iterator[Item]:
    size, at, number = os.fstat(file.fileno()).st_size, 0, 0
    while at < size:
        header = file.read(_HEADER.size)
        if len(header) < _HEADER.size:
            yield BadImage(where(path, number), f"cut off at byte {size}")
            return
        length, checksum = _HEADER.unpack(header)
        if checksum != masked(header[:8]):
            file.seek(0)
            content = None if number else signatures.description(file.read(signatures.HEAD))
            lost = BadImage(where(path, number), "its length is damaged; the rest of the file is lost")
            yield BadImage(path, content) if content else lost
            return
        at += _HEADER.size + length + 4
        if at > size:
            yield BadImage(where(path, number), f"cut off at byte {size}")
            return
        if wanted(number):
            data = file.read(length)
            good = struct.unpack("<I", file.read(4))[0] == masked(data)
            yield data if good else BadImage(where(path, number), "its checksum is wrong; it is damaged")
        else:
            file.seek(at)
            yield None
        number += 1


def write(file: BinaryIO, data: bytes) -> None:
    """Add one record to a file."""
    length = struct.pack("<Q", len(data))
    file.write(length + struct.pack("<I", masked(length)))
    file.write(data)
    file.write(struct.pack("<I", masked(data)))


def masked(data: bytes) -> int:
    """The masked checksum of data, as stored in the files."""
    import google_crc32c

    crc = int(google_crc32c.value(data))
    return (((crc >> 15) | (crc << 17)) + _DELTA) & 0xFFFFFFFF

"""What can be wrong with images and with the processes that read them, each in one line."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Optional, Tuple, Type

from bench.cases.errors import Unavailable


class BadImage(ValueError):
    """An image, or a file of images, that cannot be used. One line: the file, the record in it, the reason."""

    def __init__(self, where: str, reason: object) -> None:
        self.where = where
        self.reason = one_line(reason)
        super().__init__(f"{one_line(where)}: {self.reason}")

    def __reduce__(self) -> Tuple[Type[BadImage], Tuple[str, str]]:
        return BadImage, (self.where, self.reason)


class Stopped(RuntimeError):
    """A process of an input pipeline ended, or went silent, before its work was done."""


@dataclass
class Skipped:
    """Images left out so far, over all epochs, and the first reason."""

    total: int = 0
    first: Optional[str] = None

    def add(self, reason: object, images: int = 1) -> None:
        self.total += images
        if self.first is None:
            self.first = str(reason)


def one_line(text: object) -> str:
    """The text with its line breaks as spaces, fit to be printed: a file may have any bytes in its name."""
    return " ".join(str(text).split()).encode("utf-8", "backslashreplace").decode()


def require(module: str, package: str) -> None:
    """Raise Unavailable when a package of the extra `images` is missing."""
    if importlib.util.find_spec(module) is None:
        raise Unavailable(f"not installed: {package} (pip install -e '.[images]' -c constraints/cpu.txt)")


def require_packages(format: str, pipeline: str = "") -> None:
    """Raise Unavailable when a package is missing that a format of images needs, read by that pipeline."""
    require("PIL", "pillow")
    if pipeline == "torch":
        # Cases of other frameworks read with it as well.
        require("torch", "torch")
    if format == "tfrecord":
        require("google_crc32c", "google-crc32c")
    if format == "webdataset" and pipeline == "torch":
        require("webdataset", "webdataset")

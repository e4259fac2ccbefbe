"""Faults of images and of the processes that read them. Each message is one line."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Optional, Tuple, Type

from bench.cases.errors import Unavailable


class BadImage(ValueError):
    """An image, or a file of images, that cannot be used. The message names the file, the record and the reason."""

    def __init__(self, where: str, reason: object) -> None:
        self.where = where
        self.reason = one_line(reason)
        super().__init__(f"{one_line(where)}: {self.reason}")

    def __reduce__(self) -> Tuple[Type[BadImage], Tuple[str, str]]:
        return type(self), (self.where, self.reason)


class BadSet(BadImage):
    """A fault of one image that shows that the set is read wrongly. It always stops."""


class Stopped(RuntimeError):
    """A process of an input pipeline died or hung."""


@dataclass
class Skipped:
    """The number of images skipped so far, over all epochs, and the first reason."""

    total: int = 0
    first: Optional[str] = None

    def add(self, reason: object, images: int = 1) -> None:
        self.total += images
        if self.first is None:
            self.first = str(reason)


def one_line(text: object) -> str:
    """The text with spaces for line breaks, and escapes for the bytes of file names that cannot be printed."""
    return " ".join(str(text).split()).encode("utf-8", "backslashreplace").decode()


def require(module: str, package: str) -> None:
    """Raise Unavailable if a package of the extra `images` is missing."""
    if importlib.util.find_spec(module) is None:
        raise Unavailable(f"not installed: {package} (pip install -e '.[images]' -c constraints/cpu.txt)")


def require_packages(format: str, pipeline: str = "") -> None:
    """Raise Unavailable if a package is missing that an input pipeline needs for a format."""
    require("PIL", "pillow")
    if pipeline == "torch":
        # Cases of other frameworks use this pipeline too.
        require("torch", "torch")
    if format == "tfrecord":
        require("google_crc32c", "google-crc32c")

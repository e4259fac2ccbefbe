"""The file of the pairs of a run: a line of JSON each, written at once, so that a run that was interrupted can go on.

The first line says what is compared, and has the seed of the coins. A line that was cut off is ignored.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any, Dict, List, Mapping

from bench import cache
from bench.results.pair import Pair


def create(path: Path, head: Mapping[str, Any]) -> None:
    """Start a new file, in place of an older one."""
    cache.write_whole(path, json.dumps(head) + "\n")


def append(path: Path, pair: Pair) -> None:
    """Add a pair, whole or not at all."""
    line = (json.dumps(pair.plain()) + "\n").encode()
    handle = os.open(str(path), os.O_RDWR | os.O_APPEND)
    try:
        end = os.fstat(handle).st_size
        if end and os.pread(handle, 1, end - 1) != b"\n":
            # The last line was cut off.
            line = b"\n" + line
        try:
            written = os.write(handle, line)
            if written < len(line):
                raise OSError(28, "No space left on device", str(path))
            os.fsync(handle)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(handle, end)
            raise
    finally:
        os.close(handle)


def head(path: Path) -> Dict[str, Any]:
    """What the first line says; empty if there is no such file, or no first line."""
    lines = _lines(path)
    return lines[0] if lines else {}


def load(path: Path) -> List[Pair]:
    """The pairs in the order in which they were measured."""
    return [Pair(**line) for line in _lines(path)[1:] if "pair" in line]


def _lines(path: Path) -> List[Dict[str, Any]]:
    try:
        texts = path.read_text().splitlines()
    except OSError:
        return []
    found = []
    for text in texts:
        with contextlib.suppress(ValueError):
            line = json.loads(text)
            if isinstance(line, dict):
                found.append(line)
    return found

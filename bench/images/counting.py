"""The number of images of a set. The names of TFRecords and tars do not show it.

Known     from the cache folder, while the size and time of a file are unchanged; or from `sizes.json` beside tars,
          {"name.tar": images, ...}, as img2dataset and open_clip write it, if it names every tar that is used.
          A reader that finds another count in a file reports a fault (`epoch.piece_records`)
Unknown   one pass over the headers of all files counts the images; no image is read
Damage    a damaged or empty file counts as its readable images plus one: readers report one fault for all that is lost.
          With `stop` the fault is raised at once
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from dataclasses import replace
from typing import Any, Callable, Dict, List, Optional

from bench import cache, locks
from bench.images import sets
from bench.images.dataset import Dataset
from bench.images.faults import require_packages

SIZES = "sizes.json"
# The counts so far are saved this often.
SAVED_S = 20.0

Tell = Callable[[str], None]
# By path: the size of a file, its time in ns, and its number of images.
Known = Dict[str, List[int]]


def counted(dataset: Dataset, errors: str = "stop", tell: Optional[Tell] = None) -> Dataset:
    """The set with its count. Raises BadImage for a damaged file with `errors` stop."""
    if dataset.format == "folder" or dataset.counts:
        return dataset
    require_packages(dataset.format)
    counts = _from_sizes_file(dataset)
    if counts is None:
        name = f"images-counted-2-{hashlib.sha256(os.fsencode(dataset.root)).hexdigest()[:16]}"
        # Replicas of one machine count once.
        with locks.alone(name):
            counts = _counts(dataset, name, errors, tell or (lambda phase: None))
    return replace(dataset, counts=tuple(counts), count=sum(counts))


def _from_sizes_file(dataset: Dataset) -> Optional[List[int]]:
    """The number of images of each tar, from `sizes.json`; None if the file does not name all of them."""
    if dataset.format != "webdataset":
        return None
    try:
        with open(os.path.join(os.path.dirname(dataset.path(dataset.files[0])), SIZES), encoding="utf-8") as file:
            content = json.load(file)
    except (OSError, ValueError):
        return None
    sizes: Dict[str, Any] = content if isinstance(content, dict) else {}
    counts = [sizes.get(os.path.basename(name)) for name in dataset.files]
    return [int(count or 0) for count in counts] if all(type(count) is int and count > 0 for count in counts) else None


def _counts(dataset: Dataset, name: str, errors: str, tell: Tell) -> List[int]:
    known: Known = cache.read(name) or {}
    counts: List[int] = []
    new, saved_s = False, time.monotonic()
    try:
        for number, file in enumerate(dataset.files):
            path = dataset.path(file)
            state = _state(path)
            if state is not None and known.get(path, [])[:2] == state:
                counts.append(known[path][2])
                continue
            tell(f"counting images {number + 1}/{len(dataset.files)} files")
            count, fault = sets.count(dataset, path)
            if fault is not None and errors == "stop":
                raise fault
            counts.append(count)
            # A damaged file is counted again each time, so that its fault is reported each time.
            if fault is None and state is not None:
                known[path] = [*state, count]
                new = True
            if new and time.monotonic() - saved_s > SAVED_S:
                # A run that is killed after ten minutes need not start over.
                cache.write(name, known)
                saved_s = time.monotonic()
    finally:
        if new:
            cache.write(name, known)
    return counts


def _state(path: str) -> Optional[List[int]]:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]

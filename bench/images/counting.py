"""How many images a set has: what nobody can tell from the names of TFRecords and tars.

Known     from the cache folder, as long as size and time of a file are those of then; or from `sizes.json` beside
          tars, {"name.tar": images, ...}, as img2dataset and open_clip have it, if it names every tar that is used.
          A reader that finds another count in a file says so (`records.of_piece`)
Else      a pass over the headers of every file. No image is read
Damage    a file that is cut off or damaged counts what can be read of it, and one more for all that is lost with it:
          readers give one fault in its place. With `stop` the fault is raised at once
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from dataclasses import replace
from typing import Any, Callable, Dict, List, Optional, Tuple

from bench import cache, locks
from bench.images import tars, tfrecords
from bench.images.dataset import Dataset
from bench.images.faults import BadImage, one_line, require_packages

SIZES = "sizes.json"
# So often what was counted so far is kept.
KEPT_S = 20.0

Tell = Callable[[str], None]
# The size and time of a file, and how many images it had then.
Known = Dict[str, List[int]]


def counted(dataset: Dataset, errors: str = "stop", tell: Optional[Tell] = None) -> Dataset:
    """The set with its count. Raises BadImage for a damaged file with `errors` stop, ValueError for a set of none."""
    if dataset.format == "folder" or dataset.counts:
        return dataset
    require_packages(dataset.format)
    counts = _told(dataset)
    if counts is None:
        name = f"images-counted-{hashlib.sha256(os.fsencode(dataset.root)).hexdigest()[:16]}"
        # Replicas of one machine count once.
        with locks.alone(name):
            counts = _counts(dataset, name, errors, tell or (lambda phase: None))
    if not sum(counts):
        raise ValueError(f"{one_line(dataset.root)} holds no images: there are none in its {len(counts)} files")
    return replace(dataset, counts=tuple(counts), count=sum(counts))


def _told(dataset: Dataset) -> Optional[List[int]]:
    """What `sizes.json` says of each tar; None where it does not speak of all."""
    if dataset.format != "webdataset":
        return None
    try:
        with open(os.path.join(os.path.dirname(dataset.path(dataset.files[0])), SIZES), encoding="utf-8") as file:
            found = json.load(file)
    except (OSError, ValueError):
        return None
    told: Dict[str, Any] = found if isinstance(found, dict) else {}
    counts = [told.get(os.path.basename(name)) for name in dataset.files]
    return [int(count or 0) for count in counts] if all(type(count) is int and count > 0 for count in counts) else None


def _counts(dataset: Dataset, name: str, errors: str, tell: Tell) -> List[int]:
    known: Known = cache.read(name) or {}
    counts: List[int] = []
    new, kept_s = False, time.monotonic()
    try:
        for number, file in enumerate(dataset.files):
            path = dataset.path(file)
            now = _state(path)
            if now is not None and known.get(path, [])[:2] == now:
                counts.append(known[path][2])
                continue
            tell(f"counting images {number + 1}/{len(dataset.files)} files")
            count, fault = _count(dataset.format, path)
            if fault is not None and errors == "stop":
                raise fault
            counts.append(count)
            # What is damaged is looked at again, since it is to be told each time.
            if fault is None and now is not None:
                known[path] = [*now, count]
                new = True
            if new and time.monotonic() - kept_s > KEPT_S:
                # Whoever is killed after ten minutes need not begin again.
                cache.write(name, known)
                kept_s = time.monotonic()
    finally:
        if new:
            cache.write(name, known)
    return counts


def _state(path: str) -> Optional[List[int]]:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns]


def _count(kind: str, path: str) -> Tuple[int, Optional[BadImage]]:
    """What a reader will make of a file: so many images and faults; and the fault of the file itself."""
    items: Any = tars.samples(path, tars.named) if kind == "webdataset" else tfrecords.records(path, lambda n: False)
    count, fault = 0, None
    for item in items:
        count += 1
        # In a tar, what is wrong with one image is told when it is read.
        if fault is None and isinstance(item, BadImage) and (kind == "tfrecord" or item.where == path):
            fault = item
    return count, fault

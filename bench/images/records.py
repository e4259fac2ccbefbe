"""The images of a set, undecoded, in the order of an epoch, and each worker's part of them.

Folders    evaluation keeps their order, training shuffles all of them; workers take blocks in turn
Shards     whole files go to workers where there are enough, else every worker reads all of them and
           takes its blocks; training shuffles the files, and a buffer of images within the workers
Blocks     of a batch each, so that batches of workers, taken in turn, keep the order
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO, Callable, Iterable, Iterator, List, Optional, Sequence, Union

import numpy as np

from bench.images import examples, tars, tfrecords
from bench.images.dataset import Dataset
from bench.images.faults import BadImage

Grouped = Callable[[BinaryIO, str], Iterable[tars.Sample]]
# Images, undecoded, among which the next one of shards is drawn in training; of all workers together.
SHUFFLED = 1024

IMAGE, LABEL = "image/encoded", "image/class/label"


@dataclass(frozen=True)
class Record:
    """One image, undecoded: `data` is None where it is still in a file of its own."""

    where: str
    data: Optional[bytes]
    label: int


Found = Union[Record, BadImage]


@dataclass(frozen=True)
class Part:
    """One of `parts` equal parts of every epoch, in blocks of `block` images."""

    index: int = 0
    parts: int = 1
    block: int = 1

    def takes(self, number: int) -> bool:
        return number // self.block % self.parts == self.index


def epoch(dataset: Dataset, part: Part, draw: Optional[np.random.Generator], grouped: Grouped) -> Iterator[Found]:
    """The records of one pass, shuffled with `draw`, which must be the same in all parts."""
    if dataset.format == "folder":
        yield from _of_folder(dataset, part, draw)
        return
    files = list(dataset.files)
    if draw is not None:
        files = [files[i] for i in draw.permutation(len(files))]
    found = _of_shards(dataset, files, part, grouped)
    if draw is None:
        yield from found
    else:
        own = random.Random(int(draw.integers(2**62)) + part.index)
        yield from shuffled(found, max(16, SHUFFLED // part.parts), own)


def shuffled(items: Iterable[Any], size: int, draw: random.Random) -> Iterator[Any]:
    """The items, each drawn from a buffer of `size` of them."""
    buffer: List[Any] = []
    for item in items:
        buffer.append(item)
        if len(buffer) >= size:
            yield _drawn(buffer, draw)
    while buffer:
        yield _drawn(buffer, draw)


def _drawn(buffer: List[Any], draw: random.Random) -> Any:
    at = draw.randrange(len(buffer))
    buffer[at], buffer[-1] = buffer[-1], buffer[at]
    return buffer.pop()


def _of_folder(dataset: Dataset, part: Part, draw: Optional[np.random.Generator]) -> Iterator[Found]:
    count = len(dataset.files)
    order: Sequence[int] = range(count) if draw is None else draw.permutation(count)
    for number, index in enumerate(order):
        if part.takes(number):
            yield Record(dataset.path(dataset.files[index]), None, dataset.labels[index])


def _of_shards(dataset: Dataset, files: Sequence[str], part: Part, grouped: Grouped) -> Iterator[Found]:
    if len(files) >= part.parts:
        files, part = files[part.index :: part.parts], Part()
    # Blocks go on from file to file, else every file would begin with the first worker.
    before = 0
    for file in files:
        count = 0
        for found in of_file(dataset, dataset.path(file), partial(_takes, part, before), grouped):
            if found is not None and _takes(part, before, count):
                yield found
            count += 1
        before += count


def _takes(part: Part, before: int, number: int) -> bool:
    return part.takes(before + number)


def of_file(dataset: Dataset, path: str, wanted: Callable[[int], bool], grouped: Grouped) -> Iterator[Optional[Found]]:
    """The records of a file that holds several; None where one is not wanted and costs time to read."""
    if dataset.format == "webdataset":
        for sample in tars.samples(path, grouped):
            yield sample if isinstance(sample, BadImage) else _of_tar(dataset, path, sample)
        return
    for number, data in enumerate(tfrecords.records(path, wanted)):
        yield _of_example(dataset, path, number, data) if isinstance(data, bytes) else data


def _of_tar(dataset: Dataset, path: str, sample: tars.Labelled) -> Found:
    where = tars.where(path, sample.key)
    fault = label_fault(dataset, sample.label)
    if fault:
        return BadImage(where, fault)
    return Record(where, sample.image, sample.label - dataset.first_label)


def _of_example(dataset: Dataset, path: str, number: int, data: bytes) -> Found:
    where = tfrecords.where(path, number)
    try:
        values = examples.parse(data)
    except ValueError as error:
        return BadImage(where, error)
    image, label = values.get(IMAGE), values.get(LABEL)
    if not image or not isinstance(image[0], bytes):
        return BadImage(where, f"no {IMAGE}")
    if not label or not isinstance(label[0], int):
        return BadImage(where, f"no {LABEL}")
    fault = label_fault(dataset, label[0])
    if fault:
        return BadImage(where, fault)
    return Record(where, image[0], label[0] - dataset.first_label)


def label_fault(dataset: Dataset, label: int) -> Optional[str]:
    """Why a label as it is in a file is none, or None."""
    first, classes = dataset.first_label, dataset.classes
    if label < first:
        hint = "; with labels from 0, say first_label=0" if first and not label else ""
        return f"label {label}; the first is {first}{hint}"
    if classes is not None and label >= first + classes:
        return f"label {label}; with {classes} classes the last is {first + classes - 1}"
    return None


def content(record: Record) -> bytes:
    """The bytes of an image. Raises BadImage when its file cannot be read."""
    if record.data is not None:
        return record.data
    try:
        with open(record.where, "rb") as file:
            return file.read()
    except OSError as error:
        raise BadImage(record.where, f"cannot be read: {error.strerror}") from None

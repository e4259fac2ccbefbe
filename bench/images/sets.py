"""What a sample of a set is, for every input pipeline: its image, its label, and why it is bad.

folder       an image file; its label is the number of its folder
tfrecord     a record, a tf.train.Example with one image/encoded and one image/class/label
webdataset   the consecutive files of one key in a tar: one image and one label
Labels       0 to classes - 1 when read. In the files they count from `Dataset.first`
Faults       a sample that cannot be used is a BadImage, which stops or is skipped (--data-errors). A shard that is
             damaged, compressed, or without a sample is one BadImage for all that is lost in it. A label that
             shows that labels count from another number is a BadSet, which always stops: if its images were
             skipped, all others would have the labels of their neighbours
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import Callable, Iterator, Optional, Tuple, Union

from bench.images import tars, tf_example, tfrecords
from bench.images.dataset import Dataset
from bench.images.faults import BadImage, BadSet
from bench.images.tars import Sample

IMAGE, LABEL = "image/encoded", "image/class/label"
NAMES = {"tfrecord": "TFRecords", "webdataset": "tars"}
SKIP = "--data-errors skip"


@dataclass(frozen=True)
class Record:
    """One undecoded image: sample `number` of a file. `data` is None if it is not read yet."""

    where: str
    data: Optional[bytes]
    label: int
    file: str
    number: int = 0


Item = Union[Record, BadImage]


def samples(dataset: Dataset, path: str, wanted: Callable[[int], bool]) -> Iterator[Optional[Item]]:
    """The samples of a TFRecord file or tar in order; None for one that is not wanted, which saves reading it."""
    number = -1
    for number, item in enumerate(_stored(dataset.format, path, wanted)):
        yield item if item is None or isinstance(item, BadImage) else _record(dataset, path, number, item)
    if number < 0:
        yield BadImage(path, f"holds no images; write it again, or leave it out by {SKIP}")


def count(dataset: Dataset, path: str) -> Tuple[int, Optional[BadImage]]:
    """The number of samples and faults of a TFRecord file or tar, and the fault of the file itself. Reads no image."""
    number, fault = 0, None
    for item in samples(dataset, path, lambda number: False):
        number += 1
        if fault is None and isinstance(item, BadImage):
            fault = item
    return number, fault


def content(dataset: Dataset, record: Record) -> bytes:
    """The bytes of an image. Raises BadImage if they cannot be read."""
    if record.data is not None:
        return record.data
    if dataset.format != "folder":
        items = samples(dataset, record.file, lambda number: number == record.number)
        item = next(islice(items, record.number, None), None)
        if isinstance(item, Record) and item.data is not None:
            return item.data
        raise item if isinstance(item, BadImage) else BadImage(record.where, "is no longer there")
    try:
        with open(record.file, "rb") as file:
            return file.read()
    except OSError as error:
        raise BadImage(record.where, f"cannot be read: {error.strerror}") from None


def _stored(kind: str, path: str, wanted: Callable[[int], bool]) -> Iterator[Union[Sample, BadImage, None]]:
    if kind == "webdataset":
        yield from tars.samples(path, wanted)
        return
    for number, data in enumerate(tfrecords.records(path, wanted)):
        yield _of_example(tfrecords.where(path, number), data) if isinstance(data, bytes) else data


def _of_example(where: str, data: bytes) -> Union[Sample, BadImage]:
    try:
        values = tf_example.parse(data)
    except ValueError as error:
        return BadImage(where, error)
    for name, kind, text in ((IMAGE, bytes, "bytes"), (LABEL, int, "an integer")):
        if name not in values:
            return BadImage(where, f"no {name}")
        if len(values[name]) > 1:
            return BadImage(where, f"{len(values[name])} values in {name}; one is allowed")
        if not values[name] or not isinstance(values[name][0], kind):
            return BadImage(where, f"{name} is not {text}")
    image, label = values[IMAGE][0], values[LABEL][0]
    assert isinstance(image, bytes)
    assert isinstance(label, int)
    return Sample(where, image, label)


def _record(dataset: Dataset, path: str, number: int, sample: Sample) -> Item:
    fault = _label_fault(dataset, sample)
    return fault or Record(sample.where, sample.image, sample.label - dataset.first, path, number)


def _label_fault(dataset: Dataset, sample: Sample) -> Optional[BadImage]:
    """The fault of a label, as stored in a file; None if it is in range."""
    first, classes, (where, _, label) = dataset.first, dataset.classes, sample
    if dataset.first_label is None and label == (0 if first else classes):
        more = "" if first else f"if there are more than {classes} classes, raise --classes; "
        return BadSet(
            where,
            f"label {label}; labels of {NAMES[dataset.format]} count from {first}: if yours count from {1 - first},"
            f" give --first-label {1 - first}; {more}if this label is wrong, give --first-label {first} {SKIP}",
        )
    if label < first:
        return BadImage(where, f"label {label}; the first is {first}; leave such images out by {SKIP}")
    if classes is not None and label >= first + classes:
        last = first + classes - 1
        why = f"label {label}; with {classes} classes the last is {last}"
        return BadImage(where, f"{why}; give more by --classes, or leave such images out by {SKIP}")
    return None

"""Which image TensorFlow could not use, and why. Imported with TensorFlow, so from inside functions only."""

from __future__ import annotations

import os
from itertools import islice
from typing import Any, Iterator, List, Optional, Sequence, Tuple

import tensorflow as tf

from bench.images import decoding, epoch, tars, tfrecords
from bench.images.dataset import Dataset
from bench.images.epoch import Part, Piece, Record
from bench.images.faults import BadImage, one_line
from bench.images.pipelines import Asked

SEPARATOR = "\0"


class Faults:
    """The table of images that are being decoded or could not be, and what Python's readers found."""

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self.table = tf.lookup.experimental.MutableHashTable(tf.int64, tf.string, "")
        self.raised: Optional[BaseException] = None
        self.reasons: List[str] = []

    def tell(self, fault: BadImage, images: int = 1) -> None:
        """Count a fault, or raise it, so that TensorFlow stops."""
        if self.asked.errors == "stop":
            self.raised = self.raised or fault
            raise fault
        self.reasons.extend([str(fault)] * images)

    def samples(self, path: bytes, first: int, stop: int, last: bool) -> Iterator[Tuple[bytes, int, bytes, int]]:
        """Path, number, image and label of each image of a piece of a tar, for TensorFlow."""
        piece = Piece(os.fsdecode(path), int(first), int(stop), bool(last))
        try:
            for number, record in enumerate(epoch.of_piece(self.asked.dataset, piece, tars.grouped), piece.first):
                if isinstance(record, BadImage):
                    self.tell(record)
                else:
                    yield path, number, record.data or b"", record.label
        except (BadImage, GeneratorExit):
            raise
        except BaseException as error:
            # TensorFlow would make a text of it, or leave it out with the images.
            self.raised = error
            raise

    def opens(self, path: Any) -> bool:
        """Whether a file can be opened; tells where not."""
        file = os.fsdecode(path.numpy())
        try:
            with open(file, "rb"):
                return True
        except OSError as error:
            self.tell(BadImage(file, f"cannot be read: {error.strerror}"))
        return False

    def ended(self, path: Any, start: Any, stop: Any, last: Any, number: Any) -> bool:
        """Judge a piece of a TFRecord file, which TensorFlow read up to record `number`. Returns False."""
        file, read = os.fsdecode(path.numpy()), int(number)
        piece = Piece(file, int(start), int(stop), bool(last))
        first: Optional[BadImage] = None
        lost = 0
        for found in islice(tfrecords.records(file, lambda other: other >= read), read, piece.stop + piece.last):
            lost += 1
            if first is None and isinstance(found, BadImage):
                first = found
        fault = epoch.miscounted(piece, read + lost)
        if fault is not None:
            self.tell(fault)
        elif lost:
            first = first or BadImage(tfrecords.where(file, read), "tensorflow cannot read it")
            rest = f"; {lost} records are left out with it" if lost > 1 else ""
            self.tell(BadImage(first.where, first.reason + rest), lost)
        return False

    def cause(self, error: BaseException) -> Optional[BaseException]:
        """What made TensorFlow stop, where that is an image or a reader."""
        if self.raised is not None:
            return self.raised
        # Images leave in order, so all before the first that stays have been decoded.
        _, address = min(zip(*(tensor.numpy() for tensor in self.table.export())), default=(0, b""))
        if not address:
            return None
        fault = diagnosis(self.asked.dataset, address)
        if fault is None and isinstance(error, tf.errors.InvalidArgumentError):
            fault = _undecodable(address)
        return fault

    def left_out(self, missing: Optional[Sequence[int]]) -> List[str]:
        """Why these images are missing, and what the readers left out since; None: whatever is missing."""
        # TensorFlow's threads go on adding to it.
        reasons = self.reasons[:]
        del self.reasons[: len(reasons)]
        numbers = self.table.export()[0].numpy() if missing is None else missing
        if len(numbers):
            keys = tf.constant(sorted(numbers), tf.int64)
            reasons = reasons + [self._reason(address) for address in self.table.lookup(keys).numpy()]
            self.table.remove(keys)
        return reasons

    def raise_unexpected(self) -> None:
        if self.raised is not None:
            raise self.raised

    def _reason(self, address: bytes) -> str:
        return str(diagnosis(self.asked.dataset, address) or _undecodable(address))


def diagnosis(dataset: Dataset, address: bytes) -> Optional[BadImage]:
    """What Pillow and Python's readers find wrong with one image, or None."""
    path, _, number = os.fsdecode(address).partition(SEPARATOR)
    found: Any = Record(path, None, 0)
    if number:
        at = int(number)
        items = epoch.of_file(dataset, path, lambda other: other == at, tars.grouped)
        found = next(islice(items, at, None), None)
    return found if isinstance(found, BadImage) else _fault(found)


def _undecodable(address: bytes) -> BadImage:
    return BadImage(os.fsdecode(address).replace(SEPARATOR, ", record "), "tensorflow cannot decode it, Pillow can")


def require_usable(dataset: Dataset) -> None:
    """Raise ValueError where no image at all can be used: to repeat that would never end."""
    first: Optional[BadImage] = None
    for found in epoch.epoch(dataset, Part(), 0, None, tars.grouped):
        fault = found if isinstance(found, BadImage) else _fault(found)
        if fault is None:
            return
        first = first or fault
    why = f"; the first: {first}" if first else ""
    raise ValueError(f"{one_line(dataset.root)} has no image that can be used{why}")


def _fault(record: Optional[Record]) -> Optional[BadImage]:
    try:
        if record is not None:
            decoding.decode(epoch.content(record), record.where)
    except BadImage as fault:
        return fault
    return None

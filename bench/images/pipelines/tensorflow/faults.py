"""The images that TensorFlow could not use, and why. It imports TensorFlow, so import it from functions only."""

from __future__ import annotations

import os
from itertools import islice
from typing import Any, Iterator, List, Optional, Sequence, Tuple

import tensorflow as tf

from bench.images import decoding, epoch, tars, tfrecords
from bench.images.dataset import Dataset
from bench.images.epoch import Part, Piece, Record
from bench.images.faults import BadImage, one_line
from bench.images.pipelines import Request

SEPARATOR = "\0"


class Faults:
    """The table of images that are being decoded or could not be, and the faults that Python's readers reported."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.table = tf.lookup.experimental.MutableHashTable(tf.int64, tf.string, "")
        self.raised: Optional[BaseException] = None
        self.reasons: List[str] = []

    def tell(self, fault: BadImage, images: int = 1) -> None:
        """Count a fault, or raise it, so that TensorFlow stops."""
        if self.request.errors == "stop":
            self.raised = self.raised or fault
            raise fault
        self.reasons.extend([str(fault)] * images)

    def samples(self, path: bytes, first: int, stop: int, last: bool) -> Iterator[Tuple[bytes, int, bytes, int]]:
        """Path, number, image and label of each image of a piece of a tar, for TensorFlow."""
        piece = Piece(os.fsdecode(path), int(first), int(stop), bool(last))
        try:
            for number, record in enumerate(
                epoch.piece_records(self.request.dataset, piece, tars.grouped), piece.first
            ):
                if isinstance(record, BadImage):
                    self.tell(record)
                else:
                    yield path, number, record.data or b"", record.label
        except (BadImage, GeneratorExit):
            raise
        except BaseException as error:
            # TensorFlow would turn it into a text, or ignore it together with bad images.
            self.raised = error
            raise

    def opens(self, path: Any) -> bool:
        """Whether a file can be opened; if not, report the fault."""
        file = os.fsdecode(path.numpy())
        try:
            with open(file, "rb"):
                return True
        except OSError as error:
            self.tell(BadImage(file, f"cannot be read: {error.strerror}"))
        return False

    def ended(self, path: Any, start: Any, stop: Any, last: Any, number: Any) -> bool:
        """Report what is lost of a piece of a TFRecord file that TensorFlow has read up to `number`. Returns False."""
        file, read = os.fsdecode(path.numpy()), int(number)
        piece = Piece(file, int(start), int(stop), bool(last))
        first: Optional[BadImage] = None
        lost = 0
        for item in islice(tfrecords.records(file, lambda n: n >= read), read, piece.stop + piece.last):
            lost += 1
            if first is None and isinstance(item, BadImage):
                first = item
        fault = epoch.miscounted(piece, read + lost)
        if fault is not None:
            self.tell(fault)
        elif lost:
            first = first or BadImage(tfrecords.where(file, read), "tensorflow cannot read it")
            rest = f"; {lost} records are left out with it" if lost > 1 else ""
            self.tell(BadImage(first.where, first.reason + rest), lost)
        return False

    def cause(self, error: BaseException) -> Optional[BaseException]:
        """The fault of an image or a reader that made TensorFlow stop; None: it was something else."""
        if self.raised is not None:
            return self.raised
        # Images leave the table in order, so all images before the first remaining one have been decoded.
        _, address = min(zip(*(tensor.numpy() for tensor in self.table.export())), default=(0, b""))
        if not address:
            return None
        fault = diagnosis(self.request.dataset, address)
        if fault is None and isinstance(error, tf.errors.InvalidArgumentError):
            fault = _undecodable(address)
        return fault

    def left_out(self, missing: Optional[Sequence[int]]) -> List[str]:
        """Why these images are missing, and the faults of readers since the last call. None: all that remain."""
        # TensorFlow's threads may add reasons meanwhile.
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
        return str(diagnosis(self.request.dataset, address) or _undecodable(address))


def diagnosis(dataset: Dataset, address: bytes) -> Optional[BadImage]:
    """The fault that Pillow and Python's readers find in one image, or None."""
    path, _, number = os.fsdecode(address).partition(SEPARATOR)
    item: Any = Record(path, None, 0)
    if number:
        at = int(number)
        items = epoch.file_records(dataset, path, lambda n: n == at, tars.grouped)
        item = next(islice(items, at, None), None)
    return item if isinstance(item, BadImage) else _fault(item)


def _undecodable(address: bytes) -> BadImage:
    return BadImage(os.fsdecode(address).replace(SEPARATOR, ", record "), "tensorflow cannot decode it, Pillow can")


def require_usable(dataset: Dataset) -> None:
    """Raise ValueError if no image can be used, since repeated epochs would then never yield a batch."""
    first: Optional[BadImage] = None
    for item in epoch.epoch(dataset, Part(), 0, None, tars.grouped):
        fault = item if isinstance(item, BadImage) else _fault(item)
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

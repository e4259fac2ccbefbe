"""The samples that TensorFlow gets, and the images that it could not use. It imports TensorFlow, so import it from
functions only."""

from __future__ import annotations

import itertools
from collections import deque
from typing import Any, Deque, Iterator, List, Optional, Tuple

import numpy as np
import tensorflow as tf

from bench.images import decoding, epoch, sets
from bench.images.dataset import Dataset
from bench.images.faults import BadImage
from bench.images.pipelines import Request
from bench.images.sets import Record

# Samples that TensorFlow gets at a time: one by one, each takes 0.3 ms of Python's time more.
GROUP = 8
# Numbers, images and labels.
Group = Tuple[Any, Any, Any]


class Reading:
    """The samples of each part, numbered. Image `n` of part `p` has the number `n * parts + p`.

    pending   of each part, the images that have not arrived in a batch; without their bytes
    decoded   of each part, the number of the last decoded image
    raised    why a part has ended
    reasons   why readers skipped images
    """

    def __init__(self, request: Request) -> None:
        self.request = request
        self.parts = max(1, request.workers)
        self.pending: List[Deque[Tuple[int, Record]]] = [deque() for _ in range(self.parts)]
        self.decoded = tf.lookup.experimental.MutableHashTable(tf.int64, tf.int64, -1)
        self.raised: Optional[BaseException] = None
        self.reasons: List[str] = []

    def samples(self, part: Any) -> Iterator[Group]:
        """The samples of a part, a few at a time. A fault that stops is kept for `Reading.raised`."""
        try:
            yield from self._samples(int(part))
        except GeneratorExit:
            raise
        except BaseException as error:  # noqa: BLE001 - TensorFlow would turn it into a text, or ignore it
            self.raised = self.raised or error

    def _samples(self, part: int) -> Iterator[Group]:
        request, number, unusable = self.request, part, 0
        group: List[Tuple[int, bytes, int]] = []
        seed = request.seed if request.training else None
        for turn in itertools.count() if request.repeat else (0,):
            first, items = number, 0
            for item in epoch.epoch(request.dataset, request.part(part, self.parts), turn, seed):
                items += 1
                try:
                    if isinstance(item, BadImage):
                        raise item
                    data = sets.content(request.dataset, item)
                except BadImage as fault:
                    if request.stops(fault):
                        raise
                    self.reasons.append(str(fault))
                    continue
                self.pending[part].append((number, Record(item.where, None, item.label, item.file, item.number)))
                group.append((number, data, item.label))
                number += self.parts
                if len(group) == GROUP:
                    yield _columns(group)
                    group = []
            if group:
                yield _columns(group)
                group = []
            # TensorFlow asks for more when it has decoded the last. If none can be used, this must not go on for ever.
            some = request.errors == "stop" or int(self.decoded.lookup(tf.constant(part, tf.int64))) >= first
            unusable = 0 if some else unusable + items
            if unusable >= (request.dataset.count or 0):
                return

    def left_out(self, numbers: Any) -> List[str]:
        """Why images are missing before these in their part, and why readers skipped others since the last call."""
        pending = self.pending[int(numbers[0]) % self.parts]
        missing = []
        for number in numbers.tolist():
            while pending[0][0] != number:
                missing.append(pending.popleft()[1])
            pending.popleft()
        return self._reasons(missing)

    def left_out_at_end(self) -> List[str]:
        missing = [record for pending in self.pending for _, record in pending]
        for pending in self.pending:
            pending.clear()
        return self._reasons(missing)

    def _reasons(self, missing: List[Record]) -> List[str]:
        # Threads may add reasons meanwhile.
        reasons = self.reasons[:]
        del self.reasons[: len(reasons)]
        return reasons + [str(fault_of(self.request.dataset, record) or _undecodable(record)) for record in missing]

    def cause(self) -> Optional[BaseException]:
        """The fault of an image that made TensorFlow stop; None: it was something else."""
        # A part may still add images.
        pending = sorted((entry for part in self.pending for entry in part.copy()), key=lambda entry: entry[0])
        for _, record in pending:
            fault = fault_of(self.request.dataset, record)
            if fault is not None:
                return fault
            try:
                tf.io.decode_image(sets.content(self.request.dataset, record))
            except tf.errors.InvalidArgumentError:
                return _undecodable(record)
        return None


def _columns(group: List[Tuple[int, bytes, int]]) -> Group:
    images: Any = np.empty(len(group), object)
    images[:] = [data for _, data, _ in group]
    numbers, labels = (np.array([sample[column] for sample in group], np.int64) for column in (0, 2))
    return numbers, images, labels


def fault_of(dataset: Dataset, record: Record) -> Optional[BadImage]:
    """The fault that Pillow finds in an image."""
    try:
        decoding.decode(sets.content(dataset, record), record.where)
    except BadImage as fault:
        return fault
    return None


def _undecodable(record: Record) -> BadImage:
    return BadImage(record.where, "tensorflow cannot decode it, Pillow can")

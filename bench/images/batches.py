"""What an open input pipeline gives: whole batches."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Generator, Iterator, List, Optional, Tuple

import numpy as np

from bench.images.dataset import Dataset
from bench.images.faults import BadImage, Skipped, one_line

Batch = Tuple[Any, Any]


@dataclass
class Chunk:
    """Some images, (count, height, width, 3) of uint8, their labels, and what was left out before."""

    images: Any
    labels: Any
    skipped: List[str] = field(default_factory=list)
    fault: Optional[BadImage] = None


class Batches:
    """An iterator of (images, labels).

    images    (batch, 3, image_size, image_size) of uint8, a view of (batch, image_size, image_size, 3);
              it may be read-only
    labels    (batch,) of int64
    skipped   images left out so far; it may run ahead of the batches
    """

    def __init__(
        self, dataset: Dataset, chunks: Iterator[Chunk], batch_size: int, repeat: bool, rest: bool = False
    ) -> None:
        self.skipped = Skipped()
        self._dataset = dataset
        self._batch_size = batch_size
        self._repeat = repeat
        self._rest = rest
        self._batches = self._whole(chunks)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        return next(self._batches)

    def close(self) -> None:
        self._batches.close()

    def _whole(self, chunks: Iterator[Chunk]) -> Generator[Batch, None, None]:
        waiting: List[Chunk] = []
        made = False
        for chunk in chunks:
            for reason in chunk.skipped:
                self.skipped.add(reason)
            if chunk.fault is not None:
                raise chunk.fault
            if len(chunk.labels):
                waiting.append(chunk)
            while sum(len(one.labels) for one in waiting) >= self._batch_size:
                batch, waiting = _cut(waiting, self._batch_size)
                made = True
                yield batch.images.transpose(0, 3, 1, 2), batch.labels
        if self._rest and waiting:
            batch, _ = _cut(waiting, sum(len(one.labels) for one in waiting))
            made = True
            yield batch.images.transpose(0, 3, 1, 2), batch.labels
        if self._repeat or not made:
            raise ValueError(self._too_few(sum(len(one.labels) for one in waiting)))

    def _too_few(self, count: int) -> str:
        left_out = f"; {self.skipped.total} left out, the first: {self.skipped.first}" if self.skipped.total else ""
        what = "no image that can be used" if self._repeat or not count else f"{count} images"
        return f"{one_line(self._dataset.root)} has {what}, fewer than a batch of {self._batch_size}{left_out}"


def _cut(chunks: List[Chunk], count: int) -> Tuple[Chunk, List[Chunk]]:
    """The first `count` images, without a copy when they are one chunk, and the rest."""
    if len(chunks) == 1 and len(chunks[0].labels) == count:
        return chunks[0], []
    images = np.concatenate([chunk.images for chunk in chunks])
    labels = np.concatenate([chunk.labels for chunk in chunks])
    return Chunk(images[:count], labels[:count]), [Chunk(images[count:], labels[count:])]

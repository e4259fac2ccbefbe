"""The batches of an open input pipeline."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Generator, Iterator, List, Optional, Tuple

import numpy as np

from bench.images.faults import BadImage, Skipped, one_line
from bench.images.pipelines import Request

Batch = Tuple[Any, Any]


@dataclass
class Chunk:
    """Images, (count, height, width, 3) of uint8, and their labels.

    skipped   why images before these were skipped, a reason for each
    fault     the fault that ends the pipeline after them
    """

    images: Any
    labels: Any
    skipped: List[str] = field(default_factory=list)
    fault: Optional[BadImage] = None


class Batches:
    """An iterator of (images, labels).

    images    (batch, 3, image_size, image_size) of uint8, a view of (batch, image_size, image_size, 3);
              it may be read-only
    labels    (batch,) of int64
    skipped   images skipped so far; it may include images of later batches
    """

    def __init__(self, request: Request, chunks: Iterator[Chunk]) -> None:
        self.skipped = Skipped()
        self._request = request
        self._batches = self._generate(chunks)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        return next(self._batches)

    def close(self) -> None:
        self._batches.close()

    def _generate(self, chunks: Iterator[Chunk]) -> Generator[Batch, None, None]:
        pending: List[Chunk] = []
        yielded = False
        size = self._request.batch_size
        for chunk in chunks:
            for reason in chunk.skipped:
                self.skipped.add(reason)
            if chunk.fault is not None:
                raise chunk.fault
            if len(chunk.labels):
                pending.append(chunk)
            while _count(pending) >= size:
                batch, pending = _cut(pending, size)
                yielded = True
                yield batch.images.transpose(0, 3, 1, 2), batch.labels
        if self._request.rest and pending:
            batch, _ = _cut(pending, _count(pending))
            yielded = True
            yield batch.images.transpose(0, 3, 1, 2), batch.labels
        if self._request.repeat or not yielded:
            raise ValueError(self._too_few(_count(pending)))

    def _too_few(self, count: int) -> str:
        request = self._request
        owner = one_line(request.dataset.root)
        if request.replicas > 1:
            owner = f"the share of replica {request.replica} of {request.replicas} in {owner}"
        left_out = f"; {self.skipped.total} left out, the first: {self.skipped.first}" if self.skipped.total else ""
        content = "no image that can be used" if request.repeat or not count else f"{count} images"
        return f"{owner} has {content}, fewer than a batch of {request.batch_size}{left_out}"


def _count(chunks: List[Chunk]) -> int:
    return sum(len(chunk.labels) for chunk in chunks)


def _cut(chunks: List[Chunk], count: int) -> Tuple[Chunk, List[Chunk]]:
    """The first `count` images, and the rest. They are not copied if they are one chunk."""
    if len(chunks) == 1 and len(chunks[0].labels) == count:
        return chunks[0], []
    images = np.concatenate([chunk.images for chunk in chunks])
    labels = np.concatenate([chunk.labels for chunk in chunks])
    return Chunk(images[:count], labels[:count]), [Chunk(images[count:], labels[count:])]

"""The undecoded images of a set in the order of an epoch, divided into parts.

A part is read by one worker of one replica. Epochs follow each other without a gap: image `n` of an epoch has the
position `epoch * count + n`, and positions are assigned to the parts in turn, in blocks of a batch. So after any number
of batches all parts together have read each image equally often, except for the current epoch.

Folders    a part reads the images at its positions. Training shuffles all images; evaluation does not
Shards     a part reads as many images as it has positions, but as consecutive records of few files. Training
           shuffles the files of each epoch, and a buffer of images within each part
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Iterable, Iterator, List, NamedTuple, Optional, Sequence

import numpy as np

from bench.images import sets
from bench.images.dataset import Dataset
from bench.images.faults import BadImage
from bench.images.sets import Item, Record

# The size of the shuffle buffers for shards, in undecoded images, of all workers together.
SHUFFLED = 1024


@dataclass(frozen=True)
class Part:
    """Part `index` of `parts`, in blocks of `block` images."""

    index: int = 0
    parts: int = 1
    block: int = 1

    def takes(self, position: int) -> bool:
        return position // self.block % self.parts == self.index

    def taken(self, stop: int) -> int:
        """The number of positions below `stop` that belong to this part."""
        rounds, rest = divmod(stop, self.block * self.parts)
        return rounds * self.block + min(max(rest - self.index * self.block, 0), self.block)


class Piece(NamedTuple):
    """Images `first` to `stop` - 1 of a file. `last`: these are the last images of the file."""

    path: str
    first: int
    stop: int
    last: bool


def epoch(dataset: Dataset, part: Part, number: int, seed: Optional[int]) -> Iterator[Item]:
    """The records of one epoch. A `seed` shuffles them; it must be the same in all parts."""
    draw = None if seed is None else np.random.default_rng([seed, number])
    if dataset.format == "folder":
        yield from _of_folder(dataset, part, number, draw)
        return
    items = (item for piece in pieces(dataset, part, number, draw) for item in piece_records(dataset, piece))
    if draw is None:
        yield from items
    else:
        generator = random.Random(int(draw.integers(2**62)) + part.index)
        yield from shuffled(items, max(16, SHUFFLED // part.parts), generator)


def pieces(dataset: Dataset, part: Part, number: int, draw: Optional[np.random.Generator]) -> List[Piece]:
    """The pieces of shards that a part reads in an epoch, in order."""
    begin, end = number * sum(dataset.counts), (number + 1) * sum(dataset.counts)
    parts = [replace(part, index=index) for index in range(part.parts)]
    sizes = [other.taken(end) - other.taken(begin) for other in parts]
    first = sum(sizes[: part.index])
    stop = first + sizes[part.index]
    chosen, before = [], 0
    order = range(len(dataset.files)) if draw is None else draw.permutation(len(dataset.files))
    for index in order:
        count = dataset.counts[index]
        a, b = max(first - before, 0), min(stop - before, count)
        if a < b:
            chosen.append(Piece(dataset.path(dataset.files[index]), a, b, b == count))
        before += count
    return chosen


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


def _of_folder(dataset: Dataset, part: Part, number: int, draw: Optional[np.random.Generator]) -> Iterator[Item]:
    count = len(dataset.files)
    order: Sequence[int] = range(count) if draw is None else draw.permutation(count)
    for position, index in enumerate(order, number * count):
        if part.takes(position):
            path = dataset.path(dataset.files[index])
            yield Record(path, None, dataset.labels[index], path)


def piece_records(dataset: Dataset, piece: Piece) -> Iterator[Item]:
    """The records of a piece, and a fault if the file does not hold the counted number of images."""
    path, first, stop, last = piece
    number = first
    for item in islice(sets.samples(dataset, path, lambda n: first <= n < stop), first, stop + last):
        if number < stop and item is not None:
            yield item
        number += 1
    fault = miscounted(piece, number)
    if fault is not None:
        yield fault


def miscounted(piece: Piece, number: int) -> Optional[BadImage]:
    """The fault of a file of which a piece was read up to image `number`; None if that agrees with the count."""
    if number == piece.stop:
        return None
    content = f"{number} images" if number < piece.stop else f"more than {piece.stop} images"
    return BadImage(
        piece.path, f"holds {content}, and was counted to hold {piece.stop}; it has changed, or sizes.json is wrong"
    )

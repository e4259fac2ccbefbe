"""What a worker of torch's DataLoader does. Imported with torch, so from inside functions only."""

from __future__ import annotations

import itertools
import random
from typing import Any, BinaryIO, Iterable, Iterator, List, Optional, Tuple

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from bench.images import decoding, tars
from bench.images import epoch as records
from bench.images.faults import BadImage
from bench.images.pipelines import Asked

# Images, labels, why others were left out, and the fault that ends it, as what BadImage is made of.
Sent = Tuple[Any, Any, List[str], Optional[Tuple[str, str]]]


class Stream(IterableDataset):  # type: ignore[misc]
    """A worker's part of the images, in chunks of a batch."""

    def __init__(self, asked: Asked) -> None:
        super().__init__()
        self.asked = asked

    def __iter__(self) -> Iterator[Sent]:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        asked = self.asked
        # Of the batches of all replicas, dealt out in turn, those of a replica are dealt out to its workers.
        index = worker * asked.replicas + asked.replica
        return _sent(asked, records.Part(index, workers * asked.replicas, asked.batch_size))


def _sent(asked: Asked, part: records.Part) -> Iterator[Sent]:
    """A fault is sent as a value: raised here, it would arrive with two tracebacks in its text."""
    pixels = _blank(asked)
    labels: List[int] = []
    skipped: List[str] = []
    for item in _shown(asked, part):
        if isinstance(item, BadImage):
            if asked.errors == "stop":
                yield _packed(pixels, labels, skipped, (item.where, item.reason))
                return
            skipped.append(str(item))
            continue
        pixels[len(labels)], label = item
        labels.append(label)
        if len(labels) == asked.batch_size:
            yield _packed(pixels, labels, skipped, None)
            pixels, labels, skipped = _blank(asked), [], []
    yield _packed(pixels, labels, skipped, None)


def _shown(asked: Asked, part: records.Part) -> Iterator[Any]:
    """The pixels and label of each image, or its fault, of one pass or of all."""
    seed = asked.seed if asked.training else None
    unusable = 0
    for epoch in itertools.count() if asked.repeat else (0,):
        for found in records.epoch(asked.dataset, part, epoch, seed, grouped):
            item = found if isinstance(found, BadImage) else _pixels(asked, found, epoch)
            unusable = unusable + 1 if isinstance(item, BadImage) else 0
            yield item
        # Where nothing can be used, this worker must not spin for ever.
        if unusable >= (asked.dataset.count or 0):
            return


def _pixels(asked: Asked, record: records.Record, epoch: int) -> Any:
    # Each image has its own draw, so that it does not matter which worker gets it.
    draw = random.Random(f"{asked.seed} {epoch} {record.where}") if asked.training else None
    try:
        return decoding.shown(records.content(record), record.where, asked.image_size, draw), record.label
    except BadImage as fault:
        return fault


def _blank(asked: Asked) -> Any:
    return np.empty((asked.batch_size, asked.image_size, asked.image_size, 3), np.uint8)


def _packed(pixels: Any, labels: List[int], skipped: List[str], fault: Optional[Tuple[str, str]]) -> Sent:
    count = len(labels)
    return torch.from_numpy(pixels[:count]), torch.from_numpy(np.array(labels, np.int64)), skipped, fault


def grouped(file: BinaryIO, path: str) -> Iterable[tars.Sample]:
    """The samples of an open tar, as webdataset makes them."""
    from webdataset import tariterators

    files = ({**found, "__url__": path} for found in tariterators.tar_file_iterator(file))
    samples: Iterable[tars.Sample] = tariterators.group_by_keys(files)
    return samples

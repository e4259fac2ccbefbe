"""The work of a worker of torch's DataLoader. It imports torch, so import it from functions only."""

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
from bench.images.pipelines import Request

# Images, labels, why others were skipped, and the arguments of the BadImage that ends the pipeline.
Sent = Tuple[Any, Any, List[str], Optional[Tuple[str, str]]]


class Stream(IterableDataset):  # type: ignore[misc]
    """A worker's part of the images, in chunks of a batch."""

    def __init__(self, request: Request) -> None:
        super().__init__()
        self.request = request

    def __iter__(self) -> Iterator[Sent]:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        request = self.request
        # Batches are assigned to the replicas in turn, and those of a replica to its workers in turn.
        index = worker * request.replicas + request.replica
        return _sent(request, records.Part(index, workers * request.replicas, request.batch_size))


def _sent(request: Request, part: records.Part) -> Iterator[Sent]:
    """The chunks of a part. A fault is sent as a value: an exception would arrive with two tracebacks in its text."""
    pixels = _blank(request)
    labels: List[int] = []
    skipped: List[str] = []
    for item in _shown(request, part):
        if isinstance(item, BadImage):
            if request.errors == "stop":
                yield _packed(pixels, labels, skipped, (item.where, item.reason))
                return
            skipped.append(str(item))
            continue
        pixels[len(labels)], label = item
        labels.append(label)
        if len(labels) == request.batch_size:
            yield _packed(pixels, labels, skipped, None)
            pixels, labels, skipped = _blank(request), [], []
    yield _packed(pixels, labels, skipped, None)


def _shown(request: Request, part: records.Part) -> Iterator[Any]:
    """The pixels and label of each image, or its fault, in one pass or in repeated ones."""
    seed = request.seed if request.training else None
    unusable = 0
    for epoch in itertools.count() if request.repeat else (0,):
        for record in records.epoch(request.dataset, part, epoch, seed, grouped):
            item = record if isinstance(record, BadImage) else _pixels(request, record, epoch)
            unusable = unusable + 1 if isinstance(item, BadImage) else 0
            yield item
        # If no image can be used, this worker must not loop for ever.
        if unusable >= (request.dataset.count or 0):
            return


def _pixels(request: Request, record: records.Record, epoch: int) -> Any:
    # Each image has a generator of its own: neither the worker that gets it nor the path of the set makes a difference.
    name = record.where[len(request.dataset.root) :]
    draw = random.Random(f"{request.seed} {epoch} {name}") if request.training else None
    try:
        return decoding.shown(records.content(record), record.where, request.image_size, draw), record.label
    except BadImage as fault:
        return fault


def _blank(request: Request) -> Any:
    return np.empty((request.batch_size, request.image_size, request.image_size, 3), np.uint8)


def _packed(pixels: Any, labels: List[int], skipped: List[str], fault: Optional[Tuple[str, str]]) -> Sent:
    count = len(labels)
    return torch.from_numpy(pixels[:count]), torch.from_numpy(np.array(labels, np.int64)), skipped, fault


def grouped(file: BinaryIO, path: str) -> Iterable[tars.Sample]:
    """The samples of an open tar, as webdataset makes them."""
    from webdataset import tariterators

    files = ({**file, "__url__": path} for file in tariterators.tar_file_iterator(file))
    samples: Iterable[tars.Sample] = tariterators.group_by_keys(files)
    return samples

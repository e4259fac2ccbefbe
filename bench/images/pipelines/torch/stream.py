"""The work of a worker of torch's DataLoader. It imports torch, so import it from functions only."""

from __future__ import annotations

import itertools
import random
from typing import Any, Iterator, List, Optional, Tuple

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from bench.images import decoding, sets
from bench.images import epoch as records
from bench.images.faults import BadImage
from bench.images.pipelines import Request

# Images, labels, why others were skipped, and the fault that ends the pipeline.
Sent = Tuple[Any, Any, List[str], Optional[BadImage]]


class Stream(IterableDataset):  # type: ignore[misc]
    """A worker's part of the images, in chunks of a batch."""

    def __init__(self, request: Request) -> None:
        super().__init__()
        self.request = request

    def __iter__(self) -> Iterator[Sent]:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        request = self.request
        return _sent(request, request.part(worker, workers))


def _sent(request: Request, part: records.Part) -> Iterator[Sent]:
    """The chunks of a part. A fault is sent as a value: an exception would arrive with two tracebacks in its text."""
    pixels = _blank(request)
    labels: List[int] = []
    skipped: List[str] = []
    for item in _shown(request, part):
        if isinstance(item, BadImage):
            if request.stops(item):
                yield _packed(pixels, labels, skipped, item)
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
        for record in records.epoch(request.dataset, part, epoch, seed):
            item = record if isinstance(record, BadImage) else _pixels(request, record, epoch)
            unusable = unusable + 1 if isinstance(item, BadImage) else 0
            yield item
        # If no image can be used, this worker must not loop for ever.
        if unusable >= (request.dataset.count or 0):
            return


def _pixels(request: Request, record: sets.Record, epoch: int) -> Any:
    # Each image has a generator of its own: neither the worker that gets it nor the path of the set makes a difference.
    name = record.where[len(request.dataset.root) :]
    draw = random.Random(f"{request.seed} {epoch} {name}") if request.training else None
    try:
        data = sets.content(request.dataset, record)
        return decoding.shown(data, record.where, request.image_size, draw), record.label
    except BadImage as fault:
        return fault


def _blank(request: Request) -> Any:
    return np.empty((request.batch_size, request.image_size, request.image_size, 3), np.uint8)


def _packed(pixels: Any, labels: List[int], skipped: List[str], fault: Optional[BadImage]) -> Sent:
    count = len(labels)
    return torch.from_numpy(pixels[:count]), torch.from_numpy(np.array(labels, np.int64)), skipped, fault

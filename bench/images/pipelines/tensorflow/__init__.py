"""tf.data: threads that read, decode with TensorFlow's kernels, and cut images.

Files are read in turn, images decoded and batched in parallel, two batches ahead.

Resampling  bilinear without antialiasing, as in TensorFlow's own ResNet: with it, the kernel takes
            longer than decoding does (2.7 ms beside 2 ms for 500 x 375), and the rate is half
Faults      TensorFlow's errors name no file. Each image is entered in a table before it is decoded and
            struck out after; what stays there is read again with Pillow, which knows the reason
TFRecords   after a damaged record TensorFlow goes on with the next file, so `skip` counts the rest of
            the file as left out; a file is walked through once more, headers only, to know of it
"""

from __future__ import annotations

import contextlib
from typing import Any, Iterator, List

import numpy as np

from bench.images.batches import Batches, Chunk
from bench.images.dataset import Dataset
from bench.images.faults import require
from bench.images.pipelines import Asked

PACKAGE = "tensorflow"


@contextlib.contextmanager
def open(
    dataset: Dataset,
    *,
    batch_size: int,
    image_size: int,
    workers: int,
    training: bool,
    seed: int,
    errors: str,
    repeat: bool,
    rest: bool = False,
    replica: int = 0,
    replicas: int = 1,
) -> Iterator[Batches]:
    asked = Asked(dataset, batch_size, image_size, workers, training, seed, errors, repeat, rest, replica, replicas)
    require("tensorflow", "tensorflow-cpu")
    batches = Batches(dataset, _chunks(asked), batch_size, repeat, rest)
    try:
        yield batches
    finally:
        batches.close()


def _chunks(asked: Asked) -> Iterator[Chunk]:
    import tensorflow as tf

    from bench.images.pipelines.tensorflow import graph
    from bench.images.pipelines.tensorflow.faults import Faults, require_usable

    if asked.repeat and asked.errors == "skip":
        require_usable(asked.dataset)
    with tf.device("/CPU:0"):
        faults = Faults(asked)
        iterator = graph.batches(asked, faults).as_numpy_iterator()
    seen = 0
    while True:
        try:
            found = next(iterator, None)
        # The second: TensorFlow quotes what it cannot read, and Python cannot read that.
        except (tf.errors.OpError, UnicodeDecodeError) as error:
            fault = faults.cause(error)
            if fault is None:
                raise
            raise fault from None
        faults.raise_unexpected()
        if found is None:
            yield Chunk(_none(asked), np.zeros(0, np.int64), faults.left_out(None))
            return
        numbers, images, labels = found
        missing = _missing(numbers, seen)
        seen = int(numbers[-1]) + 1
        yield Chunk(images, labels, faults.left_out(missing))


def _none(asked: Asked) -> Any:
    return np.zeros((0, asked.image_size, asked.image_size, 3), np.uint8)


def _missing(numbers: Any, seen: int) -> List[int]:
    """The numbers from `seen` on that are not among the given ones, which ascend."""
    last = int(numbers[-1])
    if last + 1 - seen == len(numbers):
        return []
    return sorted(set(range(seen, last + 1)) - set(numbers.tolist()))

"""tf.data: threads that read, decode with TensorFlow's kernels, and crop images.

Files are interleaved, images decoded and batched in parallel, two batches ahead.

Resampling  bilinear without antialiasing, as in TensorFlow's own ResNet. With antialiasing the kernel
            takes longer than decoding (2.7 ms, decoding 2 ms, for 500 x 375), and the rate is half
Faults      TensorFlow's errors name no file. Each image is entered in a table before it is decoded and
            removed after. An image that remains is read again with Pillow, to find the reason
TFRecords   after a damaged record TensorFlow continues with the next file, so `skip` counts the rest of
            the file as skipped. The headers of each file are read once more to notice this
"""

from __future__ import annotations

import contextlib
from typing import Any, Iterator, List

import numpy as np

from bench.images.batches import Batches, Chunk
from bench.images.dataset import Dataset
from bench.images.faults import require
from bench.images.pipelines import Request

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
    request = Request(dataset, batch_size, image_size, workers, training, seed, errors, repeat, rest, replica, replicas)
    require("tensorflow", "tensorflow-cpu")
    batches = Batches(dataset, _chunks(request), batch_size, repeat, rest)
    try:
        yield batches
    finally:
        batches.close()


def _chunks(request: Request) -> Iterator[Chunk]:
    import tensorflow as tf

    from bench.images.pipelines.tensorflow import graph
    from bench.images.pipelines.tensorflow.faults import Faults, require_usable

    if request.repeat and request.errors == "skip":
        require_usable(request.dataset)
    with tf.device("/CPU:0"):
        faults = Faults(request)
        iterator = graph.batches(request, faults).as_numpy_iterator()
    expected = 0
    while True:
        try:
            batch = next(iterator, None)
        # UnicodeDecodeError: TensorFlow's message quotes a file name that is no UTF-8.
        except (tf.errors.OpError, UnicodeDecodeError) as error:
            fault = faults.cause(error)
            if fault is None:
                raise
            raise fault from None
        faults.raise_unexpected()
        if batch is None:
            yield Chunk(_no_images(request), np.zeros(0, np.int64), faults.left_out(None))
            return
        numbers, images, labels = batch
        missing = _missing(numbers, expected)
        expected = int(numbers[-1]) + 1
        yield Chunk(images, labels, faults.left_out(missing))


def _no_images(request: Request) -> Any:
    return np.zeros((0, request.image_size, request.image_size, 3), np.uint8)


def _missing(numbers: Any, expected: int) -> List[int]:
    """The numbers from `expected` to the last of `numbers` that are not among them. `numbers` ascend."""
    last = int(numbers[-1])
    if last + 1 - expected == len(numbers):
        return []
    return sorted(set(range(expected, last + 1)) - set(numbers.tolist()))

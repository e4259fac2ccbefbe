"""tf.data: threads that read, decode with TensorFlow's kernels, and crop images.

Each thread reads a part of the images in Python, decodes them and makes whole batches, two of them ahead.

Resampling  bilinear without antialiasing, as in TensorFlow's own ResNet. With antialiasing the kernel
            takes longer than decoding (2.7 ms, decoding 2 ms, for 500 x 375), and the rate is half
Faults      TensorFlow's errors name no image. Images that do not arrive in a batch are read again with Pillow, to
            find the reason
"""

from __future__ import annotations

import contextlib
from typing import Any, Iterator

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
    batches = Batches(request, _chunks(request))
    try:
        yield batches
    finally:
        batches.close()


def _chunks(request: Request) -> Iterator[Chunk]:
    import tensorflow as tf

    from bench.images.pipelines.tensorflow import graph
    from bench.images.pipelines.tensorflow.reading import Reading

    with tf.device("/CPU:0"):
        reading = Reading(request)
        iterator = graph.batches(request, reading).as_numpy_iterator()
    while True:
        try:
            batch = next(iterator, None)
        except tf.errors.OpError:
            fault = reading.raised or reading.cause()
            if fault is None:
                raise
            raise fault from None
        if reading.raised is not None:
            raise reading.raised
        if batch is None:
            yield Chunk(_no_images(request), np.zeros(0, np.int64), reading.left_out_at_end())
            return
        numbers, images, labels = batch
        yield Chunk(images, labels, reading.left_out(numbers))


def _no_images(request: Request) -> Any:
    return np.zeros((0, request.image_size, request.image_size, 3), np.uint8)

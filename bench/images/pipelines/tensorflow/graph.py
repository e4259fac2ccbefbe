"""The graph of tf.data. It imports TensorFlow, so import it from functions only."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from bench.images import geometry
from bench.images.decoding import MAX_PIXELS
from bench.images.pipelines import Request
from bench.images.pipelines.tensorflow.reading import Reading

PREFETCHED = 2
# TensorFlow's default is about one level off, with a tint, and no faster. This gives Pillow's pixels.
DCT = "INTEGER_ACCURATE"

plain = tf.autograph.experimental.do_not_convert


def batches(request: Request, reading: Reading) -> Any:
    """A tf.data.Dataset of (numbers, images, labels), a batch of each part in turn."""
    parallel = reading.parts if request.workers else None
    parts = tf.data.Dataset.range(reading.parts)
    batched = parts.interleave(
        plain(lambda part: _of_part(request, reading, part)), cycle_length=reading.parts, num_parallel_calls=parallel
    )
    if request.workers:
        batched = batched.prefetch(PREFETCHED)
    options = tf.data.Options()
    options.deterministic = True
    options.autotune.enabled = False
    options.experimental_optimization.map_parallelization = False
    options.threading.private_threadpool_size = max(1, request.workers)
    # Images are processed in parallel. With threads within kernels too, the rate was a tenth lower.
    options.threading.max_intra_op_parallelism = 1
    return batched.with_options(options)


def _of_part(request: Request, reading: Reading, part: Any) -> Any:
    signature = tuple(tf.TensorSpec((None,), kind) for kind in (tf.int64, tf.string, tf.int64))
    read = tf.data.Dataset.from_generator(reading.samples, output_signature=signature, args=(part,)).unbatch()

    def shown(number: Any, data: Any, label: Any) -> Any:
        position = number * request.replicas + request.replica
        pixels = _augmented(data, request, position) if request.training else _evaluated(data, request.image_size)
        with tf.control_dependencies([pixels]):
            decoded = reading.decoded.insert(part, number)
        with tf.control_dependencies([decoded]):
            return number, tf.ensure_shape(tf.identity(pixels), (request.image_size, request.image_size, 3)), label

    pixels = read.map(plain(shown))
    if request.errors == "skip":
        pixels = pixels.ignore_errors()
    return pixels.batch(request.batch_size)


def _evaluated(data: Any, image_size: int) -> Any:
    """The centre, as in geometry.evaluation_box."""
    jpeg = tf.io.is_jpeg(data)
    with tf.control_dependencies([_require_size(_size(data, jpeg))]):
        data = tf.identity(data)
    pixels = tf.cond(
        jpeg, lambda: tf.io.decode_jpeg(data, channels=3, dct_method=DCT), lambda: tf.io.decode_png(data, channels=3)
    )
    whole = tf.shape(pixels)[:2]
    cropped = tf.minimum(whole, geometry.LONGEST * tf.reduce_min(whole))
    start = (whole - cropped) // 2
    pixels = pixels[start[0] : start[0] + cropped[0], start[1] : start[1] + cropped[1]]
    short = tf.reduce_min(cropped)
    scaled = (2 * geometry.shorter_side(image_size) * cropped + short) // (2 * short)
    first = (scaled - image_size) // 2
    larger = tf.image.resize(pixels, scaled)
    return _rounded(larger[first[0] : first[0] + image_size, first[1] : first[1] + image_size])


def _augmented(data: Any, request: Request, position: Any) -> Any:
    jpeg = tf.io.is_jpeg(data)
    size = _size(data, jpeg)
    with tf.control_dependencies([_require_size(size)]):
        data = tf.identity(data)
    seed = tf.stack([tf.constant(request.seed, tf.int64), position])
    begin, extent, _ = tf.image.stateless_sample_distorted_bounding_box(
        tf.concat([size, [3]], 0),
        tf.constant([[[0.0, 0.0, 1.0, 1.0]]]),
        seed=seed,
        min_object_covered=0.0,
        aspect_ratio_range=geometry.RATIO,
        area_range=geometry.AREA,
        max_attempts=geometry.ATTEMPTS,
    )
    box = tf.concat([begin[:2], extent[:2]], 0)
    pixels = _cut(data, jpeg, box)
    pixels = _rounded(tf.image.resize(pixels, (request.image_size, request.image_size)))
    return tf.image.stateless_random_flip_left_right(pixels, seed=seed + [1, 0])


def _cut(data: Any, jpeg: Any, box: Any) -> Any:
    """A part of an image. Of a JPEG only the rows down to the end of the part are decoded.

    A JPEG without an end mark may be cut off, so it is decoded completely.
    """

    def cut(pixels: Any) -> Any:
        return tf.image.crop_to_bounding_box(pixels, box[0], box[1], box[2], box[3])

    fast = jpeg & tf.equal(tf.strings.substr(data, -2, 2), b"\xff\xd9")
    return tf.cond(
        fast,
        lambda: tf.image.decode_and_crop_jpeg(data, box, channels=3, dct_method=DCT),
        lambda: tf.cond(
            jpeg,
            lambda: cut(tf.io.decode_jpeg(data, channels=3, dct_method=DCT)),
            lambda: cut(tf.io.decode_png(data, channels=3)),
        ),
    )


def _size(data: Any, jpeg: Any) -> Any:
    """Height and width, from the header."""

    def of_png() -> Any:
        return tf.reverse(tf.io.decode_raw(tf.strings.substr(data, 16, 8), tf.int32, little_endian=False), [0])

    return tf.ensure_shape(tf.cond(jpeg, lambda: tf.image.extract_jpeg_shape(data)[:2], of_png), (2,))


def _require_size(size: Any) -> Any:
    pixels = tf.reduce_prod(tf.cast(size, tf.int64))
    return tf.debugging.Assert((pixels <= MAX_PIXELS) & tf.reduce_all(size > 0), [size])


def _rounded(pixels: Any) -> Any:
    return tf.cast(pixels + 0.5, tf.uint8)

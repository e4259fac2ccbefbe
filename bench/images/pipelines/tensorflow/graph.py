"""The graph of tf.data. It imports TensorFlow, so import it from functions only."""

from __future__ import annotations

import os
from typing import Any, Callable, Tuple

import numpy as np
import tensorflow as tf

from bench.images import epoch as records
from bench.images import geometry
from bench.images.decoding import MAX_PIXELS
from bench.images.epoch import IMAGE, LABEL, SHUFFLED
from bench.images.pipelines import Request
from bench.images.pipelines.tensorflow.faults import SEPARATOR, Faults

PREFETCHED = 2
# Files that are read at a time.
READERS = 8
BUFFER_BYTES = 2**22
# TensorFlow's default is about one level off, with a tint, and no faster. This gives Pillow's pixels.
DCT = "INTEGER_ACCURATE"

plain = tf.autograph.experimental.do_not_convert


def batches(request: Request, faults: Faults) -> Any:
    """A tf.data.Dataset of (numbers, images, labels). Numbers count all images, including skipped ones."""
    raw = _of_folder(request) if request.dataset.format == "folder" else _of_shards(request, faults)
    shown = raw.enumerate().map(_shown(request, faults), num_parallel_calls=request.workers or None)
    if request.errors == "skip":
        shown = shown.ignore_errors()
    batched = shown.batch(request.batch_size)
    if request.workers:
        batched = batched.prefetch(PREFETCHED)
    options = tf.data.Options()
    options.deterministic = True
    options.autotune.enabled = False
    options.threading.private_threadpool_size = max(1, request.workers)
    # Images are processed in parallel. With threads within kernels too, the rate was a tenth lower.
    options.threading.max_intra_op_parallelism = 1
    return batched.with_options(options)


def _of_folder(request: Request) -> Any:
    """Indices of images: to shuffle paths would need ten times the memory. All replicas shuffle in the same order."""
    count, size, replicas = len(request.dataset.files), request.batch_size, request.replicas
    indices = tf.data.Dataset.range(count)
    if request.training:
        indices = indices.shuffle(count, seed=request.seed)
    if request.repeat:
        indices = indices.repeat()
    if replicas == 1:
        return indices
    share = indices.enumerate().filter(plain(lambda position, index: position // size % replicas == request.replica))
    return share.map(plain(lambda position, index: index))


def _of_shards(request: Request, faults: Faults) -> Any:
    """(path, number in the file, data, label). For a TFRecord the data is the whole record, and the label -1."""
    dataset = request.dataset
    part = records.Part(request.replica, request.replicas, request.batch_size)
    tfrecord = dataset.format == "tfrecord"
    of_piece = plain(_of_tfrecord(faults) if tfrecord else _of_tar(faults))
    readers = min(READERS, len(dataset.files))
    kinds = (tf.string, tf.int64, tf.int64, tf.bool)

    def planned(epoch: Any) -> Any:
        draw = np.random.default_rng([request.seed, int(epoch)]) if request.training else None
        pieces = records.pieces(dataset, part, int(epoch), draw)
        values = [
            [os.fsencode(piece.path) for piece in pieces],
            [piece.first for piece in pieces],
            [piece.stop for piece in pieces],
            [piece.last for piece in pieces],
        ]
        return [tf.constant(column, kind, (len(pieces),)) for column, kind in zip(values, kinds)]

    def of_epoch(epoch: Any) -> Any:
        columns = tf.py_function(planned, [epoch], kinds)
        pieces = tf.data.Dataset.from_tensor_slices(tuple(tf.ensure_shape(column, (None,)) for column in columns))
        if tfrecord:
            # With ignored errors, TensorFlow would retry a file that cannot be opened for ever.
            pieces = pieces.filter(plain(lambda path, *piece: _call_python(faults.opens, path)))
        raw = pieces.interleave(of_piece, cycle_length=readers, num_parallel_calls=readers if request.workers else None)
        return raw.shuffle(SHUFFLED, seed=request.seed + epoch) if request.training else raw

    epochs = tf.data.Dataset.range(2**62 if request.repeat else 1)
    return epochs.flat_map(plain(of_epoch))


def _of_tar(faults: Faults) -> Any:
    kinds = (tf.string, tf.int64, tf.string, tf.int64)
    signature = tuple(tf.TensorSpec((), kind) for kind in kinds)
    return lambda *piece: tf.data.Dataset.from_generator(faults.samples, output_signature=signature, args=piece)


def _of_tfrecord(faults: Faults) -> Any:
    """The records; after the last one, `Faults.ended` checks whether TensorFlow has read all of them."""

    def of_piece(path: Any, first: Any, stop: Any, last: Any) -> Any:
        def numbered(number: Any, item: Any) -> Any:
            return number + 1, (path, number, *item)

        def real(path: Any, number: Any, data: Any, label: Any) -> Any:
            return tf.cond(label < 0, lambda: True, lambda: _call_python(faults.ended, path, first, stop, last, number))

        read = tf.data.TFRecordDataset(path, buffer_size=BUFFER_BYTES).ignore_errors().skip(first).take(stop - first)
        labels = tf.data.Dataset.from_tensors(tf.constant(-1, tf.int64)).repeat()
        end = tf.data.Dataset.from_tensors((tf.constant(""), tf.constant(0, tf.int64)))
        marked = tf.data.Dataset.zip((read, labels)).concatenate(end)
        return marked.scan(first, plain(numbered)).filter(plain(real))

    return of_piece


def _call_python(judge: Callable[..., bool], *tensors: Any) -> Any:
    return tf.ensure_shape(tf.py_function(judge, tensors, tf.bool), ())


def _shown(request: Request, faults: Faults) -> Any:
    """The function from a number and an element to the number, the pixels and the label."""
    kind, size = request.dataset.format, request.image_size
    fields = _folder_fields(request) if kind == "folder" else _shard_fields

    def shown(number: Any, element: Any) -> Any:
        address, data, label = fields(element)
        keys = tf.expand_dims(number, 0)
        with tf.control_dependencies([faults.table.insert(keys, tf.expand_dims(address, 0))]):
            data = tf.io.read_file(tf.identity(address)) if kind == "folder" else tf.identity(data)
        if kind == "tfrecord":
            data, label = _parsed(request, data)
        pixels = _augmented(data, request, _position(request, number)) if request.training else _evaluated(data, size)
        with tf.control_dependencies([pixels, label]):
            struck = faults.table.remove(keys)
        with tf.control_dependencies([struck]):
            return number, tf.ensure_shape(tf.identity(pixels), (size, size, 3)), label

    return plain(shown)


def _position(request: Request, number: Any) -> Any:
    """The number of an image among those of all replicas, to which batches are assigned in turn."""
    size = request.batch_size
    return (number // size * request.replicas + request.replica) * size + number % size


def _folder_fields(request: Request) -> Any:
    paths = tf.constant([os.fsencode(request.dataset.path(file)) for file in request.dataset.files], tf.string)
    labels = tf.constant(request.dataset.labels, tf.int64)
    return lambda index: (paths[index], "", labels[index])


def _shard_fields(element: Any) -> Any:
    path, number, data, label = element
    return tf.strings.join([path, SEPARATOR, tf.strings.as_string(number)]), data, label


def _parsed(request: Request, data: Any) -> Tuple[Any, Any]:
    """The image and label of a tf.train.Example; fails if the label is out of range."""
    kinds = {IMAGE: tf.io.FixedLenFeature((), tf.string), LABEL: tf.io.FixedLenFeature((), tf.int64)}
    fields = tf.io.parse_single_example(data, kinds)
    label = fields[LABEL] - request.dataset.first_label
    valid = label >= 0
    if request.dataset.classes is not None:
        valid &= label < request.dataset.classes
    with tf.control_dependencies([tf.debugging.Assert(valid, [label])]):
        return fields[IMAGE], tf.identity(label)


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

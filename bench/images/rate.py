"""How fast an input pipeline is by itself, and what bounds a case that it feeds.

Sample   seconds per batch, of a window of as many batches as there are workers: workers finish together,
         so that single batches come at once and then none for long, and their median would mean nothing
Rate     images of a batch by the median sample, after a warm-up of three windows, in which what was made
         ahead is used up
Share    of decoding, in the time that one image takes on one core, reading and cutting included
"""

from __future__ import annotations

import math
import random
import statistics
from itertools import islice
from time import perf_counter
from typing import Any, Callable, Dict, List, Optional

from bench.images import decoding, epoch, pipelines, tars
from bench.images.dataset import Dataset
from bench.images.faults import BadImage

WARM_UP_WINDOWS = 3
LEAST_SAMPLES = 3
SHARED_IMAGES = 32


def measure(
    dataset: Dataset,
    pipeline_name: str,
    batch_size: int,
    image_size: int,
    workers: int,
    seconds: float,
    *,
    training: bool = True,
    errors: str = "stop",
) -> Dict[str, Any]:
    """Return `images_per_s`, `samples` in seconds per batch, `skipped`, and `decode_share`.

    `decode_share` is None but for torch's pipeline: TensorFlow decodes only a part of an image, in one
    kernel with cutting it.
    """
    window = max(1, workers)
    opened = pipelines.load(pipeline_name).open(
        dataset,
        batch_size=batch_size,
        image_size=image_size,
        workers=workers,
        training=training,
        seed=0,
        errors=errors,
        repeat=True,
    )
    with opened as batches:
        samples = _samples(lambda: next(batches), window, seconds)
        skipped = batches.skipped.total
    return {
        "images_per_s": batch_size / statistics.median(samples),
        "samples": samples,
        "skipped": skipped,
        "decode_share": decode_share(dataset, image_size) if pipeline_name == "torch" else None,
    }


def _samples(
    take: Callable[[], Any], window: int, seconds: float, clock: Callable[[], float] = perf_counter
) -> List[float]:
    """Seconds per batch of windows, for so many seconds and at least three windows, warmed up."""
    for _ in range(WARM_UP_WINDOWS * window):
        take()
    samples: List[float] = []
    start = now = clock()
    while len(samples) < LEAST_SAMPLES or now - start < seconds:
        for _ in range(window):
            take()
        before, now = now, clock()
        samples.append((now - before) / window)
    return samples


def decode_share(dataset: Dataset, image_size: int) -> Optional[float]:
    """What part of the time of an image Pillow decodes, from a few images; None when none can be used."""
    draw = random.Random(0)
    decode_s = rest_s = 0.0
    mark = perf_counter()
    for record in islice(epoch.epoch(dataset, epoch.Part(), 0, None, tars.grouped), SHARED_IMAGES):
        if isinstance(record, BadImage):
            continue
        try:
            data = epoch.content(record)
            read = perf_counter()
            image = decoding.decode(data, record.where)
        except BadImage:
            continue
        decoded = perf_counter()
        decoding.augmented(image, image_size, draw)
        rest_s += read - mark + perf_counter() - decoded
        decode_s += decoded - read
        mark = perf_counter()
    return decode_s / (decode_s + rest_s) if decode_s else None


def verdict(pipeline_items_per_s: float, transfer_s_per_item: float, compute_s_per_item: float) -> str:
    """Name what takes longest per item, where the three overlap: the pipeline, transfer or compute.

    Raises ValueError for a rate that is not positive, a time that is negative, and what is not finite.
    """
    if not 0 < pipeline_items_per_s < math.inf:
        raise ValueError(f"pipeline_items_per_s={pipeline_items_per_s}; a positive rate is needed")
    times = {
        "pipeline": 1 / pipeline_items_per_s,
        "transfer": transfer_s_per_item,
        "compute": compute_s_per_item,
    }
    for name, value in times.items():
        if not 0 <= value < math.inf:
            raise ValueError(f"{name}_s_per_item={value}; a time is needed")
    longest = max(times, key=lambda name: times[name])
    each = ", ".join(f"{name} {1e3 * value:.3g} ms" for name, value in times.items())
    return f"bound by {longest}: at most {1 / times[longest]:.4g} items/s ({each} per item)"

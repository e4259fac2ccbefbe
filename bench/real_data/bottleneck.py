"""How fast images come beside a network; and which of pipeline, transfer and compute is the slowest."""

from __future__ import annotations

import math
import time
from typing import Any, Callable, Dict, Iterator, List

from bench.program import Program
from bench.real_data import feeding
from bench.real_data.pipeline import QUEUED

SECONDS = 1.0
LEAST = 3


def of(program: Program, opened: Iterator[Any]) -> Dict[str, Any]:
    """What bounds a case of real images, from three clocks: the pipeline drained, the step fed with batches
    that are decoded already, and the step on what is on the device already (transfer is the difference)."""
    case, settings = program.case, program.settings
    items = case.batch_size
    pipeline_s = _drained(opened)
    make = feeding.named(program.graph, case, settings)
    batches = [make(next(opened)) for _ in range(max(2, settings.recipe.gradient_accumulation))]
    program.feed(batches)
    per_step = items * program.batches_in_flight * settings.recipe.batches_per_update(case.mode)
    moved_s = _quickest(program.run) / per_step
    compute_s = _quickest(program.blocking(program.run_resident)) / per_step
    transfer_s = max(0.0, moved_s - compute_s)
    return {
        "pipeline_items_per_s": items / pipeline_s,
        "transfer_s_per_item": transfer_s,
        "compute_s_per_item": min(compute_s, moved_s),
        "bound_by": verdict(items / pipeline_s, transfer_s, min(compute_s, moved_s)),
    }


def _drained(batches: Iterator[Any]) -> float:
    """Seconds per batch of a pipeline that nobody else slows down."""
    for _ in range(QUEUED):
        next(batches)
    start = time.perf_counter()
    taken = 0
    while taken < LEAST or time.perf_counter() - start < SECONDS:
        next(batches)
        taken += 1
    return (time.perf_counter() - start) / taken


def _quickest(run: Callable[[], None]) -> float:
    """Seconds of the fastest of a few runs: the question is what it takes, not what else is going on."""
    seconds: List[float] = []
    for _ in range(LEAST):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


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

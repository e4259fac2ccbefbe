"""The bottleneck of a case with real images: pipeline, transfer or compute."""

from __future__ import annotations

import math
import time
from typing import Any, Callable, Dict, Iterator, List, Sequence

from bench.program import Program
from bench.real_data import feeding
from bench.real_data.pipeline import QUEUED

# The pipeline alone is timed for so long, or for --benchmark-max-time where that is shorter.
SECONDS = 1.0
RUNS = 3


def of(program: Program, opened: Iterator[Any]) -> Dict[str, Any]:
    """The rate of the pipeline, the times of transfer and compute per item, and what bounds the case.

    Three things are timed: the pipeline alone, steps with decoded batches, and steps with data that is already on the
    device. Transfer is the difference of the last two.
    """
    case, settings = program.case, program.settings
    items = case.batch_size
    pipeline_s = _drained(opened, settings.max_time_s)
    make = feeding.named(program.graph, case, settings)
    batches = [make(next(opened)) for _ in range(max(2, settings.recipe.gradient_accumulation))]
    program.feed(batches)
    per_step = items * program.batches_in_flight * settings.recipe.batches_per_update(case.mode)
    quickest = _quickest([program.run, program.blocking(program.run_resident)])
    fed_s, compute_s = (seconds / per_step for seconds in quickest)
    transfer_s = max(0.0, fed_s - compute_s)
    return {
        "pipeline_items_per_s": items / pipeline_s,
        "transfer_s_per_item": transfer_s,
        "compute_s_per_item": min(compute_s, fed_s),
        "bound_by": verdict(items / pipeline_s, transfer_s, min(compute_s, fed_s)),
    }


def _drained(batches: Iterator[Any], max_time_s: float) -> float:
    """Seconds per batch of the pipeline alone."""
    for _ in range(QUEUED):
        next(batches)
    start = time.perf_counter()
    count = 0
    while count < RUNS or time.perf_counter() - start < min(SECONDS, max_time_s):
        next(batches)
        count += 1
    return (time.perf_counter() - start) / count


def _quickest(steps: Sequence[Callable[[], None]]) -> List[float]:
    """Seconds of the fastest of a few runs of each step, so that disturbances do not count. They are run in turn, since
    what disturbs all runs of one alone would be taken for transfer."""
    seconds: List[List[float]] = [[] for _ in steps]
    for _ in range(RUNS):
        for step, taken in zip(steps, seconds):
            start = time.perf_counter()
            step()
            taken.append(time.perf_counter() - start)
    return [min(taken) for taken in seconds]


def verdict(pipeline_items_per_s: float, transfer_s_per_item: float, compute_s_per_item: float) -> str:
    """Name the longest time per item: that of the pipeline, of transfer or of compute. The three overlap.

    Raises ValueError for a rate that is not positive, a negative time, and a number that is not finite.
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
    texts = ", ".join(f"{name} {1e3 * value:.3g} ms" for name, value in times.items())
    return f"bound by {longest}: at most {1 / times[longest]:.4g} items/s ({texts} per item)"

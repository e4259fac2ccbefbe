"""What bounds a case of real images: the slowest of pipeline, transfer and compute."""

from __future__ import annotations

import itertools

import pytest

from bench.real_data import bottleneck
from bench.real_data.bottleneck import verdict
from bench.real_data.pipeline import QUEUED


@pytest.mark.parametrize(
    "times, said",
    [
        ((500, 1e-4, 1e-3), "bound by pipeline: at most 500 items/s (pipeline 2 ms, transfer 0.1 ms, compute 1 ms"),
        ((2000, 1e-3, 1e-4), "bound by transfer: at most 1000 items/s"),
        ((2000, 0.0, 4e-3), "bound by compute: at most 250 items/s"),
    ],
)
def test_what_takes_longest_bounds_a_case(times, said):
    assert verdict(*times).startswith(said)


@pytest.mark.parametrize("times", [(0, 1, 1), (-1, 1, 1), (float("inf"), 1, 1), (1, -1, 1), (1, 1, float("nan"))])
def test_times_that_are_none_bound_nothing(times):
    with pytest.raises(ValueError, match="needed"):
        verdict(*times)


def test_the_pipeline_alone_takes_few_batches_where_samples_take_no_time():
    batches = itertools.count()

    bottleneck._drained(batches, 0.0)

    assert next(batches) == QUEUED + bottleneck.RUNS


def test_steps_that_are_compared_are_timed_in_turn():
    order = []

    bottleneck._quickest([lambda: order.append("fed"), lambda: order.append("resident")])

    assert order == bottleneck.RUNS * ["fed", "resident"]

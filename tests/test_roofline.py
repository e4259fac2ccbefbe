"""The share of a peak, worked out by hand."""

from __future__ import annotations

import pytest
from records import PEAK

from bench import record


def shared(flops_per_s, bytes_per_s, step_s):
    """As much of a record as a share needs: one item a step, one batch behind it."""
    return {
        "source": "measured",
        "tflops": flops_per_s / 1e12,
        "gbytes_per_s": bytes_per_s / 1e9,
        "step_median_s": step_s,
        "bytes_per_item": bytes_per_s * step_s,
        "items_per_step": 1,
        "batches_per_step": 1,
        "batches_in_flight": 1,
    }


@pytest.mark.parametrize(
    "moved, bandwidth",
    [(10, 8e9), (2000, 8e9), (900_000, 8e9), (1_100_000, 4e9), (90_000_000, 4e9), (1_000_000_000, 2e9)],
)
def test_the_bandwidth_is_that_of_the_largest_working_set_that_fits(moved, bandwidth):
    made = record.with_peak(shared(0.0, 1e9, moved / 1e9), PEAK)

    assert made["peak_gbytes_per_s"] == bandwidth / 1e9
    assert made["percent_of_peak"] == pytest.approx(100 * 1e9 / bandwidth)
    assert (made["peak_tflops"], made["peak_library"]) == (1.0, "paper 1.0")


def test_the_share_is_that_of_the_tighter_roof():
    products = record.with_peak(shared(0.5e12, 1e9, 0.01), PEAK)
    copies = record.with_peak(shared(0.1e12, 1e9, 0.01), PEAK)

    assert products["percent_of_peak"] == pytest.approx(50)
    assert copies["percent_of_peak"] == pytest.approx(25)


def test_a_peak_without_a_bandwidth_is_of_the_arithmetic_only():
    peak = {"flops": 1e12, "bandwidth": {}, "library": "computed"}

    made = record.with_peak(shared(0.25e12, 1e12, 0.01), peak)

    assert made["percent_of_peak"] == pytest.approx(25)
    assert made["peak_gbytes_per_s"] is None

"""The share of a peak, worked out by hand."""

from __future__ import annotations

import pytest
from records import PEAK

from bench.cases.errors import Wrong
from bench.devices import cpu
from bench.results import record


def shared(flops_per_s, bytes_per_s, step_s):
    """As much of a record as a share needs: one item a step, one batch behind it."""
    return {
        "source": "measured",
        "id": "the case",
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
    peak = {"flops": 1e12, "bandwidth_bytes_per_s": {}, "library": "computed", "limit": None}

    made = record.with_peak(shared(0.25e12, 1e12, 0.01), peak)

    assert made["percent_of_peak"] == pytest.approx(25)
    assert made["peak_gbytes_per_s"] is None


def test_a_case_above_the_measured_peak_raises_it():
    found = shared(1.5e12, 1e9, 0.01)

    peak = record.raised(found, PEAK)
    made = record.with_peak(found, peak)

    assert peak == {**PEAK, "flops": 1.5e12, "library": "paper 1.0, the case"}
    assert made["percent_of_peak"] == pytest.approx(100)
    assert PEAK["flops"] == 1e12


def test_a_case_above_the_measured_bandwidth_raises_that_of_its_working_set_alone():
    found = shared(0.1e12, 5e9, 0.001)

    peak = record.raised(found, PEAK)

    assert peak["bandwidth_bytes_per_s"] == {**PEAK["bandwidth_bytes_per_s"], "1000000": 5e9}
    assert peak["flops"] == PEAK["flops"]
    assert record.with_peak(found, peak)["percent_of_peak"] == pytest.approx(100)


def test_the_second_case_that_raises_a_peak_is_the_one_that_is_named():
    once = record.raised(shared(1.5e12, 1e9, 0.01), PEAK)

    twice = record.raised({**shared(1.7e12, 1e9, 0.01), "id": "another"}, once)

    assert twice["library"] == "paper 1.0, another"


@pytest.mark.parametrize(
    "flops, moved, text",
    [(4.1e12, 1e9, r"4\.1 TFLOP/s is more than this device can do \(4\)"), (1e11, 17e9, r"0\.017 TB/s .* \(0\.016\)")],
)
def test_a_case_above_the_limit_of_the_device_is_wrong(flops, moved, text):
    with pytest.raises(Wrong, match=text):
        record.raised(shared(flops, moved, 0.001), PEAK)


def test_where_no_limit_is_known_a_case_may_at_most_double_the_peak():
    peak = {**PEAK, "limit": None}

    assert record.raised(shared(1.9e12, 1e9, 0.01), peak)["flops"] == 1.9e12
    with pytest.raises(Wrong, match="more than this device can do"):
        record.raised(shared(2.1e12, 1e9, 0.01), peak)


# Two fused multiply-adds over 8 (AVX2) or 16 (AVX-512) numbers are 32 or 64 flops a cycle; times 2 cores and 6.2 GHz.
@pytest.mark.parametrize(
    "flags, dtype, flops",
    [
        ("fma avx2", "float32", 2 * 32 * 6.2e9),
        ("fma avx2", "float16", 2 * 32 * 6.2e9),
        ("fma avx512f", "float32", 2 * 64 * 6.2e9),
        ("fma avx512f avx512_bf16", "bfloat16", 2 * 128 * 6.2e9),
        ("fma avx512f avx512_bf16", "float16", 2 * 64 * 6.2e9),
        ("fma avx512f avx512_bf16 avx512_fp16 amx_bf16", "float16", 2 * 128 * 6.2e9),
        ("fma avx512f avx512_bf16 avx512_fp16 amx_bf16", "bfloat16", 2 * 1024 * 6.2e9),
    ],
)
def test_the_arithmetic_limit_follows_from_the_processors_flags(flags, dtype, flops):
    found = cpu.limit(dtype, 2, set(flags.split()))

    assert found == {"flops": flops, "bytes": 2 * 192 * 6.2e9}


def test_an_unknown_processor_has_no_limit():
    assert cpu.limit("float32", 1, {"asimd"}) is None

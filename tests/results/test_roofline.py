"""The share of a peak, worked out by hand."""

from __future__ import annotations

import time

import pytest
from records import PEAK

from bench import calibration
from bench.cases.errors import Wrong
from bench.clock import canary, roofline
from bench.results import record


def shared(flops_per_s, bytes_per_s, step_s, **changed):
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
        "core_hz": None,
        **changed,
    }


def raised(case, peak):
    return roofline.raised(peak, *record.rates(case))


@pytest.mark.parametrize(
    "moved, bandwidth",
    [(10, 8e9), (2000, 8e9), (900_000, 8e9), (1_100_000, 4e9), (90_000_000, 4e9), (1_000_000_000, 2e9)],
)
def test_the_bandwidth_is_that_of_the_largest_working_set_that_fits(moved, bandwidth):
    made = record.with_peak(shared(0.0, 1e9, moved / 1e9), PEAK)

    assert made["peak_gbytes_per_s"] == bandwidth / 1e9
    assert made["percent_of_peak"] == pytest.approx(100 * 1e9 / bandwidth)
    assert made["peak_tflops"] == 1.0


def test_the_share_is_that_of_the_tighter_roof_and_its_source_is_named():
    products = record.with_peak(shared(0.5e12, 1e9, 0.01), PEAK)
    copies = record.with_peak(shared(0.1e12, 1e9, 0.01), PEAK)

    assert (products["percent_of_peak"], products["peak_library"]) == (pytest.approx(50), "paper 1.0: 1 TFLOP/s")
    assert (copies["percent_of_peak"], copies["peak_library"]) == (pytest.approx(25), "a copy: 4 GB/s")


def test_a_peak_without_a_bandwidth_is_of_the_arithmetic_only():
    peak = {"flops": 1e12, "bandwidth_bytes_per_s": {}, "sources": {"flops": "computed"}, "limit": None}

    made = record.with_peak(shared(0.25e12, 1e12, 0.01), peak)

    assert made["percent_of_peak"] == pytest.approx(25)
    assert (made["peak_gbytes_per_s"], made["peak_library"]) == (None, "computed: 1 TFLOP/s")


def test_a_case_above_the_measured_peak_raises_it_and_is_named_as_its_source():
    found = shared(1.5e12, 1e9, 0.01)

    peak = raised(found, PEAK)
    made = record.with_peak(found, peak, raised=True)

    assert peak == {**PEAK, "flops": 1.5e12, "sources": {**PEAK["sources"], "flops": "the case"}}
    assert made["percent_of_peak"] == pytest.approx(100)
    assert (made["peak_library"], made["peak_raised"]) == ("the case: 1.5 TFLOP/s", True)
    assert (PEAK["flops"], PEAK["sources"]["flops"]) == (1e12, "paper 1.0")


def test_a_case_above_the_measured_bandwidth_raises_that_of_its_working_set_alone():
    found = shared(0.1e12, 5e9, 0.001)

    peak = raised(found, PEAK)

    assert peak["bandwidth_bytes_per_s"] == {**PEAK["bandwidth_bytes_per_s"], "1000000": 5e9}
    assert peak["sources"] == {**PEAK["sources"], "1000000": "the case"}
    assert peak["flops"] == PEAK["flops"]
    assert record.with_peak(found, peak)["percent_of_peak"] == pytest.approx(100)


def test_of_two_rooflines_the_higher_of_each_rate_is_kept_with_its_source():
    one = {"flops": 5.0, "bandwidth_bytes_per_s": {"10": 2.0, "20": 1.0}}
    other = {"flops": 4.0, "bandwidth_bytes_per_s": {"10": 3.0, "20": 0.5}}
    sources = ("flops", "10", "20")

    best = roofline.best(
        {**one, "sources": dict.fromkeys(sources, "one")}, {**other, "sources": dict.fromkeys(sources, "other")}
    )

    assert (best["flops"], best["bandwidth_bytes_per_s"]) == (5.0, {"10": 3.0, "20": 1.0})
    assert best["sources"] == {"flops": "one", "10": "other", "20": "one"}


@pytest.mark.parametrize(
    "flops, moved, text",
    [(4.1e12, 1e9, r"4\.1 TFLOP/s is more than this device can do \(4\)"), (1e11, 17e9, r"0\.017 TB/s .* \(0\.016\)")],
)
def test_a_case_above_the_limit_of_the_device_is_wrong(flops, moved, text):
    with pytest.raises(Wrong, match=text):
        record.require_possible(shared(flops, moved, 0.001), PEAK)


def test_a_core_that_runs_faster_than_at_calibration_may_do_more():
    """The limit of 4 TFLOP/s was that of a core of 2 GHz; at 3 GHz it is 6."""
    record.require_possible(shared(5.9e12, 1e9, 0.001, core_hz=3e9), PEAK)
    record.require_possible(shared(3.9e12, 1e9, 0.001, core_hz=1e9), PEAK)
    with pytest.raises(Wrong, match=r"6\.1 TFLOP/s is more than this device can do \(6\)"):
        record.require_possible(shared(6.1e12, 1e9, 0.001, core_hz=3e9), PEAK)


def test_where_no_limit_is_known_a_case_may_at_most_double_the_peak():
    peak = {**PEAK, "limit": None}

    record.require_possible(shared(1.9e12, 1e9, 0.01), peak)
    with pytest.raises(Wrong, match="more than this device can do"):
        record.require_possible(shared(2.1e12, 1e9, 0.01), peak)


def test_another_numpy_has_canaries_of_its_own_and_they_are_measured(tmp_path, monkeypatch):
    """numpy computes them: 1.26's arithmetic takes 1.3 times as long as 2.4's."""
    monkeypatch.setenv("LAYERBENCH_CACHE", str(tmp_path))
    where = ("cpu", "fp32", 1, [0])
    calibration.keep_canary(1, [0], dict.fromkeys(canary.KINDS, 1.0))
    libraries = {calibration._versioned(name): [time.time()] for name in calibration._libraries("cpu")}
    calibration._keep(where, {**roofline.empty(), "libraries": libraries, "clock_hz": None})
    assert calibration.wanting(*where) == []

    monkeypatch.setattr(calibration.machine, "libraries", lambda names: {"numpy": "1.0"})

    assert calibration.known(*where)["canary_s"] is None
    assert calibration.wanting(*where) == calibration._libraries("cpu")[:1]

"""The measured roofline: what libraries reach, what is kept of it, and cases above it."""

from __future__ import annotations

import json
import os
from typing import Any, Callable, Dict, Tuple

import pytest
from suite import Suite, calibrate

from bench import backends, cache, calibration
from bench.cases.errors import Unavailable
from bench.clock import canary, roofline
from bench.devices import cpu

DENSE = ("-k", "dense", "--units", "64", "--backend", "numpy", "--benchmark-only")
WHERE = ("cpu", "fp32", 1, [])
QUIET = dict.fromkeys(canary.KINDS, 1.0)


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LAYERBENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(canary, "seconds", lambda threads: QUIET)


@pytest.fixture
def libraries(monkeypatch):
    """Libraries of the tests' own, and what each reaches in turn."""
    reached = {"one": [10.0, 30.0], "other": [20.0, 5.0]}
    monkeypatch.setattr(calibration, "_libraries", lambda device: sorted(reached))
    monkeypatch.setattr(calibration, "_versioned", lambda library: f"{library} 1.0")

    def measured(library, device, precision, threads):
        if not reached[library]:
            raise Unavailable(f"{library} does not run here")
        return roofline.raised(roofline.empty(), reached[library].pop(0), 2.0, 1e6, library)

    monkeypatch.setattr(calibration, "reached", measured)
    return reached


def measure(library):
    calibration.measure(library, *WHERE, begun=lambda: None)


@pytest.mark.usefixtures("own_cache")
def test_the_best_of_all_libraries_is_the_peak(libraries):
    assert calibration.wanting(*WHERE) == ["one", "other"]
    measure("one")
    assert calibration.wanting(*WHERE) == ["other"]
    measure("other")

    known = calibration.known(*WHERE)

    assert calibration.wanting(*WHERE) == []
    assert (known["peak"]["flops"], known["peak"]["sources"]["flops"]) == (20.0, "other")
    assert known["canary_s"] == QUIET


@pytest.mark.usefixtures("own_cache")
def test_a_library_measures_again_hours_later_and_the_best_occasion_counts(libraries, monkeypatch):
    measure("one")
    measure("one")  # not wanted yet
    assert libraries["one"] == [30.0]

    now = calibration.time.time()
    monkeypatch.setattr(calibration.time, "time", lambda: now + calibration.APART_S + 1)
    assert "one" in calibration.wanting(*WHERE)
    measure("one")

    assert calibration.known(*WHERE)["peak"]["flops"] == 30.0


@pytest.mark.usefixtures("own_cache", "libraries")
def test_three_occasions_are_enough(monkeypatch):
    kept = {**roofline.empty(), "clock_hz": None, "libraries": {"one 1.0": [1.0, 2.0, 3.0], "other 1.0": [1.0, 2.0]}}
    cache.write(calibration._name(*WHERE), kept)

    assert calibration.wanting(*WHERE) == ["other"]


@pytest.mark.usefixtures("own_cache")
def test_a_library_that_fails_is_not_tried_again_and_takes_nothing_away(libraries):
    libraries["one"] = []
    measure("other")
    with pytest.raises(Unavailable):
        measure("one")

    assert calibration.wanting(*WHERE) == []
    assert calibration.known(*WHERE)["peak"]["flops"] == 20.0


@pytest.mark.usefixtures("own_cache", "libraries")
def test_where_every_library_fails_nothing_is_known_but_the_canaries(libraries):
    libraries.update(one=[], other=[])
    for library in ("one", "other"):
        with pytest.raises(Unavailable):
            measure(library)

    assert calibration.known(*WHERE) == {"peak": {}, "canary_s": QUIET}


@pytest.mark.usefixtures("own_cache", "libraries")
@pytest.mark.parametrize("lacking", sorted(calibration.KEYS))
def test_a_roofline_that_another_version_kept_is_measured_again(lacking):
    measure("one")
    name = calibration._name(*WHERE)
    kept = cache.read(name)
    cache.write(name, {key: value for key, value in kept.items() if key != lacking})

    assert calibration.wanting(*WHERE) == ["one", "other"]
    assert calibration.known(*WHERE)["peak"] == {}


@pytest.mark.usefixtures("own_cache")
def test_the_best_times_of_the_canaries_are_kept_over_occasions():
    calibration.keep_canary(1, [], QUIET)
    calibration.keep_canary(1, [], {"memory": 0.5})
    calibration.keep_canary(1, [], {"memory": 0.7, "level2": 2.0})

    assert calibration.known(*WHERE)["canary_s"] == {**QUIET, "memory": 0.5}


def test_one_backend_measures_for_each_installed_package():
    libraries = calibration._libraries("cpu")

    packages = [backends.load(name).package for name in libraries]
    assert len(set(packages)) == len(packages)
    assert "numpy" in libraries
    assert all(backends.installed(name) for name in libraries)


def test_numpy_reaches_a_product_and_a_copy(monkeypatch):
    """A hundredth of a second a kernel, and small ones."""
    monkeypatch.setattr(calibration, "SECONDS_A_KERNEL", 0.01)
    monkeypatch.setattr(calibration, "SIDES", (64,))
    monkeypatch.setattr(calibration, "CONVOLUTIONS", ((1, 4, 8),))
    monkeypatch.setattr(calibration, "READS", (64,))
    monkeypatch.setattr(roofline, "LEVELS", (1 << 18, 1 << 22))

    measured = calibration.reached("numpy", "cpu", "bf16", 1)

    assert measured["flops"] > 1e6
    assert measured["sources"]["flops"].startswith("numpy ")
    assert min(measured["bandwidth_bytes_per_s"].values()) > 1e6


def test_a_kernel_that_would_take_too_long_is_left_out():
    """512 x 512 x 512 multiply-adds at 1 FLOP per second."""
    case = next(calibration._kernels("numpy", "cpu", "fp32"))
    slow = {**roofline.empty(), "flops": 1.0}

    assert calibration._with_kernel(slow, case, None, "paper") == slow


@pytest.fixture
def slow_machine(tmp_path) -> Callable[[float], Suite]:
    """Return a function that makes a suite that knows a roofline which every case is above, and a clock."""

    def make(clock_hz: float) -> Suite:
        made = Suite(tmp_path / "suite", tmp_path / "cache")
        calibrate(made.cache)
        for path in made.cache.glob("calibration-*.json"):
            kept = json.loads(path.read_text())
            rates = dict.fromkeys(kept["bandwidth_bytes_per_s"], 1.0)
            path.write_text(json.dumps({**kept, "flops": 1.0, "bandwidth_bytes_per_s": rates, "clock_hz": clock_hz}))
        return made

    return make


def measured(suite: Suite) -> Tuple[Dict[str, Any], str]:
    """The record of a run's only case, and its output."""
    result = suite.run(*DENSE, "--benchmark-json=run.json")
    assert result.returncode == 0, result.text
    return suite.read("run.json")["benchmarks"][0]["extra_info"], result.text


def test_a_verified_case_above_the_measured_peak_raises_it_for_the_runs_after(slow_machine):
    suite = slow_machine(1e15)

    first, text = measured(suite)

    assert (first["peak_raised"], first["percent_of_peak"]) == (True, pytest.approx(100))
    assert first["peak_library"].startswith(f"{first['id']}: ")
    assert f"above the measured peak, which was raised:\n  {first['id']}" in text

    second, _ = measured(suite)

    # Faster than before it raises the peak again; slower it is below it.
    assert second["peak_raised"] == (
        second["tflops"] > first["tflops"] or second["gbytes_per_s"] > first["gbytes_per_s"]
    )
    assert second["percent_of_peak"] <= 100.0001
    assert second["peak_tflops"] >= first["tflops"]


@pytest.mark.skipif(cpu.limit("float32", 1, 1.0) is None, reason="the limit of this processor is not known")
def test_a_case_above_the_limit_of_the_device_fails_in_one_line_and_is_not_recorded(slow_machine):
    """At a clock of 1 Hz, and no other is measured while the case runs."""
    suite = slow_machine(1.0)
    module = suite.root / "bench" / "clock" / "frequency.py"
    module.write_text(module.read_text() + "\n\ndef hz():\n    return None\n")

    result = suite.run(*DENSE, "--benchmark-json=run.json", "--profile=traces")

    assert result.returncode == 1
    assert os.listdir(suite.root / "traces") == []
    assert "under the profiler" not in result.text
    assert any("wrong measurement, not recorded:" in line for line in result.text.splitlines())
    assert "is more than this device can do" in result.text
    assert "Traceback" not in result.text
    # pytest-benchmark 4 leaves an empty file.
    left = suite.root / "run.json"
    assert not left.exists() or not left.read_text() or not suite.read("run.json")["benchmarks"]

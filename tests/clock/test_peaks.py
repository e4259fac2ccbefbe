"""A case above the measured peak, in whole runs: it raises the peak, or is refused where no program can be so fast."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, Dict, Tuple

import pytest
from suite import Suite

from bench import cache
from bench.clock import calibration

pytestmark = pytest.mark.runs
DENSE = ("-k", "dense", "--units", "64", "--backend", "numpy", "--benchmark-only")
# A peak that every case is above, put in the place of the measured one.
PEAK = """


def peak(precision, threads):
    limit = {{"flops": {limit}, "bytes": {limit}}}
    return {{"flops": 1.0, "bandwidth_bytes_per_s": {{"1": 1.0}}, "library": "paper 1.0", "limit": limit}}
"""


@pytest.fixture
def slow_machine(tmp_path: Path) -> Callable[[float], Suite]:
    """Return a function that makes a copy of the suite whose CPU has hardly any measured peak, and a limit."""

    def make(limit: float) -> Suite:
        made = Suite(tmp_path / "suite", tmp_path / "cache")
        text = (made.root / "bench" / "devices" / "cpu.py").read_text()
        made.add("bench/devices/cpu.py", text + PEAK.format(limit=limit))
        return made

    return make


def measured(suite: Suite) -> Tuple[Dict[str, Any], str]:
    """The record of a run's only case, and its output."""
    result = suite.run(*DENSE, "--benchmark-json=run.json")
    assert result.returncode == 0, result.text
    return suite.read("run.json")["benchmarks"][0]["extra_info"], result.text


def test_a_verified_case_above_the_measured_peak_raises_it_for_the_runs_after(slow_machine, monkeypatch):
    suite = slow_machine(1e18)

    first, _ = measured(suite)
    monkeypatch.setenv("LAYERBENCH_CACHE", str(suite.cache))
    (kept,) = suite.cache.glob("calibration-*.json")
    peak = (cache.read(kept.stem) or {})["peak"]

    assert (first["peak_raised"], first["percent_of_peak"]) == (True, pytest.approx(100))
    assert first["peak_library"] == f"paper 1.0, {first['id']}"
    assert peak["flops"] == pytest.approx(first["tflops"] * 1e12)

    second, _ = measured(suite)

    # Faster than before it raises the peak again; slower it is below it.
    assert second["peak_raised"] == (
        second["tflops"] > first["tflops"] or second["gbytes_per_s"] > first["gbytes_per_s"]
    )
    assert second["percent_of_peak"] <= 100.0001


def test_a_case_above_the_limit_of_the_device_fails_in_one_line_and_is_not_recorded(slow_machine):
    suite = slow_machine(2.0)

    result = suite.run(*DENSE, "--benchmark-json=run.json")

    assert result.returncode == 1
    assert any("wrong measurement, not recorded:" in line for line in result.text.splitlines())
    assert "is more than this device can do (2e-12)" in result.text
    assert "Traceback" not in result.text
    # pytest-benchmark 4 leaves an empty file.
    left = suite.root / "run.json"
    assert not left.exists() or not left.read_text() or not suite.read("run.json")["benchmarks"]


@pytest.mark.parametrize("lacking", ["flops", "bandwidth_bytes_per_s", "library", "limit"])
def test_a_calibration_that_an_earlier_version_kept_is_measured_again(tmp_path, monkeypatch, lacking):
    monkeypatch.setenv("LAYERBENCH_CACHE", str(tmp_path))
    peak = {"flops": 1.0, "bandwidth_bytes_per_s": {}, "library": "paper 1.0", "limit": None}
    name = calibration._name("cpu", "fp32", 1, [])

    cache.write(name, {"peak": peak, "canary_s": 1.0})
    assert calibration.known("cpu", "fp32", 1, []) == {"peak": peak, "canary_s": 1.0}

    cache.write(name, {"peak": {key: value for key, value in peak.items() if key != lacking}, "canary_s": 1.0})
    assert calibration.known("cpu", "fp32", 1, []) is None

"""Variables of the environment: those that change a rate are recorded, and two records that differ in them are told
apart by name."""

from __future__ import annotations

import os

import pytest
from records import record_of
from suite import SMALL, Suite

from bench import environment
from bench.results import baseline


@pytest.fixture
def clean(monkeypatch):
    """No variable that changes a rate, and none seen."""
    for name in list(environment.os.environ):
        if environment._matters(name):
            monkeypatch.delenv(name)
    monkeypatch.setattr(environment, "_set_here", set())
    monkeypatch.setattr(environment, "_found", {})
    monkeypatch.setattr(environment, "_looked", False)
    monkeypatch.setattr(environment, "_removed", {})


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize(
    "name, value",
    [
        ("TF_ENABLE_ONEDNN_OPTS", "0"),
        ("ONEDNN_MAX_CPU_ISA", "AVX2"),
        ("KMP_BLOCKTIME", "0"),
        ("GOMP_SPINCOUNT", "0"),
        ("OMP_WAIT_POLICY", "passive"),
        ("MKL_ENABLE_INSTRUCTIONS", "SSE4_2"),
        ("LD_PRELOAD", "libjemalloc.so"),
        ("MALLOC_ARENA_MAX", "1"),
    ],
)
def test_a_variable_that_changes_a_rate_is_found(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    environment.use({})

    assert environment.found() == f"{name}={value}"


@pytest.mark.usefixtures("clean")
def test_what_the_suite_sets_itself_and_what_a_framework_sets_later_is_not_found(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "")
    environment.use({"OMP_NUM_THREADS": "2"})
    monkeypatch.setenv("KMP_INIT_AT_FORK", "FALSE")
    environment.use({"TF_NUM_INTRAOP_THREADS": "2"})

    assert environment.found() is None


@pytest.mark.usefixtures("clean")
def test_what_a_framework_sets_is_not_found_by_the_next_case_of_a_process_that_began_without_any(monkeypatch):
    environment.use({})
    monkeypatch.setenv("TF2_BEHAVIOR", "1")
    environment.use({})

    assert environment.found() is None


@pytest.mark.usefixtures("clean")
def test_what_the_suite_sets_takes_the_place_of_what_the_shell_has(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    environment.use({"OMP_NUM_THREADS": "2"})

    assert environment.os.environ["OMP_NUM_THREADS"] == "2"


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize(
    "name", ["CUDA_VISIBLE_DEVICES", "TF_CPP_MIN_LOG_LEVEL", "TF_CLI_CONFIG_FILE", "HOME", "ONEDNN_VERBOSE"]
)
def test_what_chooses_a_device_or_says_what_is_logged_is_not_found(monkeypatch, name):
    monkeypatch.setenv(name, "1")
    environment.use({})

    assert environment.found() is None


@pytest.mark.usefixtures("clean")
def test_variables_that_place_threads_are_removed_and_kept_for_the_record(monkeypatch):
    for name in environment.PLACING:
        monkeypatch.setenv(name, "0")
    monkeypatch.setenv("GOMP_SPINCOUNT", "0")

    environment.use({})

    assert environment.removed() == dict.fromkeys(environment.PLACING, "0")
    assert not set(environment.PLACING) & set(environment.os.environ)
    assert environment.found() == "GOMP_SPINCOUNT=0"


def test_two_records_that_differ_in_it_are_not_compared_and_it_is_named():
    found = baseline.judge(record_of(environment="TF_ENABLE_ONEDNN_OPTS=0"), record_of(environment=None), 10)

    assert found.kind == "changed"
    assert "environment None -> TF_ENABLE_ONEDNN_OPTS=0" in found.text
    # A record that is older than the field knows of none.
    assert baseline.differences(record_of(environment=None), {**record_of()}) == []


def test_a_run_records_what_its_shell_has_set(suite: Suite):
    result = suite.run(*SMALL, "--benchmark-json=run.json", ONEDNN_MAX_CPU_ISA="AVX2", OPENBLAS_NUM_THREADS="7")

    assert result.returncode == 0, result.text
    (entry,) = suite.read("run.json")["benchmarks"]
    # A shell may need variables of OpenBLAS for its processor, so runs under test inherit them.
    inherited = {name: value for name, value in os.environ.items() if name.startswith("OPENBLAS_")}
    inherited.pop("OPENBLAS_NUM_THREADS", None)
    expected = {"ONEDNN_MAX_CPU_ISA": "AVX2", **inherited}
    assert entry["extra_info"]["environment"] == " ".join(f"{name}={expected[name]}" for name in sorted(expected))

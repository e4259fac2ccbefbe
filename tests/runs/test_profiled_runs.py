"""--profile in whole runs: the rows are in the record and on the terminal, and the trace is in the folder."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from suite import SMALL, TIRES, XDIST, Suite, case_id, finished, until

RUN = (*SMALL, "--batch-size=1", "--benchmark-only", "--profile=traces")
ID = case_id("numpy", 1)
# A profiler that fails in several ways.
BROKEN = """
def broken(steps):
    raise {error}
program.profile = broken
"""
SLOW = """
profile = program.profile
def slow(steps):
    Path("profiling").touch()
    time.sleep(60)
    return profile(steps)
program.profile = slow
"""
# A framework that compiles in each timed step, and one whose results change while it is timed.
COMPILES = """
program.count = 0
def counted():
    run()
    program.count += 1
program.run_resident = counted
program.compiles = lambda: program.count
"""


@pytest.mark.parametrize("processes", [[], [*XDIST, "-n", "2"]], ids=["alone", "xdist"])
def test_a_profile_is_in_the_record_and_on_the_terminal_and_its_trace_in_the_folder(
    suite: Suite, processes: list[str]
) -> None:
    if processes:
        pytest.importorskip("xdist")

    result = suite.run(*RUN, "--benchmark-json=out.json", *processes)

    assert result.returncode == 0, result.text
    (entry,) = suite.read("out.json")["benchmarks"]
    record = entry["extra_info"]
    assert record["profile_trace"] == f"{ID}.json"
    assert record["profile_note"] is None
    assert record["profile_step_s"] == pytest.approx(record["step_median_s"])
    assert sum(row["share_percent"] for row in record["profile"]) == pytest.approx(100)
    assert record["profile"][0]["operations"] == ["dense1"]
    assert record["profile"][0]["percent_of_peak"] > 0
    assert len(suite.read(f"traces/{ID}.json")["traceEvents"]) > 5
    assert os.listdir(suite.root / "traces") == [f"{ID}.json"]
    assert f"{ID}: a step takes" in result.stdout
    assert "outside operations" in result.stdout
    assert f"trace: traces/{ID}.json (open it at ui.perfetto.dev" in result.stdout


def test_a_run_without_the_option_profiles_nothing(suite: Suite) -> None:
    result = suite.run(*RUN[:-1], "--benchmark-json=out.json")

    assert result.returncode == 0, result.text
    assert suite.read("out.json")["benchmarks"][0]["extra_info"]["profile"] is None
    assert "under the profiler" not in result.stdout


@pytest.mark.parametrize(
    ("error", "note"),
    [
        ('RuntimeError("no counters\\nat all")', "no profile: no counters"),
        ("MemoryError()", "no profile: MemoryError"),
        ("SystemExit(3)", "no profile: 3"),
    ],
)
def test_a_profiler_that_fails_leaves_a_note_and_the_measured_record(suite: Suite, error: str, note: str) -> None:
    suite.add_backend("broken", BROKEN.format(error=error))

    result = suite.run(*RUN, "--backend=broken", "--benchmark-json=out.json")

    assert result.returncode == 0, result.text
    record = suite.read("out.json")["benchmarks"][0]["extra_info"]
    assert record["items_per_s"] > 0
    assert (record["profile"], record["profile_trace"], record["profile_note"]) == (None, None, note)
    assert f"{case_id('broken', 1)}: {note}" in result.stdout
    assert "Traceback" not in result.text


@pytest.mark.parametrize(
    ("fault", "outcome", "notes"),
    [
        (COMPILES, "INVALID, measured twice and not stored", ["no profile: the case is INVALID"]),
        (TIRES, "wrong result, not recorded: after the timed steps", []),
    ],
    ids=["INVALID", "wrong"],
)
def test_a_case_without_a_sound_time_is_not_profiled(suite: Suite, fault: str, outcome: str, notes: list[str]) -> None:
    suite.add_backend("unsound", fault)

    result = suite.run(*RUN, "--backend=numpy,unsound", "--benchmark-json=out.json")

    assert result.returncode == 1, result.text
    assert f"{case_id('unsound', 1)}: {outcome}" in result.text
    assert os.listdir(suite.root / "traces") == [f"{ID}.json"]
    assert result.stdout.count("under the profiler") == 1
    invalid = suite.read("out.json").get("layerbench_invalid", [])
    assert [record["profile_note"] for record in invalid] == notes


def test_a_folder_that_takes_no_trace_leaves_a_note_and_the_profile(suite: Suite) -> None:
    result = suite.run(*RUN[:-1], "--profile=/proc/traces", "--benchmark-json=out.json")

    assert result.returncode == 0, result.text
    record = suite.read("out.json")["benchmarks"][0]["extra_info"]
    assert record["profile"]
    assert record["profile_trace"] is None
    assert record["profile_note"].startswith("no trace: --profile /proc/traces: ")
    assert record["profile_note"] in result.stdout


def test_ctrl_c_while_a_case_is_profiled_leaves_no_file(suite: Suite) -> None:
    suite.add_backend("slow", SLOW)

    with suite.start(*RUN, "--backend=slow") as process:
        until(lambda: (suite.root / "profiling").exists())
        os.kill(process.pid, signal.SIGINT)
        result = finished(process)

    assert result.returncode == 2, result.text
    assert "Traceback" not in result.text
    assert not list(Path(suite.root).glob("traces/*"))


def test_the_profile_is_no_part_of_what_a_baseline_compares(suite: Suite) -> None:
    stored = suite.run(*RUN[:-1], "--baseline=./base.json", "--baseline-accept=the first")
    assert stored.returncode == 0, stored.text
    suite.store("base.json")

    result = suite.run(*RUN, "--baseline=./base.json", "--processes=3")

    assert "different settings" not in result.text
    assert "no comparable" not in result.text
    assert json.loads((suite.root / "base.json").read_text())["benchmarks"][0]["extra_info"].get("profile") is None

"""INVALID cases: measured once more, then reported and never stored."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest
from suite import SMALL, TIRES, XDIST, Suite

from bench.results.fields import FIELDS

# A framework that compiles again in every step; `{where}` says in which processes.
COMPILING = """
here = {where}
program.count = 0
def counted():
    run()
    program.count += 1
program.run_resident = counted
program.compiles = lambda: program.count if here else 0
"""
ALWAYS = COMPILING.format(where="True")
# In the first process only: its compilation is the first note of the case.
AT_FIRST = COMPILING.format(where='(Path(__file__).parents[2] / "workers.txt").read_text().count(case.id) == 1')
ID = "dense-u8-inference-b1-fp32-x1-compiling-cpu"
ARGS = (*SMALL, "--batch-size=1", "--benchmark-only")
FILES = ("--benchmark-json=out.json", "--benchmark-autosave", "--junitxml=junit.xml")


@pytest.mark.parametrize("processes", [[], [*XDIST, "-n", "2"]], ids=["alone", "xdist"])
def test_an_invalid_case_is_measured_again_then_reported_and_not_stored(suite: Suite, processes: list[str]) -> None:
    if processes:
        pytest.importorskip("xdist")
    suite.add_backend("compiling", ALWAYS)
    baseline = ("--baseline=./base.json", "--baseline-accept=the first")

    result = suite.run(*ARGS, "--backend=numpy,compiling", *FILES, *baseline, *processes)

    assert result.returncode == 1, result.text
    assert f"{ID}: INVALID, measured twice and not stored: it was compiled" in result.text
    assert "Traceback" not in result.text
    assert len(suite.workers()[ID]) == len(set(suite.workers()[ID])) == 2
    # The table has both.
    (invalid,) = [line for line in result.stdout.splitlines() if line.split()[:1] == ["compiling"]]
    assert "INVALID" in invalid
    assert f"{ID} is INVALID, so it has no rate:\n  it was compiled" in result.stdout
    # Nothing that compares files sees it.
    files = [suite.read("out.json"), *(suite.read(str(path)) for path in suite.root.glob(".benchmarks/*/*.json"))]
    assert len(files) == 2
    for content in files:
        assert [entry["extra_info"]["backend"] for entry in content["benchmarks"]] == ["numpy"]
        assert content["benchmarks"][0]["extra_info"]["validity"] == "VALID"
        (record,) = content["layerbench_invalid"]
        assert (record["id"], record["validity"], record["items_per_s"]) == (ID, "INVALID", None)
        assert record["invalid_reasons"][0].startswith("it was compiled")
        assert {name for name, field in FIELDS.items() if field.rate and record[name] is not None} == set()
    assert [entry["extra_info"]["backend"] for entry in suite.read("base.json")["benchmarks"]] == ["numpy"]
    assert f"{ID} is INVALID: it was compiled" in result.text
    cases = ElementTree.parse(suite.root / "junit.xml").getroot().iter("testcase")
    shown = {p.get("value"): case for case in cases for p in case.iter("property") if p.get("name") == "validity"}
    assert set(shown) == {"VALID", "INVALID"}
    assert shown["INVALID"].find("failure") is not None


def test_a_case_that_is_valid_when_it_is_measured_again_passes(suite: Suite) -> None:
    suite.add_backend("compiling", AT_FIRST)

    result = suite.run(*ARGS, "--backend=compiling", "--benchmark-json=out.json")

    assert result.returncode == 0, result.text
    record = suite.read("out.json")["benchmarks"][0]["extra_info"]
    assert (record["validity"], len(record["processes"])) == ("VALID", 1)
    assert len(set(suite.workers()[ID])) == 2
    assert "layerbench_invalid" not in suite.read("out.json")
    assert "INVALID" not in result.text


def test_a_clock_that_does_not_move_is_invalid_and_has_no_record(suite: Suite) -> None:
    suite.add_backend(
        "stopped",
        """
        from bench.clock import sampling
        _, *others = sampling.measure.__defaults__
        sampling.measure.__defaults__ = (lambda: 7.0, *others)
        """,
    )

    result = suite.run(*ARGS, "--backend=stopped", "--steps=3", "--benchmark-json=out.json")

    assert result.returncode == 1
    assert (
        "stopped-cpu: INVALID, measured twice and not stored: a step took 0.0 s; the clock did not move" in result.text
    )
    assert "Traceback" not in result.text
    assert not (suite.root / "out.json").exists()


def test_an_invalid_case_of_a_baseline_fails_and_says_why(suite: Suite) -> None:
    """It is neither slower nor undecided: there is no rate."""
    suite.add_backend("compiling")
    stored = suite.run(*ARGS, "--backend=compiling", "--baseline=./base.json", "--baseline-accept=the first")
    assert stored.returncode == 0, stored.text
    before = (suite.root / "base.json").read_bytes()
    suite.add_backend("compiling", ALWAYS)

    result = suite.run(*ARGS, "--backend=compiling", "--baseline=./base.json")

    assert result.returncode == 1
    assert f"{ID}: INVALID, measured twice and not stored: it was compiled" in result.text
    assert "slower" not in result.text
    assert (suite.root / "base.json").read_bytes() == before


def test_a_wrong_result_after_the_clock_fails_and_is_not_measured_again(suite: Suite) -> None:
    suite.add_backend("tiring", TIRES)

    result = suite.run(*ARGS, "--backend=tiring", "--benchmark-json=out.json")

    assert result.returncode == 1
    text = "tiring-cpu: wrong result, not recorded: after the timed steps, on new inputs: output is off by 0.01"
    assert text in result.text
    assert len(next(iter(suite.workers().values()))) == 1
    assert "items/s" not in result.stdout

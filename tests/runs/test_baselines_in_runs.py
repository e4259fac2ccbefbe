"""Baselines as a run meets them: accepted with a reason, held against, and failed in one line."""

from __future__ import annotations

import datetime
import fnmatch
import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any, Callable, Dict, List

import pytest
from suite import PACED, SMALL, Result, Suite

STEP_S = 0.01
BELOW = "*items/s is * % below the baseline*"
IDS = [f"dense-u8-inference-b{batch_size}-fp32-x1-paced-cpu" for batch_size in (1, 2)]
# A tenth of the rate is far beyond it, and what a busy machine adds to a paced step is far within.
ARGS = (*SMALL, "--backend=paced", "--batch-size=1,2", "--baseline-tolerance=25")


def pace(suite: Suite, seconds: float = STEP_S) -> None:
    """Give a suite a backend whose steps take so long, however busy the machine is."""
    suite.add_backend("paced", PACED.format(seconds=seconds))


def edit(suite: Suite, name: str, **values: Any) -> None:
    """Overwrite values in the first record of a file."""
    content = suite.read(name)
    content["benchmarks"][0]["extra_info"].update(values)
    suite.add(name, json.dumps(content))


def lines(result: Result, pattern: str) -> List[str]:
    return [line for line in result.stdout.splitlines() if fnmatch.fnmatch(line, pattern)]


@pytest.fixture(scope="module")
def first(new_suite: Callable[[], Suite]) -> Suite:
    """A copy with a baseline of two cases, accepted."""
    suite = new_suite()
    pace(suite)
    result = suite.run(*ARGS, "--baseline=./base.json", "--baseline-accept=the first one")
    assert result.returncode == 0, result.text
    return suite


@pytest.fixture
def accepted(first: Suite, suite: Suite) -> Suite:
    """The same in a copy of its own, to be changed."""
    pace(suite)
    suite.add("base.json", (first.root / "base.json").read_text())
    return suite


def test_accepting_writes_who_when_why_and_which(first: Suite) -> None:
    content = first.read("base.json")

    (entry,) = content["accepted"]

    assert entry["why"] == "the first one"
    assert entry["who"]
    assert entry["cases"] == IDS
    assert first.ids("base.json") == IDS
    age = datetime.datetime.now(datetime.timezone.utc) - datetime.datetime.fromisoformat(entry["when"])
    assert datetime.timedelta(0) <= age < datetime.timedelta(hours=1)


def test_accepting_needs_no_git(suite: Suite, tmp_path: Path) -> None:
    result = suite.run(*SMALL, "--baseline=./b.json", "--baseline-accept=why", PATH=str(tmp_path), USER="ada")

    assert result.returncode == 0, result.text
    assert suite.read("b.json")["accepted"][0]["who"]


def test_an_equal_run_passes_and_says_same(first: Suite) -> None:
    result = first.run(*ARGS, "--baseline=base.json", "--require-baseline")

    assert result.returncode == 0, result.text
    assert len(lines(result, "*paced*% same*")) == 2


@pytest.fixture(scope="module")
def slower(new_suite: Callable[[], Suite], first: Suite) -> Dict[str, Any]:
    """A run in which one of two cases has a tenth of the rate of its baseline."""
    suite = new_suite()
    pace(suite)
    suite.add("base.json", (first.root / "base.json").read_text())
    claimed = 10 * suite.read("base.json")["benchmarks"][0]["extra_info"]["items_per_s"]
    edit(suite, "base.json", items_per_s=claimed)
    result = suite.run(
        *ARGS, "--baseline=base.json", "--benchmark-json=now.json", "--junitxml=junit.xml", COLUMNS="250"
    )
    return {"suite": suite, "result": result}


def test_a_slower_case_fails_the_run_in_one_line(slower: Dict[str, Any]) -> None:
    result = slower["result"]

    assert result.returncode == 1, result.text
    assert "1 failed, 1 passed" in result.stdout
    told = [line for line in lines(result, BELOW) if not line.startswith("FAILED")]
    assert len(told) == 1, result.stdout
    assert told[0].startswith(IDS[0])
    assert "Traceback" not in result.text


def test_a_slower_case_is_red_in_the_summary_and_named_in_the_table(slower: Dict[str, Any]) -> None:
    assert len(lines(slower["result"], f"FAILED*{IDS[0]}*")) == 1
    assert len(lines(slower["result"], "*paced*slower*")) == 1


def test_a_slower_case_is_a_failure_in_junit(slower: Dict[str, Any]) -> None:
    cases = ElementTree.parse(str(slower["suite"].root / "junit.xml")).getroot().iter("testcase")

    failed = [case for case in cases if case.find("failure") is not None]

    assert [case.get("name") for case in failed] == [f"test_layer[{IDS[0]}]"]
    assert fnmatch.fnmatch(str(failed[0].find("failure").text), BELOW)  # type: ignore[union-attr]


def test_a_slower_case_is_still_recorded(slower: Dict[str, Any]) -> None:
    assert sorted(slower["suite"].ids("now.json")) == IDS


def test_a_slower_case_was_measured_again_in_fresh_processes_first(slower: Dict[str, Any]) -> None:
    suite = slower["suite"]
    records = [entry["extra_info"] for entry in suite.read("now.json")["benchmarks"]]

    assert {record["id"]: record["attempts"] for record in records} == {IDS[0]: 3, IDS[1]: 1}
    assert len(set(suite.workers()[IDS[0]])) == 3


def test_a_backend_that_got_slower_fails(accepted: Suite) -> None:
    pace(accepted, 3 * STEP_S)

    result = accepted.run(*ARGS, "--baseline=base.json")

    assert result.returncode == 1, result.text
    assert "2 failed" in result.stdout
    assert len(lines(result, BELOW)) == 2


def test_a_faster_case_passes_and_says_faster(accepted: Suite) -> None:
    pace(accepted, STEP_S / 4)

    # Long enough for the noise of a busy machine to be small beside so short a step.
    result = accepted.run(*ARGS, "--baseline=base.json", "--benchmark-max-time=0.5")

    assert result.returncode == 0, result.text
    assert len(lines(result, "*paced*% faster*")) == 2


@pytest.mark.parametrize(
    "change",
    [{"graph": "0" * 12}, {"settings": "0" * 12}, {"framework_version": "0.1"}],
    ids=lambda each: next(iter(each)),
)
def test_what_changed_is_not_compared(accepted: Suite, change: Dict[str, str]) -> None:
    edit(accepted, "base.json", items_per_s=1e9, **change)

    result = accepted.run(*ARGS, "--batch-size=1", "--baseline=base.json")

    assert result.returncode == 0, result.text
    assert len(lines(result, "*paced*changed*")) == 1


def test_a_baseline_can_be_required(accepted: Suite) -> None:
    """A case that changed and a case that is new fail, each in one line."""
    edit(accepted, "base.json", framework_version="0.1")

    result = accepted.run(*ARGS, "--batch-size=1,2,3", "--baseline=base.json", "--require-baseline")

    assert result.returncode == 1, result.text
    assert "2 failed, 1 passed" in result.stdout
    assert len(lines(result, f"{IDS[0]} cannot be compared: framework_version 0.1 -> *--require-baseline*")) == 1
    assert len(lines(result, "*-b3-* is not in the baseline *--require-baseline*")) == 1


def test_a_new_case_passes_and_says_new(first: Suite) -> None:
    result = first.run(*ARGS, "--batch-size=1,2,3", "--baseline=base.json")

    assert result.returncode == 0, result.text
    assert len(lines(result, "* 3 *paced*new*")) == 1


LOST = "dense-u9-inference-b1-fp32-x1-paced-cpu"


@pytest.fixture
def lossy(accepted: Suite) -> Suite:
    """A copy whose baseline also has a case that no option selects."""
    edit(accepted, "base.json", id=LOST, size="u9")
    return accepted


def test_a_lost_case_fails_the_run(lossy: Suite) -> None:
    result = lossy.run(*ARGS, "--baseline=base.json", "--benchmark-only")

    assert result.returncode == 1, result.text
    assert "1 failed, 2 passed" in result.stdout
    assert len(lines(result, f"{LOST} is in base.json and not in this run: lost or renamed")) == 1


def test_a_lost_case_can_be_deselected(lossy: Suite) -> None:
    result = lossy.run("--units=8", "-k", "dense and not u9", *ARGS[4:], "--baseline=base.json")

    assert result.returncode == 0, result.text
    assert "lost or renamed" not in result.text


def test_a_case_of_another_axis_value_is_not_lost(accepted: Suite) -> None:
    """The baseline has batch sizes 1 and 2; the command line asks for 1."""
    result = accepted.run(*ARGS, "--batch-size=1", "--baseline=base.json")

    assert result.returncode == 0, result.text


def test_a_case_of_the_baseline_that_cannot_run_here_fails_rather_than_skips(accepted: Suite) -> None:
    backend = accepted.root / "bench/backends/paced.py"
    backend.write_text(backend.read_text().replace('PACKAGE = "numpy"', 'PACKAGE = "no_such_package_x"'))

    result = accepted.run(*ARGS, "--batch-size=1,3", "--baseline=base.json", "-rs")

    assert result.returncode == 1, result.text
    assert "1 failed, 1 skipped" in result.stdout
    assert len(lines(result, f"{IDS[0]} is in the baseline, and does not run here: not installed: no_such_*")) == 1


def test_a_name_is_a_file_of_this_class_of_machine(suite: Suite) -> None:
    pace(suite)

    stored = suite.run(*ARGS, "--baseline=nightly", "--baseline-accept=why")
    met = suite.run(*ARGS, "--baseline=nightly", "--require-baseline")

    assert (stored.returncode, met.returncode) == (0, 0), stored.text + met.text
    (path,) = (suite.root / "baselines").glob("*/*")
    assert path.name == "nightly.json"
    assert path.parent.name == path.parent.name.lower()
    assert suite.ids(str(path)) == IDS


def test_a_folder_of_files_is_one_baseline(accepted: Suite) -> None:
    content = accepted.read("base.json")
    for index, entry in enumerate(content["benchmarks"]):
        accepted.add(f"folder/{index}.json", json.dumps({"benchmarks": [entry]}))

    result = accepted.run(*ARGS, "--baseline=folder", "--require-baseline")

    assert result.returncode == 0, result.text


def test_accepting_again_keeps_other_cases_and_earlier_reasons(accepted: Suite) -> None:
    result = accepted.run(*ARGS, "--batch-size=2,3", "--baseline=./base.json", "--baseline-accept=one more")

    assert result.returncode == 0, result.text
    assert accepted.ids("base.json") == [*IDS, IDS[0].replace("-b1-", "-b3-")]
    reasons = [(entry["why"], len(entry["cases"])) for entry in accepted.read("base.json")["accepted"]]
    assert reasons == [("the first one", 2), ("one more", 2)]


def test_a_json_file_of_a_run_is_a_baseline(suite: Suite) -> None:
    pace(suite)
    suite.run(*ARGS, "--benchmark-json=run.json")

    result = suite.run(*ARGS, "--baseline=run.json", "--require-baseline")

    assert result.returncode == 0, result.text

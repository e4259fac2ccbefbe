"""Baselines as a run meets them: stored with a reason, compared with, and failed in one line."""

from __future__ import annotations

import datetime
import fnmatch
import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List

import pytest
from suite import PACED, SMALL, Result, Suite

STEP_S = 0.01
BELOW = "*rows/s; slower: -* % (* % interval *"
IDS = [f"dense-u8-inference-b{batch_size}-fp32-x1-paced-cpu" for batch_size in (1, 2)]
# A tenth of the rate is far beyond it, and what a busy machine adds to a paced step is far within.
ARGS = (*SMALL, "--backend=paced", "--batch-size=1,2", "--budget=25%")
ONE = (*ARGS, "--batch-size=1")
# One process of each case, where nothing is decided by how fast it was.
SINGLE = "--processes=1"


def pace(suite: Suite, seconds: float = STEP_S) -> None:
    """Give a suite a backend whose steps take so long, however busy the machine is."""
    suite.add_backend("paced", PACED.format(seconds=seconds))


def lines(result: Result, pattern: str) -> List[str]:
    return [line for line in result.stdout.splitlines() if fnmatch.fnmatch(line, pattern)]


@pytest.fixture(scope="module")
def first(new_suite: Callable[[], Suite]) -> Suite:
    """A copy with the processes of one run of two cases, accepted; in `enough.json` with enough processes to decide."""
    suite = new_suite()
    pace(suite)
    result = suite.run(*ARGS, "--baseline=./base.json", "--baseline-accept=the first one")
    assert result.returncode == 0, result.text
    assert "\n  2 cases: 3 processes of 1 occasion: 3 processes are stored, it takes 10; more are" in result.stdout
    suite.add("enough.json", (suite.root / "base.json").read_text())
    suite.store("enough.json")
    return suite


@pytest.fixture(scope="module")
def paced(new_suite: Callable[[], Suite]) -> Iterator[Suite]:
    """A copy for runs that change files and no code."""
    suite = new_suite()
    pace(suite)
    with suite.loaded():
        yield suite


def with_baselines(suite: Suite, first: Suite) -> Suite:
    for name in ("base.json", "enough.json"):
        suite.add(name, (first.root / name).read_text())
    return suite


@pytest.fixture
def accepted(first: Suite, paced: Suite) -> Suite:
    """That copy with the files of the first, to be changed."""
    return with_baselines(paced, first)


@pytest.fixture
def another(first: Suite, suite: Suite) -> Suite:
    """The same in a copy of its own, for another backend."""
    return with_baselines(suite, first)


def test_accepting_writes_who_when_why_and_which(first: Suite) -> None:
    content = first.read("base.json")

    (entry,) = content["accepted"]

    assert entry["why"] == "the first one"
    assert entry["who"]
    assert entry["cases"] == IDS
    assert first.ids("base.json") == IDS
    age = datetime.datetime.now(datetime.timezone.utc) - datetime.datetime.fromisoformat(entry["when"])
    assert datetime.timedelta(0) <= age < datetime.timedelta(hours=1)


def test_accepting_needs_no_git(paced: Suite, tmp_path: Path) -> None:
    args = (*SMALL, SINGLE, "--baseline=./b.json", "--baseline-accept=why")

    result = paced.run(*args, PATH=str(tmp_path), USER="ada")

    assert result.returncode == 0, result.text
    assert paced.read("b.json")["accepted"][0]["who"]


def test_an_equal_run_passes_and_says_same(first: Suite) -> None:
    result = first.run(*ONE, "--baseline=enough.json", "--require-baseline")

    assert result.returncode == 0, result.text
    assert len(lines(result, "*paced*% same*")) == 1
    # 1 / C(15, 3) = 1 / 455.
    header = "layerbench: baseline enough.json, cases: 2; budget 25 %, fresh processes of each case: 3; false alarms"
    assert lines(result, f"{header} at most 0.22 % a case")


@pytest.fixture(scope="module")
def slower(new_suite: Callable[[], Suite], first: Suite) -> Dict[str, Any]:
    """A run in which one of two cases has a tenth of the rate of its baseline."""
    suite = new_suite()
    pace(suite)
    suite.add("base.json", (first.root / "enough.json").read_text())
    suite.store("base.json", 10, only=IDS[0])
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
    assert told[0].endswith("; false alarms 0.22 %")
    assert "Traceback" not in result.text


def test_a_slower_case_is_red_in_the_summary_and_named_in_the_table(slower: Dict[str, Any]) -> None:
    assert len(lines(slower["result"], f"FAILED*{IDS[0]}*")) == 1
    assert len(lines(slower["result"], "*paced*slower")) == 1


def test_a_slower_case_is_a_failure_in_junit(slower: Dict[str, Any]) -> None:
    cases = ElementTree.parse(str(slower["suite"].root / "junit.xml")).getroot().iter("testcase")

    failed = [case for case in cases if case.find("failure") is not None]

    assert [case.get("name") for case in failed] == [f"test_layer[{IDS[0]}]"]
    assert fnmatch.fnmatch(str(failed[0].find("failure").text), BELOW)  # type: ignore[union-attr]


def test_each_case_is_measured_in_three_fresh_processes_and_all_are_recorded(slower: Dict[str, Any]) -> None:
    suite = slower["suite"]
    records = [entry["extra_info"] for entry in suite.read("now.json")["benchmarks"]]

    assert sorted(record["id"] for record in records) == IDS
    pids = suite.workers()
    assert [len(pids[name]) for name in IDS] == [3, 3]
    assert len({pid for name in IDS for pid in pids[name]}) == 6
    for record in records:
        starts = [process["started_s"] for process in record["processes"]]
        rates = [process["items_per_s"] for process in record["processes"]]
        assert len(starts) == 3
        assert starts == sorted(starts)
        assert record["items_per_s"] == sorted(rates)[1]


def test_the_samples_are_those_of_the_median_process(slower: Dict[str, Any]) -> None:
    for entry in slower["suite"].read("now.json")["benchmarks"]:
        assert entry["stats"]["median"] == pytest.approx(entry["extra_info"]["step_median_s"])


@pytest.fixture(scope="module")
def both_ways(new_suite: Callable[[], Suite], first: Suite) -> Result:
    """A run of a backend that got slower at batch size 1 and faster at batch size 2."""
    suite = new_suite()
    suite.add_backend("paced", PACED.format(seconds=f"({3 * STEP_S} if case.batch_size == 1 else {STEP_S / 4})"))
    suite.add("enough.json", (first.root / "enough.json").read_text())
    return suite.run(*ARGS, "--baseline=enough.json")


def test_a_backend_that_got_slower_fails(both_ways: Result) -> None:
    assert both_ways.returncode == 1, both_ways.text
    assert "1 failed, 1 passed" in both_ways.stdout
    (line,) = {line for line in lines(both_ways, BELOW) if not line.startswith("FAILED")}
    assert line.startswith(IDS[0])


def test_a_faster_case_passes_and_says_faster(both_ways: Result) -> None:
    assert "1 failed, 1 passed" in both_ways.stdout
    assert len(lines(both_ways, "*paced*% faster*")) == 1


# The second of the processes is faster than the baseline's, the others take four times as long.
MIXED = """
nth = (Path(__file__).parents[2] / "workers.txt").read_text().count(case.id)
""" + PACED.format(seconds=f"({STEP_S / 2} if nth == 2 else {4 * STEP_S})")


def test_one_process_that_is_not_below_the_stored_ones_leaves_a_slow_case_undecided(another: Suite) -> None:
    another.add_backend("paced", MIXED)
    another.store("enough.json", revision="0123456789ab")

    result = another.run(*ONE, "--baseline=enough.json", "--undecided", "fail", "--require-baseline")

    assert result.returncode == 1, result.text
    (line,) = (line for line in lines(result, "*rows/s; undecided: -*") if not line.startswith("FAILED"))
    assert "the processes spread too far" in line
    # The command that decides is this one, with the commit of the stored processes in place of the baseline.
    named = re.findall("this decides it: (pytest .*) --against rev=0123456789ab ", line)
    assert len(named) == 1, line
    assert named[0].endswith("--budget=25% --batch-size=1")
    assert "enough.json" not in named[0]


def test_too_few_processes_are_undecided_and_the_line_says_how_to_store_more(first: Suite) -> None:
    result = first.run(*ONE, "--baseline=base.json")

    assert result.returncode == 0, result.text
    assert lines(result, "*budget 25 %, fresh processes of each case: 3; cases with too few stored processes: 2")
    (line,) = lines(result, "*PytestWarning: *")
    assert "3 processes are stored, it takes 10; --baseline-accept WHY on another occasion stores more; " in line


def test_runs_on_other_occasions_add_up_to_a_baseline_that_decides(accepted: Suite) -> None:
    """One more run, hours after three others: the processes in the file, three times, with their starts set back."""
    content = accepted.read("base.json")
    for entry in content["benchmarks"]:
        record = entry["extra_info"]
        record["processes"] = [
            {**process, "started_s": process["started_s"] - 3 * 3600 * occasion}
            for occasion in (3, 2, 1)
            for process in record["processes"]
        ]
    accepted.add("base.json", json.dumps(content))

    stored = accepted.run(*ONE, "--baseline=./base.json", "--baseline-accept=again")

    result = accepted.run(*ONE, "--baseline=base.json", "--undecided=fail")

    assert stored.returncode == 0, stored.text
    assert "\n  1 case: 12 processes of 4 occasions: enough" in stored.stdout
    assert result.returncode == 0, result.text
    assert len(lines(result, "*paced*% same*")) == 1


CHANGES = {
    "graph": ({"graph": 12 * "0"}, "graph 000000000000"),
    "settings": ({"settings": 12 * "0"}, "settings 000000000000"),
    "kernel": ({"machine": {"kernel": "0.1"}}, "kernel 0.1"),
}


@pytest.fixture(scope="module")
def changed(first: Suite, paced: Suite) -> Result:
    """A run of three cases, of which the baseline has each with another change of CHANGES."""
    content = first.read("enough.json")
    entry, name = content["benchmarks"][0], IDS[0]
    content["benchmarks"] = []
    for batch_size, (change, _) in enumerate(CHANGES.values(), 1):
        info = {**entry["extra_info"], "id": name.replace("-b1-", f"-b{batch_size}-"), "batch_size": batch_size}
        info["items_per_s"] *= 1e6
        content["benchmarks"].append({**entry, "extra_info": {**info, **change}})
    paced.add("changed.json", json.dumps(content))
    batches = ",".join(str(each) for each in range(1, len(CHANGES) + 1))
    args = (*ARGS, f"--batch-size={batches}", SINGLE)
    return paced.run(*args, "--baseline=changed.json", "--baseline-software=any", COLUMNS="250")


@pytest.mark.parametrize("name", CHANGES)
def test_what_changed_is_not_compared_and_named(changed: Result, name: str) -> None:
    assert changed.returncode == 0, changed.text
    assert len(lines(changed, "*paced*changed*")) == len(CHANGES)
    assert lines(changed, f"changed, so not compared: *{CHANGES[name][1]} -> *")


def test_other_software_is_compared_where_the_user_accepts_it(accepted: Suite) -> None:
    accepted.store("enough.json", 10, framework_version="0.1")

    refused = accepted.run(*ONE, SINGLE, "--baseline=enough.json")
    compared = accepted.run(*ONE, "--baseline=enough.json", "--baseline-software=any")

    assert (refused.returncode, compared.returncode) == (0, 1), refused.text + compared.text
    assert lines(refused, "changed, so not compared: framework_version 0.1 -> *")
    assert lines(compared, f"{BELOW}; a change can come from framework_version 0.1 -> * as well*")


def test_a_baseline_can_be_required(accepted: Suite) -> None:
    """A case that changed and a case that is new fail, each in one line."""
    accepted.store("enough.json", only=IDS[0], framework_version="0.1")

    result = accepted.run(*ARGS, "--batch-size=1,2,3", SINGLE, "--baseline=enough.json", "--require-baseline")

    assert result.returncode == 1, result.text
    assert "2 failed, 1 passed" in result.stdout
    assert len(lines(result, f"{IDS[0]}: *changed: not compared*framework_version 0.1 -> *--require-baseline*")) == 1
    assert len(lines(result, "*-b3-*: *new: it is not in the baseline (--require-baseline*")) == 1


@pytest.mark.parametrize("option", ["--baseline=enough.json", "--processes=2"])
def test_one_process_is_compared_with_nothing(refused: Callable[..., str], option: str) -> None:
    name = option.split("=")[0]

    text = refused(*SMALL, "--in-process", option)

    assert f"{name} takes several fresh processes of each case; with --in-process there is one" in text


def test_a_damaged_entry_is_named_and_skipped(accepted: Suite) -> None:
    content = accepted.read("enough.json")
    content["benchmarks"].insert(0, {"extra_info": {"schema": 2, "id": "torn"}})
    accepted.add("enough.json", json.dumps(content))

    result = accepted.run(*ONE, "--baseline=enough.json", "--require-baseline")

    assert result.returncode == 0, result.text
    assert len(lines(result, "*paced*% same*")) == 1
    assert len(lines(result, "baseline: skipped enough.json: entry 1: the record of torn lacks *")) == 1


def test_a_new_case_passes_and_says_new(first: Suite) -> None:
    result = first.run(*ARGS, "--batch-size=1,2,3", SINGLE, "--baseline=enough.json")

    assert result.returncode == 0, result.text
    assert len(lines(result, "* 3 *paced*new*")) == 1


LOST = "dense-u9-inference-b1-fp32-x1-paced-cpu"


@pytest.fixture
def lossy(accepted: Suite) -> Suite:
    """A copy whose baseline also has a case that no option selects."""
    accepted.store("enough.json", only=IDS[0], id=LOST, size="u9")
    return accepted


def test_a_lost_case_fails_the_run(lossy: Suite) -> None:
    result = lossy.run(*ARGS, SINGLE, "--baseline=enough.json", "--benchmark-only")

    assert result.returncode == 1, result.text
    assert "1 failed, 2 passed" in result.stdout
    assert len(lines(result, f"{LOST} is in enough.json and not in this run: lost or renamed")) == 1


def test_a_lost_case_can_be_deselected(lossy: Suite) -> None:
    result = lossy.run("--units=8", "-k", "dense and not u9", *ARGS[4:], SINGLE, "--baseline=enough.json")

    assert result.returncode == 0, result.text
    assert "lost or renamed" not in result.text


def test_a_case_of_another_axis_value_is_not_lost(accepted: Suite) -> None:
    """The baseline has batch sizes 1 and 2; the command line asks for 1."""
    result = accepted.run(*ARGS, "--batch-size=1", SINGLE, "--baseline=enough.json")

    assert result.returncode == 0, result.text


def test_a_case_of_the_baseline_that_cannot_run_here_fails_rather_than_skips(another: Suite) -> None:
    pace(another)
    backend = another.root / "bench/backends/paced.py"
    backend.write_text(backend.read_text().replace('PACKAGE = "numpy"', 'PACKAGE = "no_such_package_x"'))

    result = another.run(*ARGS, "--batch-size=1,3", "--baseline=enough.json", "-rs")

    assert result.returncode == 1, result.text
    assert "1 failed, 1 skipped" in result.stdout
    assert len(lines(result, f"{IDS[0]} is in the baseline, and does not run here: not installed: no_such_*")) == 1


def test_a_name_is_a_file_of_this_class_of_machine(paced: Suite) -> None:
    stored = paced.run(*ONE, SINGLE, "--baseline=nightly", "--baseline-accept=why")
    met = paced.run(*ONE, SINGLE, "--baseline=nightly", "--require-baseline")

    assert (stored.returncode, met.returncode) == (0, 0), stored.text + met.text
    (path,) = (paced.root / "baselines").glob("*/*")
    assert path.name == "nightly.json"
    assert path.parent.name == path.parent.name.lower()
    assert paced.ids(str(path)) == IDS[:1]


def test_a_folder_of_files_is_one_baseline(accepted: Suite) -> None:
    content = accepted.read("enough.json")
    for index, entry in enumerate(content["benchmarks"]):
        accepted.add(f"folder/{index}.json", json.dumps({"benchmarks": [entry]}))

    result = accepted.run(*ARGS, SINGLE, "--baseline=folder", "--require-baseline")

    assert result.returncode == 0, result.text


def test_accepting_again_adds_processes_and_keeps_other_cases_and_earlier_reasons(accepted: Suite) -> None:
    args = (*ARGS, "--batch-size=2,3", SINGLE)

    result = accepted.run(*args, "--baseline=./base.json", "--baseline-accept=one more")

    assert result.returncode == 0, result.text
    assert accepted.ids("base.json") == [*IDS, IDS[0].replace("-b1-", "-b3-")]
    counts = [len(entry["extra_info"]["processes"]) for entry in accepted.read("base.json")["benchmarks"]]
    assert counts == [3, 4, 1]
    reasons = [(entry["why"], len(entry["cases"])) for entry in accepted.read("base.json")["accepted"]]
    assert reasons == [("the first one", 2), ("one more", 2)]


def test_a_json_file_of_a_run_is_a_baseline(paced: Suite) -> None:
    paced.run(*ONE, "--benchmark-json=run.json")

    result = paced.run(*ONE, SINGLE, "--baseline=run.json", "--require-baseline")

    assert result.returncode == 0, result.text

"""Runs with --against: what is slower fails in pytest's own way, a killed run goes on, nothing stays behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import xml.etree.ElementTree as ElementTree

import pytest
from suite import SMALL, TWO, Suite, alive, case_id, finished, until

# A step of 4 ms, or of what the variable of its batch size says: env=STEP_B2=0.008.
# It notes the case and process of each compile: the code of a side is a copy elsewhere.
SLEEPER = """
most = os.environ.get(f"MOST_B{case.batch_size}")
if most and open(os.environ["NOTES"]).read().count(case.id) >= int(most):
    raise RuntimeError("no more of this case")
with open(os.environ["NOTES"], "a") as file:
    file.write(f"{case.id} {os.getpid()}\\n")

def sleeper():
    end = time.perf_counter() + float(os.environ.get(f"STEP_B{case.batch_size}", "0.004"))
    run()
    time.sleep(max(0.0, end - time.perf_counter()))
program.run_resident = sleeper
"""
ARGUMENTS = (*SMALL, "--backend=sleeper", "--benchmark-only", "--budget=30")
FASTER_BASE = "--against=env=STEP_B2=0.001"


def name(batch_size):
    return case_id("sleeper", batch_size)


class Sleeper:
    """A copy of the suite with the backend, which notes its workers."""

    def __init__(self, suite: Suite) -> None:
        suite.add_backend("sleeper", SLEEPER)
        self.suite, self.cache, self.read, self.workers = suite, suite.cache, suite.read, suite.workers
        shutil.rmtree(str(suite.cache / "comparisons"), ignore_errors=True)
        self.notes = {"NOTES": str(suite.root / "workers.txt")}

    def run(self, *arguments: str):
        return self.suite.run(*arguments, **self.notes)

    def start(self, *arguments: str):
        return self.suite.start(*arguments, **self.notes)


def records(suite):
    """The lines of the pair file of the last run: the first says what is compared."""
    (path,) = (suite.cache / "comparisons").glob("*.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def sleeper(suite: Suite) -> Sleeper:
    return Sleeper(suite)


@pytest.fixture(scope="module")
def compared(new_suite):
    """A run of two cases of which one is slower, and the suite in which it ran."""
    suite = Sleeper(new_suite())
    outputs = ("--benchmark-json=now.json", "--junitxml=now.xml", "-rA")
    return suite, suite.run(*ARGUMENTS, "--batch-size=2,3", FASTER_BASE, *outputs)


def test_a_slower_case_fails_and_the_others_pass(compared):
    _, result = compared

    assert result.returncode == 1, result.text
    assert result.outcomes() == {name(2): "FAILED", name(3): "PASSED"}


def test_the_failure_is_one_line_with_the_estimate_and_its_interval(compared):
    _, result = compared

    lines = [line for line in result.stdout.splitlines() if line.startswith(f"{name(2)}: slower: -")]
    assert len(lines) == 1
    assert "% interval -" in lines[0]
    assert "9 pairs)" in lines[0]
    assert "Traceback" not in result.text


def shown(result):
    """The verdict of each case in the table of the two sides."""
    lines = result.stdout.splitlines()
    return {line: lines[at + 1].split()[0] for at, line in enumerate(lines) if line in (name(2), name(3))}


def test_the_table_has_a_line_a_case(compared):
    _, result = compared

    assert shown(result) == {name(2): "slower", name(3): "same"}
    lines = result.stdout.splitlines()
    assert max(len(line) for line in lines[lines.index(name(2)) - 3 :] if line.startswith("  ")) <= 100


def test_it_says_how_long_it_takes_at_most(compared):
    _, result = compared

    assert "against: 2 cases, at most 12 pairs each: at most " in result.stdout
    assert "(by the first pair)" in result.stdout


def test_the_json_has_both_cases_with_their_pairs(compared):
    suite, _ = compared
    stored = {
        entry["extra_info"]["id"]: entry["extra_info"]["against"] for entry in suite.read("now.json")["benchmarks"]
    }

    assert {case: info["verdict"] for case, info in stored.items()} == {name(2): "slower", name(3): "same"}
    assert len(stored[name(2)]["log_ratios"]) == 9
    assert all(pair["rate"] < -1 for pair in stored[name(2)]["log_ratios"])


def test_junit_has_the_verdicts(compared):
    suite, _ = compared
    cases = ElementTree.parse(str(suite.suite.root / "now.xml")).iter("testcase")
    found = {}
    for case in cases:
        properties = {item.get("name"): item.get("value") for item in case.iter("property")}
        found[case.get("name")] = (properties.get("verdict"), case.find("failure") is not None)

    assert sorted(found.values()) == [("same", False), ("slower", True)]


def test_each_pair_has_processes_of_its_own(compared):
    suite, _ = compared
    pids = [pid for pids in suite.workers().values() for pid in pids]

    # Nine pairs of the slower case, six of the other one; cases of a pair share its two workers.
    assert len(pids) == 2 * (9 + 6)
    assert len(set(pids)) == 2 * 9


def test_a_decided_case_gets_no_further_pair(compared):
    suite, _ = compared
    counts = {}
    for line in records(suite)[1:]:
        counts[line["case"]] = counts.get(line["case"], 0) + 1

    assert counts == {name(2): 9, name(3): 6}


def test_two_processes_of_pytest_share_one_comparison_and_say_what_one_says(sleeper):
    """The other side has no number of seconds for a step of the first case."""
    other = "env=STEP_B2=none"
    result = sleeper.run(*ARGUMENTS, "--batch-size=2,3", f"--against={other}", *TWO, "-rA", "--benchmark-json=now.json")

    assert result.outcomes() == {name(2): "FAILED", name(3): "PASSED"}, result.text
    assert [line["case"] for line in records(sleeper)[1:]].count(name(3)) == 6
    assert f"layerbench: against {other}, at most 12 pairs" in result.stdout
    assert shown(result) == {name(2): "broken", name(3): "same"}
    (broken,) = sleeper.read("now.json")["layerbench"]["verdicts"]
    assert (broken["id"], broken["spec"], broken["verdict"]) == (name(2), other, "broken")


def test_a_case_that_breaks_after_pairs_is_one_line_without_a_result(sleeper):
    """The other side does not compile the first case once that was done four times, twice by each side."""
    sleeper.suite.add("workers.txt", "")

    result = sleeper.run(*ARGUMENTS, "--batch-size=2,3", "--against=env=MOST_B2=4", "-rA", "--benchmark-json=now.json")

    assert result.outcomes() == {name(2): "FAILED", name(3): "PASSED"}, result.text
    assert "Traceback" not in result.text
    assert "KeyError" not in result.text
    assert shown(result) == {name(2): "broken", name(3): "same"}
    assert [line["outcome"] for line in records(sleeper)[1:] if line["case"] == name(2)][0] == "counted"  # noqa: RUF015
    stored = sleeper.read("now.json")
    assert [each["extra_info"]["id"] for each in stored["benchmarks"]] == [name(3)]
    assert [(each["id"], each["verdict"]) for each in stored["layerbench"]["verdicts"]] == [(name(2), "broken")]


def test_a_run_that_was_killed_goes_on_from_its_pairs(sleeper):
    arguments = (*ARGUMENTS, "--batch-size=2", "--against=same")
    with sleeper.start(*arguments) as process:
        until(lambda: len(list((sleeper.cache / "comparisons").glob("*.jsonl"))) and len(records(sleeper)) > 3)
        os.kill(process.pid, signal.SIGKILL)
        finished(process)
    before = records(sleeper)
    until(lambda: not any(alive(pid) for pids in sleeper.workers().values() for pid in pids))

    result = sleeper.run(*arguments, "--resume")

    after = records(sleeper)
    assert result.returncode == 0, result.text
    assert after[: len(before)] == before
    assert [line["pair"] for line in after[1:]] == list(range(6))


def test_nothing_to_resume_is_one_line(sleeper):
    result = sleeper.run(*ARGUMENTS, "--against=same", "--resume")

    assert result.returncode != 0
    assert "--resume: no interrupted comparison of these cases with these options" in result.text
    assert "Traceback" not in result.text


def test_ctrl_c_ends_all_processes_and_gives_no_verdict(sleeper):
    with sleeper.start(*ARGUMENTS, "--batch-size=2", FASTER_BASE) as process:
        until(lambda: sleeper.workers())
        os.kill(process.pid, signal.SIGINT)
        result = finished(process)

    assert result.returncode == 2, result.text
    assert "slower" not in result.stdout
    until(lambda: not any(alive(pid) for pids in sleeper.workers().values() for pid in pids))


def test_ctrl_c_says_how_many_pairs_are_kept_and_how_to_go_on(sleeper):
    with sleeper.start(*ARGUMENTS, "--batch-size=2", "--against=same") as process:
        until(lambda: list((sleeper.cache / "comparisons").glob("*.jsonl")) and len(records(sleeper)) == 3)
        os.kill(process.pid, signal.SIGINT)
        result = finished(process)

    count = len(records(sleeper)) - 1
    assert result.returncode == 2, result.text
    told = f"interrupted, no verdict; {count} pairs are kept: the same command with --resume goes on"
    assert told in result.stdout.splitlines()


def test_a_worker_that_is_killed_costs_a_repetition_and_no_verdict(sleeper):
    with sleeper.start(*ARGUMENTS, "--batch-size=2", "--against=same", "-rA") as process:
        until(lambda: list((sleeper.cache / "comparisons").glob("*.jsonl")) and len(records(sleeper)) == 3)
        pids = until(lambda: [pid for pids in sleeper.workers().values() for pid in pids if alive(pid)])
        os.kill(pids[0], signal.SIGKILL)
        result = finished(process)

    outcomes = [(line["outcome"], line["kind"]) for line in records(sleeper)[1:]]
    assert result.outcomes() == {name(2): "PASSED"}, result.text
    assert outcomes.count(("counted", "")) == 6
    assert set(outcomes) <= {("counted", ""), ("failed", "died")}


WRONG_BASE = """
if os.environ.get("WRONG"):
    program.outputs = lambda: {key: 2 * array for key, array in outputs().items()}
"""


def test_a_wrong_result_of_the_other_side_is_broken_and_gives_no_rate(suite: Suite):
    suite.add_backend("wrong", WRONG_BASE)

    result = suite.run(
        *SMALL, "--backend=wrong", "--benchmark-only", "--against=env=WRONG=1", "--benchmark-json=x.json"
    )

    assert result.returncode == 1
    assert "broken: base: wrong result, not recorded: output is off" in result.text
    assert not (suite.root / "x.json").exists() or suite.read("x.json")["benchmarks"] == []


def test_a_limit_of_minutes_ends_it_undecided(sleeper):
    result = sleeper.run(*ARGUMENTS, "--against=same", "--max-minutes=0.01")

    assert result.returncode == 1
    assert "undecided" in result.text
    assert "stopped after --max-minutes 0.01" in result.text


@pytest.mark.parametrize("undecided", ["warn", "pass"])
def test_an_undecided_case_without_a_pair_is_skipped_where_undecided_cases_pass(sleeper, undecided):
    result = sleeper.run(*ARGUMENTS, "--against=same", "--max-minutes=0.01", f"--undecided={undecided}", "-rs")

    assert result.returncode == 0, result.text
    assert "stopped after --max-minutes 0.01" in result.text


@pytest.mark.parametrize("rev, said", [("no-such-commit", "no code of revision no-such-commit")])
def test_another_side_that_does_not_start_ends_the_run_in_one_line(sleeper, rev, said):
    for against in (f"rev={rev}", "python=/no/python"):
        result = sleeper.run(*ARGUMENTS, f"--against={against}")

        assert result.returncode == 4, result.text
        assert len(result.errors) == 1
        assert f"--against {against}" in result.errors[0]


def test_an_option_of_the_other_side_may_not_change_the_cases(sleeper):
    result = sleeper.run(*ARGUMENTS, "--against=option=--batch-size 4")

    assert result.returncode == 4
    assert "would run other cases" in result.errors[0]


def test_collecting_starts_no_other_side(sleeper):
    result = sleeper.run(*SMALL, "--backend=sleeper", "--against=python=/no/python", "--collect-only", "-q")

    assert result.returncode == 0, result.text


def test_a_python_that_does_not_start_is_refused_by_the_name_of_the_option(sleeper):
    result = sleeper.run(*ARGUMENTS, "--against=python=/no/python")

    assert result.returncode == 4, result.text
    (line,) = result.errors
    assert line.startswith("ERROR: --against python=/no/python: the base does not start: no host can be reached: ")
    assert line.endswith("no Python of 3.8 or later starts there (//python=FILE)")


@pytest.mark.parametrize(
    "against, said",
    [
        ("option=--foo 1,option=--tuning default", "--foo is no option of the suite"),
        ("option=--budget 7", "--budget changes nothing that is timed"),
        ("option=--tuning best", "--tuning changes nothing that is timed"),
    ],
)
def test_an_option_of_the_other_side_that_does_nothing_is_refused(sleeper, against, said):
    result = sleeper.run(*ARGUMENTS, f"--against={against}")

    assert result.returncode == 4, result.text
    assert said in result.errors[0]


def test_a_pattern_of_budgets_that_fits_no_case_is_refused(sleeper):
    sleeper.suite.add("budgets.toml", "['*']\nrate = 5\n['lstn*']\nrate = 3\n")

    result = sleeper.run(*ARGUMENTS, "--against=same", "--budgets=budgets.toml")

    assert result.returncode == 4, result.text
    assert "--budgets: 'lstn*' fits no selected case" in result.text

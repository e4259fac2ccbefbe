"""Under pytest-xdist: the same results as without, in the same order, and timed with nobody beside."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Callable, Dict, List, Tuple

import pytest
from suite import PACED, SMALL, TWO, XDIST, Result, Suite, finished

from bench.devices import cpu

pytest.importorskip("xdist")

BATCHES = (1, 2, 3)
CASES = (*SMALL, "--backend=paced", "--batch-size=1,2,3")
TWO_CASES = (*SMALL, "--backend=paced", "--batch-size=1,2")
FOUND = [f"dense-u8-inference-b{batch_size}-fp32-x1-paced-cpu" for batch_size in BATCHES]

# Compiles for a while, and notes when; its steps take 10 ms each.
NOTED = """
begun = time.time()
time.sleep(0.2)
with (Path(__file__).parents[2] / "compiled.txt").open("a") as file:
    file.write(f"{{case.id}} {{begun}} {{time.time()}}\\n")
""" + PACED.format(seconds=0.01)


def add_paced(suite: Suite) -> Suite:
    suite.add_backend("paced", NOTED.format())
    return suite


def entries(suite: Suite, name: str) -> List[Dict[str, Any]]:
    found: List[Dict[str, Any]] = suite.read(name)["benchmarks"]
    return found


def sections(suite: Suite, name: str) -> List[Tuple[float, float]]:
    """When each case of a file was timed."""
    return sorted((each["extra_info"]["started_s"], each["extra_info"]["ended_s"]) for each in entries(suite, name))


def compiles(suite: Suite) -> List[Tuple[float, float]]:
    lines = (suite.root / "compiled.txt").read_text().splitlines()
    return sorted((float(line.split()[1]), float(line.split()[2])) for line in lines)


def overlap(one: List[Tuple[float, float]], other: List[Tuple[float, float]]) -> float:
    """Seconds that sections of one list share with others of the other."""
    return sum(max(0.0, min(a[1], b[1]) - max(a[0], b[0])) for a in one for b in other if a is not b)


@pytest.fixture(scope="module")
def both(new_suite: Callable[[], Suite]) -> Tuple[Suite, Result]:
    """A copy with a run in one process, which is its baseline, and the same in two."""
    suite = add_paced(new_suite())
    alone = suite.run(*CASES, "--benchmark-json=alone.json", "--benchmark-only")
    assert alone.returncode == 0, alone.text
    suite.add("base.json", (suite.root / "alone.json").read_text())
    suite.store("base.json")
    (suite.root / "compiled.txt").unlink()
    result = suite.run(
        *CASES,
        *TWO,
        "--benchmark-json=two.json",
        "--benchmark-autosave",
        "--baseline=./base.json",
        "--require-baseline",
        "--budget=50",
    )
    assert result.returncode == 0, result.text
    return suite, result


def test_the_same_cases_come_in_the_same_order(both: Tuple[Suite, Result]) -> None:
    assert both[0].ids("two.json") == both[0].ids("alone.json") == FOUND


def test_a_file_has_the_same_keys(both: Tuple[Suite, Result]) -> None:
    alone, two = both[0].read("alone.json"), both[0].read("two.json")

    assert two.keys() == alone.keys()
    for one, other in zip(alone["benchmarks"], two["benchmarks"]):
        assert other.keys() == one.keys()
        assert other["stats"].keys() == one["stats"].keys()
        assert other["extra_info"].keys() == one["extra_info"].keys()
        for key in ("name", "fullname", "group", "param", "params", "options"):
            assert other[key] == one[key]


def test_every_sample_has_arrived(both: Tuple[Suite, Result]) -> None:
    for entry in entries(both[0], "two.json"):
        assert len(entry["stats"]["data"]) == entry["extra_info"]["samples"]
        assert entry["stats"]["median"] == pytest.approx(entry["extra_info"]["step_median_s"])


def test_there_is_one_table_one_file_and_no_warning(both: Tuple[Suite, Result]) -> None:
    suite, result = both

    assert result.stdout.count("layerbench: dense") == 1
    assert len(re.findall(r"Wrote benchmark data in: .*two\.json", result.text)) == 1
    assert len(list((suite.root / ".benchmarks").rglob("*.json"))) == 1
    assert "warning" not in result.text.lower()
    assert len(re.findall("% same", result.stdout)) == len(FOUND)


def test_every_case_has_three_fresh_processes(both: Tuple[Suite, Result]) -> None:
    """The first was that of the run alone."""
    pids = [pid for name in FOUND for pid in both[0].workers()[name][1:]]

    assert len(pids) == len(set(pids)) == 3 * len(FOUND)


def test_no_two_are_timed_at_once(both: Tuple[Suite, Result]) -> None:
    timed = sections(both[0], "two.json")

    assert len(timed) == len(FOUND)
    assert overlap(timed, timed) == 0


def test_nobody_compiles_while_another_is_timed(both: Tuple[Suite, Result]) -> None:
    assert len(compiles(both[0])) == 3 * len(FOUND)
    assert overlap(compiles(both[0]), sections(both[0], "two.json")) == 0


def test_compiles_run_side_by_side(both: Tuple[Suite, Result]) -> None:
    assert overlap(compiles(both[0]), compiles(both[0])) > 0


@pytest.fixture(scope="module")
def stolen(both: Tuple[Suite, Result]) -> Result:
    """A run in which processes take cases from each other, and which is compared with a saved one."""
    args = (*CASES, *XDIST, "-n2", "--dist=worksteal", "--benchmark-only")
    return both[0].run(*args, "--benchmark-compare", "--benchmark-json=stolen.json")


def test_pytest_benchmark_compares_with_what_was_saved(stolen: Result) -> None:
    assert stolen.returncode == 0, stolen.text
    assert stolen.stdout.count("(NOW)") == len(FOUND)
    assert stolen.stdout.count("(0001_") == len(FOUND)


def test_processes_that_take_cases_from_each_other_measure_the_same(both: Tuple[Suite, Result], stolen: Result) -> None:
    assert stolen.returncode == 0, stolen.text
    assert both[0].ids("stolen.json") == FOUND


@pytest.mark.parametrize("args", [["-n", "0"], ["-n", "1"], ["-n", "2", "--dist=loadfile"]])
def test_other_ways_to_hand_out_cases_measure_the_same(both: Tuple[Suite, Result], args: List[str]) -> None:
    result = both[0].run(*TWO_CASES, *XDIST, *args, "--benchmark-only", "--benchmark-json=other.json")

    assert result.returncode == 0, result.text
    assert both[0].ids("other.json") == FOUND[:2]


def test_nothing_needs_the_plugin(both: Tuple[Suite, Result]) -> None:
    result = both[0].run(*SMALL, "-p", "no:xdist", "--benchmark-only")

    assert result.returncode == 0, result.text


def test_disabled_cases_are_checked_and_not_timed(both: Tuple[Suite, Result]) -> None:
    result = both[0].run(*TWO_CASES, *XDIST, "-n", "2", "--benchmark-disable")

    assert result.returncode == 0, result.text
    assert "2 passed" in result.stdout
    assert "layerbench: dense" not in result.stdout


def test_collecting_lists_what_would_run(both: Tuple[Suite, Result]) -> None:
    result = both[0].run(*CASES, *TWO, "--collect-only", "-q")

    assert result.returncode == 0, result.text
    assert [line[line.find("[") + 1 : -1] for line in result.stdout.splitlines() if "[" in line] == FOUND


def test_a_slower_case_fails_and_is_still_recorded(suite: Suite, both: Tuple[Suite, Result]) -> None:
    suite.add_backend("paced", NOTED.format().replace("+ 0.01", "+ (0.04 if case.batch_size == 2 else 0.01)"))
    suite.add("base.json", (both[0].root / "base.json").read_text())

    result = suite.run(*TWO_CASES, *TWO, "-rA", "--baseline=base.json", "--budget=50", "--benchmark-json=now.json")

    assert result.returncode == 1, result.text
    assert [name for name, word in result.outcomes().items() if word == "FAILED"] == [FOUND[1]]
    assert re.search(rf"{FOUND[1]}: .* rows/s; slower: -", result.stdout)
    assert suite.ids("now.json") == FOUND[:2]
    assert [len(each["extra_info"]["processes"]) for each in entries(suite, "now.json")] == 2 * [3]


def test_a_lost_case_fails_once(both: Tuple[Suite, Result]) -> None:
    content = (both[0].root / "base.json").read_text().replace("dense-u8-", "dense-u9-")
    both[0].add("lost.json", content)
    result = both[0].run(*TWO_CASES, *TWO, "-rA", "--baseline=lost.json", "--budget=50", "--processes=1")

    assert result.returncode == 1, result.text
    assert "2 failed, 2 passed" in result.stdout
    assert "lost or renamed" in result.stdout


def test_accepting_stores_every_case_once(both: Tuple[Suite, Result]) -> None:
    args = (*TWO_CASES, *TWO, "--processes=1")

    result = both[0].run(*args, "--baseline=./stored.json", "--baseline-accept=from two")

    assert result.returncode == 0, result.text
    assert both[0].ids("stored.json") == FOUND[:2]
    (accepted,) = both[0].read("stored.json")["accepted"]
    assert accepted["cases"] == FOUND[:2]
    assert result.stdout.count("baseline: stored in") == 1


def test_two_runs_at_once_are_never_timed_at_once(new_suite: Callable[[], Suite]) -> None:
    suites = [add_paced(new_suite()), add_paced(new_suite())]

    running = [suite.start(*TWO_CASES, *TWO, "--benchmark-json=run.json") for suite in suites]
    results = [finished(process) for process in running]

    assert [result.returncode for result in results] == [0, 0], results
    timed = sorted(each for suite in suites for each in sections(suite, "run.json"))
    assert len(timed) == 4
    assert overlap(timed, timed) == 0
    assert overlap([each for suite in suites for each in compiles(suite)], timed) == 0


# Where a case is compiled, and where its last step ran.
PLACED = """
folder = Path(__file__).parents[2]
(folder / f"compiled{case.batch_size}").write_text(repr(sorted(os.sched_getaffinity(0))))
def placed():
    run()
    (folder / f"ran{case.batch_size}").write_text(repr(sorted(os.sched_getaffinity(0))))
program.run_resident = placed
"""


@pytest.mark.skipif(len(cpu.usable_cores()) < 2, reason="two cores are needed")
def test_processes_compile_on_cores_of_their_own_and_are_timed_on_those_of_a_serial_run(suite: Suite) -> None:
    suite.add_backend("placed", PLACED)
    batches = range(1, 5)

    result = suite.run(*SMALL, "--backend=placed", "--batch-size=1,2,3,4", "--threads=1", *TWO, "--steps=3")

    assert result.returncode == 0, result.text
    usable = cpu.usable_cores()
    compiled = {(suite.root / f"compiled{each}").read_text() for each in batches}
    assert compiled == {repr([core]) for core in usable[-2:]}
    assert {(suite.root / f"ran{each}").read_text() for each in batches} == {repr(usable[-1:])}


@pytest.mark.skipif(len(cpu.usable_cores()) < 2, reason="two cores are needed")
def test_cases_are_timed_side_by_side_where_the_user_accepts_it(suite: Suite) -> None:
    suite.add_backend("paced", PACED.format(seconds=0.01))
    args = (*CASES, *TWO, "--threads=1", "--parallel-timing", "--benchmark-max-time=0.3")

    result = suite.run(*args, "--benchmark-json=run.json")
    required = ("--baseline=./run.json", "--processes=1", "--require-baseline", "--undecided=pass")
    again = suite.run(*args, *required, "--batch-size=1,2")
    alone = suite.run(*CASES, "--threads=1", *required, "--batch-size=1")

    assert (result.returncode, again.returncode, alone.returncode) == (0, 0, 1), result.text + again.text + alone.text
    records = [entry["extra_info"] for entry in entries(suite, "run.json")]
    assert {record["parallel_timing"] for record in records} == {True}
    assert len({record["cores"] for record in records}) == 2
    timed = sections(suite, "run.json")
    assert overlap(timed, timed) > 0
    for core in {record["cores"] for record in records}:
        own = [(record["started_s"], record["ended_s"]) for record in records if record["cores"] == core]
        assert overlap(own, own) == 0
    assert "parallel_timing True -> False" in alone.text


@pytest.mark.skipif(len(cpu.usable_cores()) < 2, reason="two cores are needed")
def test_the_scaling_of_replicas_is_told_wherever_the_one_was_measured(suite: Suite) -> None:
    result = suite.run(*SMALL, "--replicas=1,2", "--threads=1", *TWO, "--benchmark-json=run.json", "--batch-size=1")

    assert result.returncode == 0, result.text
    one, two = (entry["extra_info"] for entry in entries(suite, "run.json"))
    assert one["scaling_percent"] is None
    assert two["scaling_percent"] == pytest.approx(100 * two["items_per_s"] / (2 * one["items_per_s"]))


def test_a_run_leaves_nothing_in_the_temporary_folder_but_pytests_own(suite: Suite, tmp_path: Path) -> None:
    result = suite.run(*SMALL, *TWO, TMPDIR=str(tmp_path))

    assert result.returncode == 0, result.text
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith("pytest-of-")] == []

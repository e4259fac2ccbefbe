"""--undecided: what becomes of a case that the baseline cannot decide; and what JUnit's file says of every case."""

from __future__ import annotations

import json
import sys
import xml.etree.ElementTree as ElementTree
from types import SimpleNamespace
from typing import Any, Callable, Dict, Iterator, Optional

import pytest
from suite import PACED, SMALL, XDIST, Result, Suite

from bench.results import baseline
from fixtures import judge, measure

STEP_S = 0.01
ID = "dense-u8-inference-b1-fp32-x1-paced-cpu"
ARGS = (*SMALL, "--backend=paced", "--batch-size=1", "--budget=60", "--benchmark-only")


@pytest.fixture(scope="module")
def paced(new_suite: Callable[[], Suite]) -> Iterator[Suite]:
    """A copy for the runs of this file, whose steps take STEP_S."""
    suite = new_suite()
    suite.add_backend("paced", PACED.format(seconds=STEP_S))
    with suite.loaded():
        yield suite


@pytest.fixture(scope="module")
def stored(paced: Suite) -> Dict[str, Any]:
    """The record of one case: a single process."""
    result = paced.run(*ARGS, "--benchmark-json=base.json")
    assert result.returncode == 0, result.text
    content: Dict[str, Any] = paced.read("base.json")
    content["benchmarks"][0]["extra_info"].update(items_per_s=1 / STEP_S)
    return content


def met(suite: Suite, stored: Dict[str, Any], *args: str, decides: bool = False) -> Result:
    """A run that is compared with one stored process, which decides nothing; or with twelve that do."""
    suite.add("base.json", json.dumps(stored))
    if decides:
        suite.store("base.json")
    files = ("--baseline=base.json", "--benchmark-json=now.json", "--junitxml=junit.xml")
    return suite.run(*ARGS, *files, *([] if decides else ["--processes=1"]), *args)


# Who runs a case changes only how its warning or failure reaches the report: one of each under pytest-xdist.
@pytest.mark.parametrize(
    "choice, code, warns, processes",
    [
        (None, 0, True, []),
        ("pass", 0, False, []),
        ("warn", 0, True, []),
        ("fail", 1, False, []),
        (None, 0, True, [*XDIST, "-n", "2"]),
        ("fail", 1, False, [*XDIST, "-n", "2"]),
    ],
    ids=["default", "pass", "warn", "fail", "default-xdist", "fail-xdist"],
)
def test_an_undecided_case_does_what_the_option_says(
    paced: Suite, stored: Dict[str, Any], choice: Optional[str], code: int, warns: bool, processes: list[str]
) -> None:
    if processes:
        pytest.importorskip("xdist")
    option = [] if choice is None else [f"--undecided={choice}"]

    result = met(paced, stored, *option, *processes)

    assert result.returncode == code, result.text
    assert "undecided" in result.stdout
    line = f"{ID}: "
    assert (f"PytestWarning: {line}" in result.stdout) == warns
    assert ("; undecided: " in result.stdout) == (warns or choice == "fail")
    if choice != "pass":
        # The command of the user, also where pytest-xdist's workers run the case.
        assert " --backend=paced --batch-size=1 --budget=60 --benchmark-only " in result.stdout
    assert ("1 failed" in result.stdout) == (choice == "fail")
    assert "Traceback" not in result.text
    assert properties(paced)["verdict"] == "undecided"


@pytest.mark.parametrize(
    "args, told",
    [
        (["--undecided=maybe", "--baseline=base.json"], "--undecided: 'maybe' is not one of pass, warn, fail"),
        (["--undecided=", "--baseline=base.json"], "--undecided: an empty value"),
        (["--undecided=fail"], "--undecided needs --baseline FILE, DIR or NAME"),
        (["--baseline-software=any"], "--baseline-software needs --baseline FILE, DIR or NAME"),
    ],
)
def test_what_makes_no_sense_is_refused(refused: Callable[..., str], args: list[str], told: str) -> None:
    assert told in refused(*SMALL, *args)


@pytest.mark.parametrize(
    "disturbed, baseline, more",
    [
        ([], None, True),
        ([False, False], None, True),
        ([True, False, True], None, False),
        ([False, False, False], "main", False),
        ([True, False, False], "main", True),
        # One of three is replaced; of six, four are disturbed: three were replaced, and no more.
        ([True, False, False, False], "main", False),
        ([True, False, True, True, False, True], "main", False),
        # Another one would be disturbed too.
        ([True, True, True], "main", False),
    ],
)
def test_a_disturbed_process_is_replaced_where_it_would_not_count(
    disturbed: list[bool], baseline: Optional[str], more: bool
) -> None:
    parsed: Any = SimpleNamespace(processes=3, baseline=baseline)

    assert measure.another(parsed, [{"disturbed": each} for each in disturbed]) == more
    assert not measure.another(parsed, [None])


@pytest.mark.parametrize(
    "stored, base",
    [
        ({"revision": "0123456789ab"}, "rev=0123456789ab"),
        ({}, "rev=REV"),
        ({"framework_version": "0.9", "revision": "0123456789ab"}, "python=FILE, a Python with framework_version 0.9"),
        ({"framework_version": "0.9", "interpreter": "/here"}, "python=FILE, a Python with framework_version 0.9"),
        ({"framework_version": "0.9", "interpreter": "/gone"}, "python=FILE, a Python with framework_version 0.9"),
        ({"framework_version": "0.9", "interpreter": sys.executable}, f"python={sys.executable}"),
    ],
    ids=str,
)
def test_the_command_that_decides_takes_a_version_that_can_run_today(stored: Dict[str, Any], base: str) -> None:
    now = {"id": "a", "device": "cpu", "settings": "s", "framework_version": "1.0", "interpreter": "/here"}
    match = baseline.match(now, [{**now, "processes": [{"started_s": 0.0}], **stored}], any_software=True)
    given = ["bench", "-k", "lstm or gru", "--baseline", "main", "--require-baseline", "--undecided=fail"]
    config: Any = SimpleNamespace(invocation_params=SimpleNamespace(args=given))

    told = judge.what_decides(config, now, match)

    more = "--baseline-accept WHY on another occasion stores more; "
    assert told == f"{more}this decides it: pytest bench -k 'lstm or gru' --against {base}"


def properties(suite: Suite) -> Dict[str, str]:
    (case,) = ElementTree.parse(str(suite.root / "junit.xml")).getroot().iter("testcase")
    return {str(each.get("name")): str(each.get("value")) for each in case.iter("property")}


@pytest.mark.parametrize(
    "choice, processes", [("warn", []), ("fail", []), ("fail", [*XDIST, "-n", "1"])], ids=["warn", "fail", "fail-xdist"]
)
def test_another_verdict_does_not_mind_the_option_and_junit_says_it_with_the_rate(
    paced: Suite, stored: Dict[str, Any], choice: str, processes: list[str]
) -> None:
    if processes:
        pytest.importorskip("xdist")
    result = met(paced, stored, f"--undecided={choice}", *processes, decides=True)

    found = properties(paced)

    assert result.returncode == 0, result.text
    assert "% same" in result.stdout
    assert "PytestWarning" not in result.stdout
    record = paced.read("now.json")["benchmarks"][0]["extra_info"]
    # The twelve stored rates are 100 * (1 + index / 1e4): their median is 100.055.
    assert float(found.pop("baseline_items_per_s")) == pytest.approx(100.055)
    assert float(found.pop("change_percent")) == pytest.approx(100 * (record["items_per_s"] / 100.055 - 1), abs=0.06)
    assert found == {
        "id": ID,
        "items_per_s": str(record["items_per_s"]),
        "item": "row",
        "noise_percent": str(record["noise_percent"]),
        "disturbed": str(record["disturbed"]),
        "processes": "3",
        "validity": "VALID",
        "verdict": "same",
    }


def test_junit_says_what_there_is_without_a_baseline(paced: Suite) -> None:
    result = paced.run(*SMALL, "--junitxml=junit.xml")

    assert result.returncode == 0, result.text
    expected = {"id", "items_per_s", "item", "validity", "noise_percent", "disturbed", "processes"}
    assert set(properties(paced)) == expected

"""--undecided: what becomes of a case that the baseline cannot decide; and what JUnit's file says of every case."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from typing import Any, Callable, Dict, Optional

import pytest
from suite import PACED, SMALL, XDIST, Result, Suite

STEP_S = 0.01
ID = "dense-u8-inference-b1-fp32-x1-paced-cpu"
ARGS = (*SMALL, "--backend=paced", "--batch-size=1", "--baseline-tolerance=60", "--benchmark-only")
# The first process of a run takes four times as long as those that follow.
FALTERING = """
first = (Path(__file__).parents[2] / "workers.txt").read_text().count(case.id) == 1
""" + PACED.format(seconds=f"({4 * STEP_S} if first else {STEP_S})")


@pytest.fixture(scope="module")
def stored(new_suite: Callable[[], Suite]) -> Dict[str, Any]:
    """A baseline of one case, whose steps take STEP_S."""
    suite = new_suite()
    suite.add_backend("paced", PACED.format(seconds=STEP_S))
    result = suite.run(*ARGS, "--benchmark-json=base.json")
    assert result.returncode == 0, result.text
    content: Dict[str, Any] = suite.read("base.json")
    content["benchmarks"][0]["extra_info"].update(disturbed=False, items_per_s=1 / STEP_S)
    return content


def met(suite: Suite, stored: Dict[str, Any], rate: float, noise: float, *args: str, pace: str = "") -> Result:
    """A run that is held against a baseline of another rate, in those stored, and so much noise in percent."""
    content = json.loads(json.dumps(stored))
    info = content["benchmarks"][0]["extra_info"]
    info.update(items_per_s=rate * info["items_per_s"], noise_percent=noise)
    suite.add("base.json", json.dumps(content))
    suite.add_backend("paced", pace or PACED.format(seconds=STEP_S))
    return suite.run(*ARGS, "--baseline=base.json", "--benchmark-json=now.json", "--junitxml=junit.xml", *args)


def attempts(suite: Suite) -> int:
    return int(suite.read("now.json")["benchmarks"][0]["extra_info"]["attempts"])


@pytest.mark.parametrize("processes", [[], [*XDIST, "-n", "2"]], ids=["alone", "xdist"])
@pytest.mark.parametrize(
    "choice, code, tries, warns",
    [(None, 0, 1, False), ("pass", 0, 1, False), ("warn", 0, 1, True), ("fail", 1, 1, False), ("retry", 0, 3, True)],
)
def test_an_undecided_case_does_what_the_option_says(
    suite: Suite,
    stored: Dict[str, Any],
    choice: Optional[str],
    code: int,
    tries: int,
    warns: bool,
    processes: list[str],
) -> None:
    if processes:
        pytest.importorskip("xdist")
    option = [] if choice is None else [f"--undecided={choice}"]

    # The baseline says three times the rate, with a noise that explains it.
    result = met(suite, stored, 3.0, 200.0, *option, *processes)

    assert result.returncode == code, result.text
    assert "undecided" in result.stdout
    assert attempts(suite) == tries
    line = f"undecided: {ID}: "
    assert (f"PytestWarning: {line}" in result.stdout) == warns
    assert (result.stdout.count(line) >= 1) == (warns or choice == "fail")
    assert ("1 failed" in result.stdout) == (choice == "fail")
    assert "Traceback" not in result.text


def test_a_retry_that_decides_ends_there(suite: Suite, stored: Dict[str, Any]) -> None:
    """A quarter of the rate is within a noise of 100 %; the second process has the whole of it."""
    result = met(suite, stored, 1.0, 100.0, "--undecided=retry", pace=FALTERING)

    assert result.returncode == 0, result.text
    assert "% same" in result.stdout
    assert attempts(suite) == 2
    assert len(set(suite.workers()[ID])) == 2
    assert "PytestWarning" not in result.stdout


def test_without_it_nothing_is_measured_again(suite: Suite, stored: Dict[str, Any]) -> None:
    result = met(suite, stored, 1.0, 100.0, pace=FALTERING)

    assert result.returncode == 0, result.text
    assert "undecided" in result.stdout
    assert attempts(suite) == 1


@pytest.mark.parametrize("choice", ["pass", "warn", "fail", "retry"])
def test_other_verdicts_do_not_mind(suite: Suite, stored: Dict[str, Any], choice: str) -> None:
    result = met(suite, stored, 1.0, 0.0, f"--undecided={choice}")

    assert result.returncode == 0, result.text
    assert "% same" in result.stdout
    assert "PytestWarning" not in result.stdout


@pytest.mark.parametrize(
    "args, told",
    [
        (
            ["--undecided=maybe", "--baseline=base.json"],
            "--undecided: 'maybe' is not one of pass, warn, retry,",
        ),
        (["--undecided=", "--baseline=base.json"], "--undecided: an empty value"),
        (["--undecided=fail"], "--undecided needs --baseline FILE, DIR or NAME"),
    ],
)
def test_what_makes_no_sense_is_refused(refused: Callable[..., str], args: list[str], told: str) -> None:
    assert told in refused(*SMALL, *args)


def properties(suite: Suite) -> Dict[str, str]:
    (case,) = ElementTree.parse(str(suite.root / "junit.xml")).getroot().iter("testcase")
    return {str(each.get("name")): str(each.get("value")) for each in case.iter("property")}


@pytest.mark.parametrize("processes", [[], [*XDIST, "-n", "1"]], ids=["alone", "xdist"])
def test_junit_says_rate_and_verdict_of_a_passing_case(
    suite: Suite, stored: Dict[str, Any], processes: list[str]
) -> None:
    if processes:
        pytest.importorskip("xdist")
    result = met(suite, stored, 1.0, 0.0, *processes)

    found = properties(suite)

    assert result.returncode == 0, result.text
    record = suite.read("now.json")["benchmarks"][0]["extra_info"]
    assert found == {
        "id": ID,
        "items_per_s": str(record["items_per_s"]),
        "item": "row",
        "noise_percent": str(record["noise_percent"]),
        "disturbed": str(record["disturbed"]),
        "validity": "VALID",
        "attempts": "1",
        "verdict": "same",
        "change_percent": str(100 * (record["items_per_s"] / (1 / STEP_S) - 1)),
        "baseline_items_per_s": str(1 / STEP_S),
    }


def test_junit_says_what_there_is_without_a_baseline(suite: Suite) -> None:
    result = suite.run(*SMALL, "--junitxml=junit.xml")

    assert result.returncode == 0, result.text
    assert set(properties(suite)) == {"id", "items_per_s", "item", "validity", "noise_percent", "disturbed", "attempts"}


def test_junit_says_the_verdict_of_a_failing_case_too(suite: Suite, stored: Dict[str, Any]) -> None:
    result = met(suite, stored, 3.0, 200.0, "--undecided=fail")

    assert result.returncode == 1, result.text
    assert properties(suite)["verdict"] == "undecided"

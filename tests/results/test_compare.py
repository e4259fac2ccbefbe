"""--benchmark-compare in items a second; and what is counted of the cases that a baseline has and a run lacks."""

from __future__ import annotations

import json
import re
from typing import List

import pytest
from records import record_of
from suite import SMALL, XDIST, Suite, case_id

from bench.results import table


def test_rates_of_both_runs_stand_beside_their_ratio() -> None:
    now, then = record_of("lstm-h8_t3", 1500.0), record_of("lstm-h8_t3", 1000.0)

    lines = table.compared("0001_x.json", [(now, then)], []).splitlines()

    assert lines[0] == "layerbench: items/s now, and then in 0001_x.json (pytest-benchmark's OPS counts steps)"
    assert lines[1].split() == ["items/s", "then", "ratio", "case"]
    assert lines[3].split() == ["1,500", "1,000", "1.500", now["id"]]
    assert len(lines) == 4


@pytest.mark.parametrize("rates", [(None, 10.0), (10.0, None), (10.0, 0.0)])
def test_where_one_has_no_rate_there_is_no_ratio(rates: tuple[float, float]) -> None:
    text = table.compared("x.json", [(record_of(rate=1.0, items_per_s=rates[0]), record_of(items_per_s=rates[1]))], [])

    assert text.splitlines()[3].split()[2] == "-"


def test_what_was_measured_in_another_way_is_said() -> None:
    text = table.compared("x.json", [(record_of(), record_of(framework_version="0.9"))], [])

    assert text.splitlines()[-1] == f"measured in another way then: {record_of()['id']}: framework_version"


def test_cases_without_a_record_are_one_line() -> None:
    assert table.compared("x.json", [], ["a"]) == "x.json has no record of a, so no items/s"
    assert table.compared("x.json", [], ["a", "b", "c"]) == "x.json has no record of a and 2 more, so no items/s"


@pytest.mark.parametrize("processes", [[], [*XDIST, "-n", "2"]], ids=["alone", "xdist"])
def test_a_comparison_of_pytest_benchmark_has_items_a_second(history: Suite, processes: List[str]) -> None:
    if processes:
        pytest.importorskip("xdist")
    saved = next((history.root / ".benchmarks").rglob("0001_before.json"))
    then = json.loads(saved.read_text())["benchmarks"][0]["extra_info"]["items_per_s"]

    result = history.run(*SMALL, "--benchmark-compare", "--benchmark-json=now.json", "--batch-size=32,7", *processes)

    assert result.returncode == 0, result.text
    now = history.read("now.json")["benchmarks"][0]["extra_info"]["items_per_s"]
    (line,) = re.findall(rf"^ *(\S+) +(\S+) +(\S+) +{case_id('numpy', 32)}$", result.stdout, re.MULTILINE)
    assert line == (table.rate(now), table.rate(then), f"{now / then:.3f}")
    assert re.search(rf"0001_before.json has no record of {case_id('numpy', 7)}, so no", result.stdout)


def test_a_file_without_our_records_is_one_line(history: Suite) -> None:
    saved = next((history.root / ".benchmarks").rglob("0001_before.json"))
    content = json.loads(saved.read_text())
    for entry in content["benchmarks"]:
        entry["extra_info"] = {}
    storage = history.root / "stock" / saved.parent.name
    storage.mkdir(parents=True)
    (storage / saved.name).write_text(json.dumps(content))

    result = history.run(*SMALL, "--benchmark-compare", "--benchmark-storage=stock")

    assert result.returncode == 0, result.text
    assert "items/s now, and then" not in result.stdout
    assert f"0001_before.json has no record of {case_id('numpy', 32)}, so no items/s" in result.stdout


def test_no_comparison_is_no_note(history: Suite) -> None:
    result = history.run(*SMALL)

    assert "no record of" not in result.stdout
    assert "and then" not in result.stdout


# Counts.


@pytest.fixture(scope="module")
def lossy(history: Suite) -> Suite:
    """A copy whose baseline also has two cases that no option selects."""
    content = history.read("base.json")
    (entry,) = content["benchmarks"]
    for size in ("u9", "u10"):
        other = {**entry["extra_info"], "size": size, "id": entry["extra_info"]["id"].replace("u8", size)}
        content["benchmarks"].append({"extra_info": other})
    history.add("lossy.json", json.dumps(content))
    return history


@pytest.fixture(scope="module")
def whole(lossy: Suite) -> int:
    """How many cases there are."""
    text = lossy.run("--units=8", "--collect-only", "-q").stdout
    return int(re.findall(r"^(\d+) tests collected", text, re.MULTILINE)[0])


@pytest.mark.parametrize("how", [["-q"], []], ids=["quiet", "plain"])
def test_a_lost_case_that_is_deselected_is_not_counted(lossy: Suite, whole: int, how: List[str]) -> None:
    result = lossy.run("-k", "lstm", "--baseline=lossy.json", "--collect-only", *how)

    assert result.returncode == 0, result.text
    assert f"2/{whole} tests collected ({whole - 2} deselected)" in result.stdout
    assert "u9" not in result.stdout


def test_a_run_counts_what_it_deselects(lossy: Suite, whole: int) -> None:
    result = lossy.run("--units=8", "-k", "dense and not u9 and not u10", "--baseline=lossy.json", "--steps=3")

    assert result.returncode == 0, result.text
    assert f"collected {whole} items / {whole - 1} deselected / 1 selected" in result.stdout
    assert f"1 passed, {whole - 1} deselected" in result.stdout


def test_a_lost_case_that_stays_is_counted_as_collected(lossy: Suite, whole: int) -> None:
    result = lossy.run("--units=8", "-k", "dense and not u10", "--baseline=lossy.json", "--steps=3")

    assert result.returncode == 1, result.text
    assert f"collected {whole + 1} items / {whole - 1} deselected / 2 selected" in result.stdout
    assert f"1 failed, 1 passed, {whole - 1} deselected" in result.stdout

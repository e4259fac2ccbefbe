"""What `tox -e bench` runs: the first runs store their processes, later runs are compared with them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Callable

import pytest
from suite import Suite, case_id

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def ci(suite: Suite, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str]]:
    """Return a function that runs scripts/bench_ci.py in a copy: its exit code and what it printed."""
    suite.add("scripts/bench_ci.py", (ROOT / "scripts" / "bench_ci.py").read_text())
    environment = {**suite._environment(), "PYTEST_ADDOPTS": "-p pytest_benchmark.plugin"}

    def run(*args: str) -> tuple[int, str]:
        fast = ("--backend=numpy", "--units=8", "-k", "dense", "--steps=40")
        command = [sys.executable, "scripts/bench_ci.py", *args[:1], *(fast if args else ()), *args[1:]]
        done = subprocess.run(
            command, cwd=str(suite.root), env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        return done.returncode, done.stdout

    return run


def test_the_first_runs_of_ci_store_until_later_ones_can_be_compared(
    ci: Callable[..., tuple[int, str]], suite: Suite
) -> None:
    first = ci("kept", "--junitxml=junit.xml")
    (file,) = (suite.root / "kept").glob("*.json")
    second = ci("kept")
    content = json.loads(file.read_text())
    suite.store(str(file))
    third = ci("kept", "--budget=99")
    suite.store(str(file), 1e6)
    fourth = ci("kept")
    anew = ci("kept", "--baseline-accept=faster machine")

    codes = [code for code, _ in (first, second, third, fourth, anew)]
    assert codes == [0, 0, 0, 1, 0], "".join(text for _, text in (first, second, third, fourth, anew))
    (record,) = (entry["extra_info"] for entry in content["benchmarks"])
    assert (record["id"], len(record["processes"])) == (case_id("numpy", 32), 6)
    assert "% same" in third[1]
    assert "rows/s; slower: -" in fourth[1]
    reasons = [entry["why"] for entry in json.loads(file.read_text())["accepted"]]
    assert reasons == [*2 * ["one of the first runs of scripts/bench_ci.py on this kind of machine"], "faster machine"]
    assert (suite.root / "junit.xml").exists()


def test_ci_without_a_folder_says_what_it_needs(ci: Callable[..., tuple[int, str]]) -> None:
    code, text = ci()

    assert code == 1
    assert text.strip() == "scripts/bench_ci.py FOLDER [options of pytest]: name the folder of the baselines"


def test_ci_with_a_damaged_baseline_says_so_in_one_line(ci: Callable[..., tuple[int, str]], suite: Suite) -> None:
    ci("kept")
    (file,) = (suite.root / "kept").glob("*.json")
    file.write_text("{")

    code, text = ci("kept")

    assert code == 4
    assert [line for line in text.splitlines() if line] == [
        line for line in text.splitlines() if "ERROR: --baseline " in line
    ]

"""The recipes of CI are commands that work: their steps are run in a clean clone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import run_ci

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted((ROOT / "examples" / "ci").glob("*.yml"))
# Of the cases of the recipes, one.
SMALL = "--backend=numpy --units=8"


def test_the_commands_of_a_recipe_are_found_in_its_text():
    steps = "      - name: x\n        run: |\n          one\n          two\n"
    steps += "      - name: y\n        run: |\n          three\n"
    github = f"on: push\n\njobs:\n  a:\n    steps:\n{steps}"
    gitlab = "b:\n  before_script:\n    - one\n  script:\n    - two: x\n    - three\n\nc:\n  script:\n    - four\n"

    assert run_ci.jobs(github) == {"a": ["one", "two", "three"]}
    assert run_ci.jobs(gitlab) == {"b": ["one", "two: x", "three"], "c": ["four"]}


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_measures_compares_and_keeps_what_it_made(recipe):
    found = run_ci.jobs(recipe.read_text())

    text = "\n".join(command for commands in found.values() for command in commands)
    assert sorted(found) == ["compare", "history"]
    for needed in ("bench_ci.py", "--benchmark-autosave", "--report", "--junitxml", "--against", "bench.report"):
        assert needed in text


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_no_step_of_a_recipe_is_overlooked(recipe):
    """What looks like a command is one that the script runs."""
    found = {command for commands in run_ci.jobs(recipe.read_text()).values() for command in commands}

    lines = [line.strip() for line in recipe.read_text().splitlines()]
    commands = [line[2:] if line.startswith("- ") else line for line in lines if ".venv/bin/" in line]
    assert commands
    assert set(commands) <= found


@pytest.mark.thorough
@pytest.mark.parametrize("job", ["history", "compare"])
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_the_steps_of_a_recipe_work_in_a_clean_clone(recipe, job, calibrated, tmp_path):
    clone = tmp_path / "clone"
    branch = subprocess.check_output(["git", "branch", "--show-current"], cwd=str(ROOT), text=True).strip()
    if not branch:
        pytest.skip("this checkout is on no branch, so its clone has none to compare with")
    command = [sys.executable, "-m", "scripts.run_ci", str(recipe), job, "--clone", str(clone), "--branch", branch]
    # pytest-benchmark measures nothing in a process that pytest-xdist says is its own.
    own = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    variables = {"PYTEST_ADDOPTS": SMALL, "LAYERBENCH_CACHE": str(calibrated.cache)}

    done = subprocess.run(
        [*command, "--environment", sys.prefix],
        cwd=str(ROOT),
        env={**own, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )

    # Nothing is stored and nothing is decided while others use the cores.
    assert done.returncode == 0 or "disturbed" in done.stdout, done.stdout
    made = {path.name for path in (clone / "out").iterdir()}
    assert {"junit.xml", "report.html"} <= made
    assert "results.json" in made or "disturbed" in done.stdout
    assert "layerbench report" in (clone / "summary.md").read_text()
    if job == "history":
        assert (clone / "out" / "history.csv").read_text().count("\n") >= 2

"""Style, types and the floor: part of the test command, so that they hold wherever the tests pass."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=str(ROOT), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def need(module: str) -> None:
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"not installed: {module}")


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]], ids=["check", "format"])
def test_ruff_finds_nothing(command):
    need("ruff")

    done = run(sys.executable, "-m", "ruff", *command, "--no-cache", ".")

    assert done.returncode == 0, done.stdout


def test_types_hold(tmp_path):
    need("mypy")

    done = run(sys.executable, "-m", "mypy", "--cache-dir", str(tmp_path))

    assert done.returncode == 0, done.stdout


def test_the_floor_passes_its_tests(tmp_path):
    """Python 3.8 with the oldest versions promised, and no framework but numpy."""
    need("tox")

    done = run(sys.executable, "-m", "tox", "run", "-e", "py38", "--workdir", str(tmp_path), "-q")

    if "could not find python interpreter" in done.stdout:
        pytest.skip("no Python 3.8 here")
    assert done.returncode == 0, done.stdout[-4000:]
    assert " passed" in done.stdout


def test_installing_puts_nothing_on_the_path(tmp_path):
    """The suite runs from its checkout: `bench` and `fixtures` stay off everybody's path."""
    done = run(sys.executable, "-c", "import sys; sys.path.pop(0); import bench")

    assert "No module named 'bench'" in done.stdout


def test_tox_has_benchmarks_for_ci(tmp_path):
    need("tox")

    done = run(sys.executable, "-m", "tox", "config", "-e", "bench", "-k", "commands", "--workdir", str(tmp_path))

    assert done.returncode == 0, done.stdout
    assert f"python scripts/bench_ci.py {tmp_path}/baselines" in done.stdout


def test_what_the_readme_installs_has_pytest_xdist():
    """`-n` is among the commands that it shows."""
    extras = (ROOT / "pyproject.toml").read_text().split("[project.optional-dependencies]")[1].split("\n[")[0]
    (cpu,) = [line for line in extras.splitlines() if line.startswith("cpu = ")]

    assert "'.[cpu]'" in (ROOT / "README.md").read_text()
    assert '"pytest-xdist"' in cpu

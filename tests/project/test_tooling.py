"""Style, types and the floor: part of the test command, so that they hold wherever the tests pass."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(*command: str) -> subprocess.CompletedProcess[str]:
    """A command in the checkout, without the options that somebody may have set for this run of pytest."""
    env = {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"}
    return subprocess.run(command, cwd=str(ROOT), env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


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


def test_the_floor_passes_its_tests(pytestconfig):
    """Python 3.8 with the oldest versions promised, and no framework but numpy. Every file of tests is imported, and
    with it every module of the suite: that shows syntax, types and names that they lack. Without --thorough, those
    marked `floor` are run, with the first two sets of their parameters."""
    need("tox")
    chosen = [] if pytestconfig.option.thorough else ["-m", "floor", "--first-parameters=2"]
    # The environment is kept as long as what it is made of is the same; tox itself does not read pyproject.toml.
    parts = b"".join((ROOT / name).read_bytes() for name in ("pyproject.toml", "tox.ini", "constraints/floor.txt"))
    folder = ROOT / ".tox" / f"floor-{hashlib.sha256(parts).hexdigest()[:12]}"

    done = run(sys.executable, "-m", "tox", "run", "-e", "py38", "--workdir", str(folder), "-q", "--", *chosen)

    if "could not find python interpreter" in done.stdout:
        pytest.skip("no Python 3.8 here")
    assert done.returncode == 0, done.stdout[-4000:]
    assert " passed" in done.stdout


def test_the_files_that_start_first_are_there(pytestconfig):
    """A file that was renamed would start last, and one process would wait for it."""
    conftest = pytestconfig.pluginmanager.get_plugin(str(ROOT / "tests" / "conftest.py"))

    assert [name for name in conftest.LONGEST if not (ROOT / "tests" / name).exists()] == []


# How many processes run the tests for these arguments.
PROCESSES = {
    "tests/graph": 2,
    "tests/graph tests/results": 2,
    "tests/graph -n 0": 1,
    "tests/graph -p no:xdist": 1,
    "tests/graph/test_graph.py": 1,
    "tests/graph/test_graph.py::test_x": 1,
    "tests/graph -n 3": 3,
    "tests/graph bench": 1,
}


def test_folders_of_tests_run_in_two_processes_where_nobody_says_otherwise():
    need("xdist")
    code = f"""
        import pytest

        class Asked:
            @pytest.hookimpl(tryfirst=True)
            def pytest_sessionstart(self, session):
                print("processes", line, len(getattr(session.config.option, "tx", [])) or 1)
                pytest.exit("asked", 0)

        for line in {list(PROCESSES)!r}:
            pytest.main([*line.split(), "-p", "no:cacheprovider"], plugins=[Asked()])
        """

    done = run(sys.executable, "-c", textwrap.dedent(code))

    found = dict(re.findall(r"^processes (.*) (\d+)$", done.stdout, re.MULTILINE))
    assert found == {line: str(count) for line, count in PROCESSES.items()}, done.stdout


def test_a_test_can_have_its_first_parameters_only():
    each = ["tests/graph/test_activations.py", "-q", "--collect-only", "-p", "no:cacheprovider", "--first-parameters=2"]

    done = run(sys.executable, "-m", "pytest", *each)

    collected = re.findall(r"::(test_\w+)", done.stdout)
    assert len(collected) > 8
    assert max(collected.count(name) for name in collected) == 2


def test_runs_of_two_processes_do_not_wait_for_each_other(tmp_path_factory):
    """Their locks lie in a folder of each process."""
    assert tmp_path_factory.getbasetemp() in Path(os.environ["LAYERBENCH_CACHE"]).parents


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

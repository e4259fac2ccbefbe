"""Fixtures of the suite's own tests."""

from __future__ import annotations

from pathlib import Path
from typing import Callable

import pytest
from suite import SMALL, Suite, relax


@pytest.fixture(scope="session")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder in which the machine is calibrated, so that this is paid for once."""
    folder = tmp_path_factory.mktemp("calibrated")
    cache = folder / "cache"
    result = Suite(folder / "suite", cache).run(*SMALL)
    assert result.returncode == 0, result.text
    relax(cache)
    return cache


@pytest.fixture(scope="session")
def new_suite(calibrated: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Suite]:
    """Return a function that makes another copy of the suite."""
    return lambda: Suite(tmp_path_factory.mktemp("copy") / "suite", calibrated)


@pytest.fixture
def suite(new_suite: Callable[[], Suite]) -> Suite:
    """A copy of the suite."""
    return new_suite()


@pytest.fixture(scope="module")
def history(new_suite: Callable[[], Suite]) -> Suite:
    """A copy that has results: a JSON file, a saved run and a baseline."""
    made = new_suite()
    (made.root / "empty").mkdir()
    result = made.run(
        *SMALL,
        "--benchmark-json=run.json",
        "--benchmark-save=before",
        "--baseline=./base.json",
        "--baseline-accept=the first",
    )
    assert result.returncode == 0, result.text
    assert len(made.digests()) >= 3
    return made


@pytest.fixture
def refused(history: Suite) -> Callable[..., str]:
    """Return a function that runs arguments, requires one line and exit code 4, and returns that line."""

    def run(*args: str, **env: str) -> str:
        before = history.digests()

        result = history.run(*args, **env)

        assert result.returncode == 4, result.text
        assert "Traceback" not in result.text
        assert len(result.errors) == 1, result.text
        assert history.digests() == before
        return result.stderr

    return run

"""Fixtures of the suite's own tests."""

from __future__ import annotations

from pathlib import Path
from typing import Callable, Dict, List

import pytest
from suite import SMALL, Suite, relax


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--thorough", action="store_true", help="also run the tests that take minutes")


def pytest_collection_modifyitems(config: pytest.Config, items: List[pytest.Item]) -> None:
    """Leave out the tests that take minutes, unless they are asked for."""
    left_out = [] if config.option.thorough else [item for item in items if item.get_closest_marker("thorough")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


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


@pytest.fixture(scope="module")
def shared(new_suite: Callable[[], Suite]) -> Suite:
    """A copy for the runs of a file of tests, one after the other."""
    return new_suite()


@pytest.fixture(scope="session")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sets of pictures: see tests/real_images.py, which needs more packages than other tests do."""
    import real_images

    root = tmp_path_factory.mktemp("sets")
    real_images.write_sets(root)
    return root


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Dict[str, str]:
    """Files of weights for them, by what they do."""
    import real_images

    return real_images.written_weights(tmp_path_factory.mktemp("weights"))

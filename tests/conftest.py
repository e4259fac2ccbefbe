"""Fixtures of the suite's own tests."""

from __future__ import annotations

import compileall
import gc
import os
from collections import Counter
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List

import pytest
from suite import SMALL, Suite, calibrate, finished

# One thread of arithmetic a process: several run side by side, and threads that wait for a core burn another.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
TESTS = Path(__file__).resolve().parent
PROCESSES = 2
# Files that take longest, longest first: they start first, so that the processes end together.
LONGEST = (
    # With --thorough, a third of everything.
    "graph/test_activations.py",
    "backends/test_backends.py",
    "ipu/test_ipu_contract.py",
    "images/test_image_faults.py",
    "project/test_tooling.py",
    "runs/test_against.py",
    "processes/test_replicas_images.py",
    "workloads/test_pipelines.py",
    "project/test_extending.py",
    "runs/test_baselines_in_runs.py",
    "real_data/test_real_data.py",
    "processes/test_xdist.py",
    "processes/test_replicas.py",
    "runs/test_device_fixtures.py",
    "processes/test_launchers.py",
    "processes/test_faults.py",
    "training/test_learning.py",
    "real_data/test_real_data_faults.py",
    "processes/test_xdist_faults.py",
    "runs/test_own_tests.py",
    "runs/test_plugins.py",
    "workloads/test_cnn_oracles.py",
    "processes/test_hosts.py",
    "runs/test_reports_of_runs.py",
    "project/test_readme_commands.py",
    "runs/test_undecided.py",
    "options/test_bad_input.py",
    "runs/test_network_runs.py",
    "project/test_bench_ci.py",
)
# Folders whose files ask the same processes, one a framework: one process runs them.
TOGETHER = ("tests/backends/", "tests/images/", "tests/ipu/")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--thorough", action="store_true", help="also run the tests that take minutes")
    parser.addoption("--first-parameters", type=int, metavar="N", help="run each test with its first N parameters only")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Run folders of tests in two processes, file by file, where pytest-xdist is there and -n does not say otherwise.

    One process runs what is named by file or test, what shows its output at once and what is debugged.
    """
    options = config.option
    if not hasattr(options, "numprocesses") or hasattr(config, "workerinput"):
        return
    folders = [Path(str(argument).split("::")[0]).resolve() for argument in config.args]
    whole = all(folder.is_dir() and (folder == TESTS or TESTS in folder.parents) for folder in folders)
    asked = options.numprocesses is not None or options.tx or options.dist != "no" or options.distload
    alone = options.usepdb or options.capture == "no" or options.collectonly
    if whole and not asked and not alone:
        options.numprocesses, options.dist = PROCESSES, "loadfile"
    if options.dist == "loadfile":
        # In the order of `pytest_collection_modifyitems`, not by the number of tests.
        options.loadscopereorder = False


def pytest_collection_modifyitems(config: pytest.Config, items: List[pytest.Item]) -> None:
    """Leave out the tests that take minutes, unless they are asked for; start with the files that take longest."""
    wanted = [item for item in items if config.option.thorough or not item.get_closest_marker("thorough")]
    if config.option.first_parameters is not None:
        wanted = _with_the_first_parameters(config.option.first_parameters, wanted)
    if len(wanted) < len(items):
        config.hook.pytest_deselected(items=list(set(items) - set(wanted)))
        items[:] = wanted
    for item in items:
        if "calibrated" in getattr(item, "fixturenames", ()):
            item.add_marker("runs")
    places = {str(TESTS / name): place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(str(item.fspath), len(places)))


def pytest_collection_finish() -> None:
    """Leave 10,000 tests out of garbage collections: the clock makes one before it starts, of a quarter of a second."""
    gc.collect()
    gc.freeze()


def _with_the_first_parameters(count: int, items: List[pytest.Item]) -> List[pytest.Item]:
    """Each test with the first `count` of its sets of parameters."""
    seen: Dict[str, int] = Counter()
    first = []
    for item in items:
        test = item.nodeid.split("[")[0]
        seen[test] += 1
        if seen[test] <= count:
            first.append(item)
    return first


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """By file, but for the folders of TOGETHER."""
    if config.option.dist != "loadfile":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return next((folder for folder in TOGETHER if nodeid.startswith(folder)), nodeid.split("::", 1)[0])

    return Scheduling(config, log)


@pytest.fixture(scope="module", autouse=True)
def only_this_file_is_collected() -> None:
    """Leave what other files imported out of garbage collections, as `pytest_collection_finish` does with tests."""
    gc.collect(1)
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def cache_of_this_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Runs of several processes do not wait for each other's locks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAYERBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> Suite:
    """A suite that ran once: its cache holds the machine's calibration and its folder bytecode, paid for once."""
    folder = tmp_path_factory.mktemp("calibrated")
    first = Suite(folder / "suite", folder / "cache")
    calibrate(first.cache)
    # What this run does not import, other runs do.
    compileall.compile_dir(str(first.root / "bench"), quiet=1)
    with first.start(*SMALL, PYTHONDONTWRITEBYTECODE="") as process:
        result = finished(process)
    assert result.returncode == 0, result.text
    return first


@pytest.fixture(scope="session")
def new_suite(calibrated: Suite, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Suite]:
    """Return a function that makes another copy of the suite."""
    return lambda: Suite(tmp_path_factory.mktemp("copy") / "suite", calibrated.cache, calibrated.root)


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


@pytest.fixture(scope="module")
def loaded_history(history: Suite) -> Iterator[Suite]:
    """That copy, for a file that has many short runs."""
    with history.loaded():
        yield history


@pytest.fixture
def refused(loaded_history: Suite) -> Callable[..., str]:
    """Return a function that runs arguments, requires one line and exit code 4, and returns that line."""

    def run(*args: str, **env: str) -> str:
        before = loaded_history.digests()

        result = loaded_history.run(*args, **env)

        assert result.returncode == 4, result.text
        assert "Traceback" not in result.text
        assert len(result.errors) == 1, result.text
        assert loaded_history.digests() == before
        return result.stderr

    return run


@pytest.fixture(scope="module")
def shared(new_suite: Callable[[], Suite]) -> Iterator[Suite]:
    """A copy for the runs of a file of tests, one after the other. They are forks: its code is not to change."""
    made = new_suite()
    with made.loaded():
        yield made


@pytest.fixture(scope="session")
def loaded(new_suite: Callable[[], Suite]) -> Iterator[Suite]:
    """A copy for runs of several files, by --in-process: forks that have frameworks. Its code is not to change."""
    made = new_suite()
    with made.loaded():
        yield made


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

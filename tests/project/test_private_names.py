"""Names that other packages do not promise, and that the suite leans on: a failure here explains others."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from pytest_benchmark import stats


@pytest.mark.parametrize(
    "name",
    ["quiet", "json", "storage", "save", "autosave", "only", "skip", "disabled", "benchmarks", "compared_mapping"],
)
def test_the_session_of_pytest_benchmark_has_the_attribute(pytestconfig, name):
    assert hasattr(pytestconfig._benchmarksession, name)


def test_pytest_has_the_options_that_it_parsed_before_it_loaded_the_suite(pytestconfig):
    """As fixtures/options/plugins.py asks for the defaults of pytest-benchmark's options."""
    assert pytestconfig.known_args_namespace.benchmark_min_rounds == 5


def test_an_entry_of_the_session_of_pytest_benchmark_can_be_made_again():
    """As fixtures/processes/gather.py does with what came from a worker of pytest-xdist."""
    told = {"name": "a[b]", "fullname": "f::a[b]", "group": "g", "param": "b", "params": {"x": 1}, "extra_info": {}}
    fixture = SimpleNamespace(**told, cprofile_stats=None, has_error=False)

    made = stats.Metadata(fixture, 1, {"min_rounds": 5})
    made.stats.data = [1.0, 3.0]

    assert made.as_dict(include_data=True)["stats"]["median"] == 2.0
    assert {**told, "options": {"min_rounds": 5}} == made.as_dict(include_data=False, stats=False)
    assert (made.iterations, made.has_error) == (1, False)


def test_the_loader_of_torch_can_end_its_processes():
    data = pytest.importorskip("torch.utils.data")

    assert callable(data.dataloader._MultiProcessingDataLoaderIter._shutdown_workers)


def test_the_loader_of_torch_knows_its_processes():
    data = pytest.importorskip("torch.utils.data")

    iterator = iter(data.DataLoader(range(2), num_workers=1))

    try:
        assert [process.pid > 0 for process in iterator._workers] == [True]
    finally:
        iterator._shutdown_workers()


def pytest_generate_tests(metafunc):
    if "told" in metafunc.fixturenames:
        metafunc.parametrize("told", [metafunc._arg2fixturedefs["tmp_path"][-1].func.__module__])


def test_pytest_tells_whose_a_fixture_is(tmp_path, told):
    """As fixtures/devices.py asks of the fixture `device`."""
    assert told.startswith("_pytest.")

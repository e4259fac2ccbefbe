"""Each option of pytest-benchmark is honoured or refused, wherever it is set. The documentation says which."""

from __future__ import annotations

import contextlib
import importlib.util
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Callable, Dict, List, Set, Tuple

import pytest
import pytest_benchmark
from pytest_benchmark import plugin
from suite import SMALL, Suite

from fixtures.options import plugins, table

ROOT = Path(__file__).resolve().parents[2]
ONE = (*SMALL, "--batch-size=1", "--steps=3")
STOCK_TABLE = re.compile(r"^Name \(time in \w+\)", re.MULTILINE)
VALUES: Dict[str, str] = {
    "min_time": "=0.000005",
    "precision": "=0.1",
    "confidence": "=0.9",
    "timer": "=time.process_time",
    "calibration_precision": "=10",
    "warmup_iterations": "=3",
    "cprofile": "=ncalls",
    "cprofile_loops": "=1",
    "cprofile_top": "=25",
    "cprofile_dump": "=profile",
}
# An Elasticsearch client that notes what it is asked, in place of a server.
ELASTICSEARCH = """
from pathlib import Path


class Elasticsearch:
    def __init__(self, hosts, **options):
        self.indices = self
        note(hosts)

    def exists(self, **options):
        return True

    create = put_mapping = exists

    def index(self, **options):
        note(options["body"]["benchmark_id" if "benchmark_id" in options["body"] else "name"])


def note(what):
    with Path("asked.txt").open("a") as file:
        print(what, file=file)
"""


def options_of_pytest_benchmark() -> Set[str]:
    parser = table.parser()
    plugin.pytest_addoption(parser)
    return {name[len("benchmark_") :] for name in vars(parser.parse_known_args([])) if name.startswith("benchmark_")}


def spelling(name: str) -> str:
    return "--benchmark-" + name.replace("_", "-")


def test_every_option_of_pytest_benchmark_is_honoured_or_refused() -> None:
    known = {*plugins.HONOURED, *plugins.REFUSED}

    assert options_of_pytest_benchmark() - known == set()
    assert set(plugins.HONOURED) & set(plugins.REFUSED) == set()
    assert set(plugins.TABLE) <= set(plugins.HONOURED)
    if hasattr(plugin, "parse_fraction"):  # the newest version
        assert known == options_of_pytest_benchmark()


def test_the_documentation_says_what_becomes_of_each() -> None:
    rows = re.findall(r"^\| `(--benchmark-[\w-]+)` \| (.*) \|$", (ROOT / "docs/running.md").read_text(), re.MULTILINE)

    texts = {**plugins.HONOURED, **{name: f"refused: {reason}" for name, reason in plugins.REFUSED.items()}}
    assert rows == [(spelling(name), text) for name, text in texts.items()]


@pytest.mark.parametrize("name", plugins.REFUSED)
def test_a_refused_option_is_one_line(refused: Callable[..., str], name: str) -> None:
    if name not in options_of_pytest_benchmark():
        pytest.skip(f"this pytest-benchmark has no {spelling(name)}")

    assert spelling(name) + ": " in refused(*ONE, spelling(name) + VALUES[name])


@pytest.mark.parametrize(
    "option",
    [
        "--benchmark-time-unit=ns",
        "--benchmark-verbose",
        "--benchmark-columns=min",
        # Its default.
        "--benchmark-sort=min",
        "--benchmark-group-by=param:backend",
        "--benchmark-name=long",
    ],
)
def test_an_option_about_the_table_of_pytest_benchmark_prints_it(loaded_history: Suite, option: str) -> None:
    if option.split("=")[0] not in map(spelling, options_of_pytest_benchmark()):
        pytest.skip(f"this pytest-benchmark has no {option}")

    result = loaded_history.run(*ONE, option)

    assert result.returncode == 0, result.text
    assert STOCK_TABLE.search(result.stdout), result.text


def test_no_option_about_it_prints_no_table_of_pytest_benchmark(loaded_history: Suite) -> None:
    assert not STOCK_TABLE.search(loaded_history.run(*ONE, "--benchmark-min-rounds=3").stdout)


@pytest.mark.floor
def test_the_environment_and_the_configuration_count_as_the_command_line(loaded_history: Suite) -> None:
    for result in (
        loaded_history.run(*ONE, PYTEST_ADDOPTS="--benchmark-columns=min"),
        loaded_history.run(*ONE, "-o", "addopts=--strict-markers --benchmark-columns=min"),
    ):
        assert result.returncode == 0, result.text
        assert STOCK_TABLE.search(result.stdout), result.text


def test_a_refusal_holds_for_the_environment_too(refused: Callable[..., str]) -> None:
    assert "--benchmark-timer: " in refused(*ONE, PYTEST_ADDOPTS="--benchmark-timer=time.time")


@pytest.mark.floor
def test_options_that_nobody_sets_have_their_defaults(suite: Suite) -> None:
    """The record of pytest-benchmark has them as in a run without the suite."""
    result = suite.run(*ONE, "--benchmark-json=run.json", "--benchmark-min-rounds=4")

    assert result.returncode == 0, result.text
    stored: Dict[str, Any] = suite.read("run.json")["benchmarks"][0]["options"]
    assert (stored["min_rounds"], stored["min_time"], stored["disable_gc"]) == (4, 0.000005, False)
    assert (stored["max_time"], stored["warmup"]) == (0.05, False)


@pytest.mark.skipif(importlib.util.find_spec("pygal") is not None, reason="pygal is installed")
def test_a_histogram_without_pygal_is_one_line(refused: Callable[..., str]) -> None:
    assert "pygal" in refused(*ONE, "--benchmark-histogram=plots/h")


@pytest.mark.skipif(importlib.util.find_spec("pygal") is None, reason="pygal is not installed")
def test_a_histogram_is_drawn(suite: Suite) -> None:
    result = suite.run(*ONE, "--benchmark-histogram=plots/h")

    assert result.returncode == 0, result.text
    assert [path.suffix for path in (suite.root / "plots").iterdir()] == [".svg"]


@pytest.mark.skipif(importlib.util.find_spec("elasticsearch") is not None, reason="elasticsearch is installed")
def test_elasticsearch_without_its_package_is_one_line(refused: Callable[..., str]) -> None:
    assert "elasticsearch" in refused(*ONE, "--benchmark-storage=elasticsearch+http://host/", "--benchmark-save=x")


def test_an_address_of_elasticsearch_is_passed_on_untouched(suite: Suite) -> None:
    suite.add("elasticsearch/__init__.py", ELASTICSEARCH)
    suite.add("elasticsearch/serializer.py", "class JSONSerializer:\n    pass\n")
    url = "elasticsearch+http://host:1/index/kind?project_name=mine"

    result = suite.run(*ONE, f"--benchmark-storage={url}", "--benchmark-save=first")

    assert result.returncode == 0, result.text
    asked: List[str] = (suite.root / "asked.txt").read_text().splitlines()
    assert asked[0] == "['http://host:1']"
    assert len(asked) == 2
    assert [path.name for path in suite.root.iterdir() if ":" in path.name] == []


@pytest.mark.parametrize(
    "versions, refused",
    [(("9.2.0", "5.3.0"), True), (("9.2.0", "5.3.1"), False), (("9.1.1", "5.2.3"), False), (("10.0", "4.0.0"), True)],
)
def test_versions_that_fail_together_are_refused(
    monkeypatch: pytest.MonkeyPatch, versions: Tuple[str, str], refused: bool
) -> None:
    monkeypatch.setattr(pytest, "__version__", versions[0])
    monkeypatch.setattr(pytest_benchmark, "__version__", versions[1])
    arguments = SimpleNamespace(benchmark_only=False, benchmark_max_time=1.0, benchmark_histogram=[])

    with pytest.raises(ValueError, match="fails with pytest") if refused else contextlib.nullcontext():
        plugins.refuse(arguments, [])


def test_an_installation_takes_versions_that_work_together() -> None:
    text = (ROOT / "pyproject.toml").read_text()

    assert "\"pytest-benchmark>=5.3.1; python_version >= '3.10'\"" in text


def test_a_terminal_that_has_only_ascii_gets_a_table_of_ascii(suite: Suite) -> None:
    result = suite.run(*ONE, PYTHONIOENCODING="ascii", PYTHONUTF8="0")

    assert result.returncode == 0, result.text
    assert "\\u" not in result.stdout
    assert re.search(r"^ -{30,}$", result.stdout, re.MULTILINE), result.text


def test_a_marker_of_a_users_test_does_not_take_the_clock_away(suite: Suite) -> None:
    """pytest-benchmark reads one marker. A clock of its own would time the replay, which takes microseconds."""
    suite.add(
        "mine/test_mine.py",
        """
        import pytest


        @pytest.mark.benchmark(min_rounds=7)
        @pytest.mark.workload("dense")
        def test_mine(case, measure):
            result = measure(case)
            assert len(result["samples"]) == 3
        """,
    )
    suite.paths = ["mine"]

    result = suite.run("--units=8", "--batch-size=1", "--steps=3", "--benchmark-json=run.json")

    assert result.returncode == 0, result.text
    (entry,) = suite.read("run.json")["benchmarks"]
    assert entry["stats"]["median"] == pytest.approx(entry["extra_info"]["step_median_s"])

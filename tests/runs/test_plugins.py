"""The suite beside other plug-ins of pytest. Stand-ins do what the plug-ins do, so that they need not be installed."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from types import SimpleNamespace
from typing import Any, Callable, Dict, List, Sequence, Tuple

import pytest
from _pytest._io import TerminalWriter
from suite import PACED, SMALL, XDIST, Result, Suite

from bench.devices import cpu
from fixtures import progress

ONE = (*SMALL, "--batch-size=1", "--benchmark-only")
TWO_SIZES = (*SMALL, "--batch-size=1,2", "--steps=3", "--benchmark-only")
STEP_S = 0.01
PACED_STEPS = ("--backend=paced", "--steps=5")
# As pytest-repeat does: a parameter more, at the end of the id.
REPEATS = """
import pytest


@pytest.fixture
def step_of_the_repetition(request):
    return request.param


@pytest.hookimpl(trylast=True)
def pytest_generate_tests(metafunc):
    metafunc.fixturenames.append("step_of_the_repetition")
    metafunc.parametrize("step_of_the_repetition", range(2), indirect=True, ids=lambda index: f"{index + 1}-2")
"""
# As pytest-randomly does, with one of its orders.
SHUFFLES = """
import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    items.reverse()
"""
# As pytest-rerunfailures does.
RERUNS = """
from _pytest.runner import runtestprotocol


def pytest_runtest_protocol(item, nextitem):
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for attempt in range(3):
        item._initrequest()
        reports = runtestprotocol(item, nextitem=nextitem, log=False)
        again = attempt < 2 and any(report.failed for report in reports)
        for report in reports:
            if report.failed and again:
                report.outcome = "rerun"
            item.ihook.pytest_runtest_logreport(report=report)
        if not again:
            break
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def pytest_report_teststatus(report):
    return ("rerun", "R", "RERUN") if report.outcome == "rerun" else None
"""
# Steps of the first processes take eight times as long as those of the later ones.
SLOW_AT_FIRST = """
slow = (Path(__file__).parents[2] / "workers.txt").read_text().count(case.id) <= {processes}
""" + PACED.format(seconds=f"({8 * STEP_S} if slow else {STEP_S})")
WRONG_AT_FIRST = """
wrong = (Path(__file__).parents[2] / "workers.txt").read_text().count(case.id) == 1
program.outputs = lambda: {"output": outputs()["output"] * (2 if wrong else 1)}
"""
# The ten most installed, and those that change what a test, its id or its order is. Each with what turns it on.
INSTALLED: Dict[str, Tuple[str, List[str]]] = {
    "cov": ("pytest_cov.plugin", ["--cov=fixtures", "--cov-report="]),
    "asyncio": ("pytest_asyncio.plugin", ["-o", "asyncio_default_fixture_loop_scope=function"]),
    "json-ctrf": ("ctrf.main", ["--ctrf=ctrf.json"]),
    "mock": ("pytest_mock", []),
    "timeout": ("pytest_timeout", ["--timeout=100"]),
    "rerunfailures": ("pytest_rerunfailures", ["--reruns=2"]),
    "metadata": ("pytest_metadata.plugin", ["--metadata", "a", "b"]),
    "html": ("pytest_html.plugin", ["-p", "pytest_metadata.plugin", "--html=report.html"]),
    "env": ("pytest_env.plugin", []),
    "split": ("pytest_split.plugin", ["--splits=1", "--group=1"]),
    "json-report": ("pytest_jsonreport.plugin", ["--json-report", "--json-report-file=report.json"]),
    "socket": ("pytest_socket", ["--disable-socket"]),
    "order": ("pytest_order.plugin", []),
    "instafail": ("pytest_instafail", ["--instafail"]),
    "sugar": ("pytest_sugar", []),
    "randomly": ("pytest_randomly", ["--randomly-seed=2"]),
    "custom-exit-code": ("pytest_custom_exit_code", ["--suppress-no-test-exit-code"]),
    "codspeed": ("pytest_codspeed.plugin", []),
    "repeat": ("pytest_repeat", ["--count=2"]),
}


def loaded(name: str) -> List[str]:
    module, args = INSTALLED[name]
    return ["-p", module, *args]


def is_installed(name: str) -> bool:
    return importlib.util.find_spec(INSTALLED[name][0].split(".")[0]) is not None


def ids(suite: Suite, name: str) -> List[str]:
    return [record.split("-")[3] for record in suite.ids(name)]


@pytest.mark.parametrize("processes", [[], [*XDIST, "-n", "2"]], ids=["alone", "xdist"])
def test_a_repeated_test_is_measured_each_time_in_order(shared: Suite, processes: List[str]) -> None:
    if processes:
        pytest.importorskip("xdist")
    shared.add("repeats.py", REPEATS)

    result = shared.run(*TWO_SIZES, "-p", "repeats", "--benchmark-json=run.json", *processes)

    assert result.returncode == 0, result.text
    assert ids(shared, "run.json") == ["b1", "b1", "b2", "b2"]


@pytest.mark.parametrize("processes", [[], [*XDIST, "-n", "2"]], ids=["alone", "xdist"])
def test_a_repeated_test_is_no_baseline_and_nothing_is_measured(shared: Suite, processes: List[str]) -> None:
    if processes:
        pytest.importorskip("xdist")
    shared.add("repeats.py", REPEATS)

    result = shared.run(*ONE, "-p", "repeats", "--baseline=./base.json", "--baseline-accept=why", *processes)

    assert result.returncode == 4, result.text
    (error,) = result.errors
    assert error.startswith("ERROR: --baseline-accept: several tests measure dense-u8-inference-b1-fp32-x1-numpy-cpu;")
    assert not (shared.root / "base.json").exists()


@pytest.mark.skipif(len(cpu.usable_cores()) < 2, reason="two cores are needed")
def test_replicas_have_a_scaling_whatever_the_order(suite: Suite) -> None:
    suite.add("shuffles.py", SHUFFLES)

    result = suite.run(*ONE, "-p", "shuffles", "--replicas=1,2", "--steps=3", "--benchmark-json=run.json")

    assert result.returncode == 0, result.text
    two, one = [entry["extra_info"] for entry in suite.read("run.json")["benchmarks"]]
    assert (two["replicas"], one["replicas"], one["scaling_percent"]) == (2, 1, None)
    assert two["scaling_percent"] == pytest.approx(100 * two["items_per_s"] / (2 * one["items_per_s"]))
    assert "scaling" in result.stdout


@pytest.fixture(scope="module")
def stored(new_suite: Callable[[], Suite]) -> Any:
    """A baseline of one case, whose steps take STEP_S."""
    suite = new_suite()
    suite.add_backend("paced", PACED.format(seconds=STEP_S))
    result = suite.run(*ONE, *PACED_STEPS, "--benchmark-json=base.json")
    assert result.returncode == 0, result.text
    content = suite.read("base.json")
    content["benchmarks"][0]["extra_info"].update(items_per_s=1 / STEP_S)
    return content


def rerun(suite: Suite, stored: Any, change: str, *args: str, plugin: Sequence[str] = ("-p", "reruns")) -> Result:
    suite.add("reruns.py", RERUNS)
    suite.add("base.json", json.dumps(stored))
    # What is not slowed down is above.
    suite.store("base.json", 0.9)
    suite.add_backend("paced", change)
    fixed = ("--baseline=./base.json", "--budget=20", "--junitxml=junit.xml", *plugin)
    return suite.run(*ONE, *PACED_STEPS, *fixed, "--benchmark-json=now.json", *args)


@pytest.mark.parametrize("processes", [[], [*XDIST, "-n", "2"]], ids=["alone", "xdist"])
@pytest.mark.parametrize("plugin", [["-p", "reruns"], loaded("rerunfailures")], ids=["stand_in", "rerunfailures"])
def test_a_rerun_counts_once_and_does_not_hide_the_failure(
    suite: Suite, stored: Any, processes: List[str], plugin: List[str]
) -> None:
    """Three processes are too slow, and the test fails. It is run again, and three are not: all six are undecided."""
    if processes:
        pytest.importorskip("xdist")
    if plugin[1] != "reruns":
        pytest.importorskip(plugin[1])

    result = rerun(suite, stored, SLOW_AT_FIRST.format(processes=3), *processes, plugin=plugin)

    assert result.returncode == 0, result.text
    (entry,) = suite.read("now.json")["benchmarks"]
    steps = [1 / process["items_per_s"] > 4 * STEP_S for process in entry["extra_info"]["processes"]]
    assert steps == [True, True, True, False, False, False]
    assert len(re.findall("% undecided$", result.stdout, re.MULTILINE)) == 1
    assert result.stdout.count("\n paced ") == 1
    assert result.stdout.count("passed only when it was run again: ") == 1
    assert "rows/s; slower: -" in result.stdout.split("before: ")[1].splitlines()[0]
    # pytest writes the properties of each run of a test.
    properties = [each.get("name") for each in ElementTree.parse(str(suite.root / "junit.xml")).iter("property")]
    assert properties.count("items_per_s") == 2


def test_all_processes_of_the_reruns_count(suite: Suite, stored: Any) -> None:
    """Each of the three runs has three processes, and all are too slow."""
    result = rerun(suite, stored, PACED.format(seconds=4 * STEP_S))

    assert result.returncode == 1, result.text
    (entry,) = suite.read("now.json")["benchmarks"]
    assert len(entry["extra_info"]["processes"]) == 9
    assert "9 fresh processes" in result.stdout
    assert "passed only when" not in result.stdout


def test_a_wrong_result_is_named_when_a_rerun_is_right(suite: Suite, stored: Any) -> None:
    result = rerun(suite, stored, WRONG_AT_FIRST)

    assert "-paced-cpu: wrong result, not recorded" in result.stdout.split("before: ")[1].splitlines()[0]
    assert len(suite.ids("now.json")) == 1


@pytest.mark.parametrize("before, end", [("..", "\x1b[1A\x1b[2C"), ("", "\x1b[1A"), ("\r..", "\x1b[1A")])
def test_the_line_of_a_case_leaves_the_cursor_where_it_was(
    monkeypatch: pytest.MonkeyPatch, before: str, end: str
) -> None:
    """pytest-sugar writes a carriage return; the width of such a line is -1."""
    pytest.importorskip("rich")
    terminal, writer = io.StringIO(), TerminalWriter(io.StringIO())
    writer.write(before)
    reporter = SimpleNamespace(isatty=True, _tw=writer)
    capture = SimpleNamespace(global_and_fixture_disabled=contextlib.nullcontext)
    parts = {"terminalreporter": reporter, "capturemanager": capture}
    monkeypatch.setattr(sys, "__stdout__", terminal)
    monkeypatch.delenv("CI", raising=False)

    config: Any = SimpleNamespace(pluginmanager=SimpleNamespace(getplugin=parts.get))
    with progress.line(config, "a case"):
        pass

    assert terminal.getvalue().endswith(end)


@pytest.mark.parametrize("option", ["codspeed", "forked"])
def test_a_plugin_that_takes_the_results_away_is_refused_in_one_line(shared: Suite, option: str) -> None:
    shared.add("taking.py", f"def pytest_addoption(parser):\n    parser.addoption('--{option}', action='store_true')\n")

    refused = shared.run(*ONE, "-p", "taking", f"--{option}")

    assert refused.returncode == 4
    assert len(refused.errors) == 1
    assert refused.errors[0].startswith(f"ERROR: --{option}: ")
    assert shared.run(*ONE, "-p", "taking", "--steps=3", "--in-process").returncode == 0


def test_coverage_in_the_process_that_times_is_refused_in_one_line(shared: Suite) -> None:
    shared.add(
        "covers.py",
        """
        def pytest_addoption(parser):
            parser.addoption("--cov", action="append", dest="cov_source", default=[])
        """,
    )
    args = (*ONE, "-p", "covers", "--cov=bench", "--steps=3")

    refused = shared.run(*args, "--in-process")

    assert refused.returncode == 4, refused.text
    assert [line[:12] for line in refused.errors] == ["ERROR: --cov"]
    assert shared.run(*args).returncode == 0


def test_codspeeds_environment_is_refused_in_one_line(shared: Suite) -> None:
    shared.add("taking.py", "def pytest_addoption(parser):\n    parser.addoption('--codspeed', action='store_true')\n")

    assert shared.run(*ONE, "-p", "taking", CODSPEED_ENV="1").errors[0].startswith("ERROR: CODSPEED_ENV is set: ")


def test_a_run_without_pytest_benchmark_is_one_line(suite: Suite) -> None:
    command = [sys.executable, "-m", "pytest", "bench", *SMALL]

    result = subprocess.run(command, cwd=str(suite.root), env=suite._environment(), stderr=subprocess.PIPE, text=True)

    assert result.returncode == 4
    assert result.stderr.strip() == "ERROR: the suite needs pytest-benchmark, and pytest has not loaded it"


@pytest.mark.parametrize("name", INSTALLED)
def test_a_common_plugin_changes_nothing(shared: Suite, name: str) -> None:
    if not is_installed(name):
        pytest.skip(f"pytest-{name} is not installed")

    result = shared.run(*TWO_SIZES, *loaded(name), "--benchmark-json=run.json")

    assert result.returncode == 0, result.text
    assert sorted(set(ids(shared, "run.json"))) == ["b1", "b2"]


def test_all_common_plugins_together_change_nothing(suite: Suite) -> None:
    names = [name for name in INSTALLED if is_installed(name)]
    if len(names) < 2:
        pytest.skip("no two of them are installed")

    args = [arg for name in names for arg in loaded(name)]

    result = suite.run(*TWO_SIZES, *args, "--benchmark-json=run.json")

    assert result.returncode == 0, result.text
    assert sorted(set(ids(suite, "run.json"))) == ["b1", "b2"]

"""The order of the plugins in conftest.py does not matter: a run is put together in one place, in one order."""

from __future__ import annotations

import importlib.util
import json
import random
import re
from pathlib import Path
from typing import Callable, Dict, List, Tuple

import pytest
from suite import SMALL, Suite

ROOT = Path(__file__).resolve().parents[2]
PLUGINS = re.findall(r'^    "(fixtures\.[\w.]+)",$', (ROOT / "conftest.py").read_text(), re.MULTILINE)
ROTATIONS = [PLUGINS[start:] + PLUGINS[:start] for start in range(len(PLUGINS))]
SHUFFLES = [random.Random(seed).sample(PLUGINS, len(PLUGINS)) for seed in range(5)]
ORDERS = [*ROTATIONS, PLUGINS[::-1], *SHUFFLES]
# Arguments, and what is to be found in the output: of a selection, and of refusals at every stage of a run.
LINES: Dict[str, Tuple[List[str], str]] = {
    "selection": ([*SMALL, "--collect-only"], r"dense-u8-inference-b\d+-fp32-x1-numpy-cpu"),
    "value": ([*SMALL, "--undecided=maybe"], r"^ERROR: --undecided: 'maybe' is not one of pass"),
    "baseline": ([*SMALL, "--require-baseline"], r"^ERROR: --require-baseline needs --baseline"),
    "folder": (
        [*SMALL, "--benchmark-save=x", "--benchmark-storage=/proc/nowhere"],
        r"^ERROR: --benchmark-storage: no folder /proc/nowhere",
    ),
    "size": (["-k", "hmc", "--leapfrog-steps=4"], r"^ERROR: hmc: .*leapfrog_steps=4"),
    "keyword": (["-k", "nolayer"], r"^ERROR: -k 'nolayer' selects no case"),
    "workers": (["-n", "2", *SMALL, "-p", "xdist", "--dist=each"], r"^ERROR: --dist each: "),
    "host": ([*SMALL, "--worker-host=popen", "--weights=a.pt"], r"^ERROR: --weights: with --worker-host, a path of"),
    "host and process": ([*SMALL, "--worker-host=popen", "--in-process"], r"^ERROR: --in-process has no worker"),
    "hosts": (
        [*SMALL, "--worker-host=popen,popen//python=python3", "-p", "no:xdist"],
        r"^ERROR: --worker-host: 2 hosts",
    ),
}
if importlib.util.find_spec("xdist") is None:
    del LINES["workers"]
# The order of conftest.py and its reverse with every line, the others with every third one; --thorough has all.
EVERY = [(order, name) for order in range(len(ORDERS)) for name in LINES]
QUICK = {
    (order, name)
    for order in range(len(ORDERS))
    for place, name in enumerate(LINES)
    if ORDERS[order] in (PLUGINS, PLUGINS[::-1]) or (order + place) % 3 == 0
}
# In the place of a run: one line with one order after the other, in one process.
RUNNER = """
import contextlib
import io
import json
from pathlib import Path

import pytest


def pytest_cmdline_main(config):
    found = []
    for order, args in json.loads(Path("runs.json").read_text()):
        Path("conftest.py").write_text(f"pytest_plugins = {order!r}")
        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            code = pytest.main(["bench", "-q", "-p", "pytest_benchmark.plugin", "-p", "no:cacheprovider",
                                "--backend=numpy", *args])
        found.append([int(code), out.getvalue()])
    Path("collected.json").write_text(json.dumps(found))
    return 0
"""


@pytest.fixture(scope="module")
def outputs(pytestconfig: pytest.Config, new_suite: Callable[[], Suite]) -> Dict[Tuple[int, str], Tuple[int, str]]:
    """Exit code and output of a line, by the number of the order and the name of the line."""
    suite = new_suite()
    chosen = [pair for pair in EVERY if pair in QUICK or pytestconfig.option.thorough]
    suite.add("running.py", RUNNER)
    suite.add("runs.json", json.dumps([[ORDERS[order], LINES[name][0]] for order, name in chosen]))
    done = suite.run("-p", "running")
    assert done.returncode == 0, done.text
    return dict(zip(chosen, map(tuple, suite.read("collected.json"))))


def test_every_plugin_is_moved() -> None:
    assert len(PLUGINS) > 8
    assert {tuple(sorted(order)) for order in ORDERS} == {tuple(sorted(PLUGINS))}
    assert {order[0] for order in ORDERS} == set(PLUGINS)


def test_every_order_meets_lines_and_every_line_meets_orders() -> None:
    assert {order for order, _ in QUICK} == set(range(len(ORDERS)))
    assert min(sum(name == each for _, name in QUICK) for each in LINES) >= 6


@pytest.mark.parametrize(
    "order, name",
    [
        pytest.param(*pair, id=f"{pair[0]}-{pair[1]}", marks=() if pair in QUICK else pytest.mark.thorough)
        for pair in EVERY
    ],
)
def test_a_line_says_the_same_in_any_order(
    outputs: Dict[Tuple[int, str], Tuple[int, str]], order: int, name: str
) -> None:
    code, text = outputs[order, name]

    assert (code, len(re.findall("^(?:ERROR|INTERNALERROR)", text, re.MULTILINE))) == (
        (0, 0) if name == "selection" else (4, 1)
    ), text
    assert re.search(LINES[name][1], text, re.MULTILINE), text
    assert _without_times(text) == _without_times(outputs[0, name][1])


def _without_times(text: str) -> str:
    return re.sub(r"in \d+\.\d+s", "", text)

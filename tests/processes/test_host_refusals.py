"""--worker-host: what it refuses, in one line, before anything runs."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from typing import Callable, List

import pytest
from suite import SMALL, Suite

from bench.processes.hosts import difference

OTHER = f"popen//python={sys.executable}"
needs_xdist = pytest.mark.skipif(importlib.util.find_spec("xdist") is None, reason="no pytest-xdist")


def test_hosts_that_differ_are_told_apart() -> None:
    one = {
        "python": "3.11.2",
        "cores": [0, 1],
        "devices": {"cpu": {"model": "A"}, "cuda": None},
        "versions": {"torch": "2.1"},
    }

    assert difference(one, one, ["torch"]) == ""
    assert difference(one, {**one, "python": "3.9.2"}, ["torch"]) == "python 3.11.2 and 3.9.2"
    assert difference(one, {**one, "cores": [0]}, []) == "cores [0, 1] and [0]"
    assert difference(one, {**one, "versions": {"torch": ""}}, ["torch"]) == "torch 2.1 and none"
    assert difference(one, {**one, "versions": {"torch": ""}}, ["numpy"]) == ""
    assert (
        difference(one, {**one, "devices": {**one["devices"], "cuda": {"count": 2}}}, [])
        == "cuda none and {'count': 2}"
    )


@needs_xdist
def test_hosts_that_differ_are_refused(refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.metadata as found\n"
        "said = found.version\n"
        "found.version = lambda name: '0.1' if name == 'numpy' else said(name)\n"
    )

    changed = f"popen//python=env PYTHONPATH={tmp_path} {sys.executable}"
    told = refused(*SMALL, "-p", "xdist", f"--worker-host={OTHER},{changed}")

    assert re.search(r"differ: numpy [\d.]+ and 0\.1; what each of them runs could not be compared", told)


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--worker-host="], "--worker-host: an empty value"),
        (["--worker-host=east"], "'east': ssh=HOST or popen is needed, and //python=FILE where it is not python3"),
        (["--worker-host=ssh"], "'ssh': ssh=HOST or popen is needed"),
        (["--worker-host=socket=east:1"], "'socket=east:1': ssh=HOST or popen is needed"),
        (["--worker-host=popen//id=1"], "'popen//id=1': ssh=HOST or popen is needed"),
        (["--worker-host=popen,popen"], "'popen' is given twice"),
        (
            [f"--worker-host=popen,{OTHER}", "-p", "no:xdist"],
            "2 hosts work side by side, a process of pytest-xdist each",
        ),
        (
            ["--worker-host=popen//python=/nowhere/python"],
            "--worker-host: no host can be reached: popen//python=/nowhere/python: no Python",
        ),
        (["--worker-host=popen//python=/bin/true"], "popen//python=/bin/true: no Python of 3.8 or later starts there"),
        (["--worker-host=popen", "--in-process"], "--in-process has no worker that could run on a host"),
        (
            ["--worker-host=popen", "--weights=a.pt"],
            "--weights: with --worker-host, a path of the host's own is needed",
        ),
        (["--worker-host=popen", "--weights=/nowhere/a.pt"], "no such file or folder: /nowhere/a.pt on popen"),
    ],
)
def test_what_makes_no_sense_is_one_line(refused: Callable[..., str], args: List[str], told: str) -> None:
    assert told in refused(*SMALL, *args)


def test_images_are_refused_on_the_host(refused: Callable[..., str], tmp_path: Path) -> None:
    told = refused("--model=resnet8", "--worker-host=popen", "--data=real", f"--data-dir={tmp_path}")

    assert f"--data-dir: {tmp_path} holds no images" in told


def test_under_a_launcher_it_is_refused(refused: Callable[..., str]) -> None:
    told = refused(*SMALL, "--worker-host=popen", OMPI_COMM_WORLD_RANK="0", OMPI_COMM_WORLD_SIZE="2")

    assert "--worker-host under mpirun: it has placed the processes; leave --worker-host out" in told


def test_collecting_asks_no_host(suite: Suite) -> None:
    result = suite.run(*SMALL, "--collect-only", "--worker-host=ssh=nowhere.invalid")

    assert result.returncode == 0, result.text

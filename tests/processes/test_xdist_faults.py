"""Under pytest-xdist: what dies, fails or makes no sense, and what then is left."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import Callable, List, Tuple

import pytest
from suite import SMALL, TWO, XDIST, Result, Suite, alive, case_id, finished, until

pytest.importorskip("xdist")

# Ends the worker of pytest-xdist that asked for it, at batch size 2.
KILLS = """
if case.batch_size == 2:
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)
"""
HANGS = """
if case.batch_size == 3:
    def hang():
        (Path(__file__).parents[2] / "hanging").write_text(str(os.getppid()))
        while True:
            time.sleep(1)
    program.run_resident = hang
"""
# A plug-in with which execnet lets a worker go on for a minute when its controller is gone, not for 5 s.
PATIENT = """
from execnet.gateway_base import WorkerPool

wait = WorkerPool.waitall
WorkerPool.waitall = lambda self, timeout=None: wait(self, timeout and 60.0)
"""
RAISES = """
if case.batch_size == 2:
    raise RuntimeError("the oven is too hot")
"""


def test_a_worker_that_is_killed_loses_its_own_case_only(suite: Suite) -> None:
    suite.add_backend("kills", KILLS)

    result = suite.run(*SMALL, "--backend=kills", "--batch-size=1,2,3,4", *TWO, "--benchmark-json=run.json", "-rA")

    assert result.returncode == 1, result.text
    assert suite.ids("run.json") == [case_id("kills", batch_size) for batch_size in (1, 3, 4)]
    assert re.search(rf"worker 'gw\d' crashed while running .*{case_id('kills', 2)}", result.stdout)
    pids = [pid for found in suite.workers().values() for pid in found]
    until(lambda: not any(map(alive, pids)), 10)


FAILS = (*SMALL, "--backend=raises", "--batch-size=1,2,3", *TWO, "-p", "cacheprovider")


@pytest.fixture(scope="module")
def failed(new_suite: Callable[[], Suite]) -> Tuple[Suite, Result]:
    """A run of three cases, of which one fails."""
    suite = new_suite()
    suite.add_backend("raises", RAISES)
    return suite, suite.run(*FAILS, "--benchmark-json=run.json")


def test_a_case_that_fails_leaves_the_others(failed: Tuple[Suite, Result]) -> None:
    suite, result = failed

    assert result.returncode == 1, result.text
    assert suite.ids("run.json") == [case_id("raises", 1), case_id("raises", 3)]


def test_the_first_failure_ends_the_run_and_what_was_measured_stays(suite: Suite) -> None:
    suite.add_backend("raises", RAISES)
    batches = ",".join(map(str, range(1, 9)))

    result = suite.run(*SMALL, "--backend=raises", f"--batch-size={batches}", *TWO, "--benchmark-json=run.json", "-x")

    assert result.returncode == 2, result.text
    found = suite.ids("run.json")
    assert case_id("raises", 2) not in found
    assert len(found) < 7


def test_the_last_failed_are_run_again(failed: Tuple[Suite, Result]) -> None:
    suite, _ = failed
    suite.add_backend("raises")

    result = suite.run(*FAILS, "--lf", "--benchmark-json=again.json")

    assert result.returncode == 0, result.text
    assert suite.ids("again.json") == [case_id("raises", 2)]


@pytest.mark.parametrize(
    "args, told",
    [
        (["-n", "2", "--dist=loadgroup"], "pytest-dev/pytest-xdist#1386"),
        (["-n", "2", "--dist=each"], "--dist each: every worker would run every case"),
        (["-n", "2", "--looponfail"], "--looponfail"),
        (["--dist=load", "--tx=ssh=elsewhere"], "--tx ssh=elsewhere: pytest runs here; for workers elsewhere"),
        (["-n", "2", "--batch-size=0"], "--batch-size"),
        (["-n", "2", "-k", "nonsense"], "-k 'nonsense' selects no case"),
        (["-n", "2", "--dist=worksteal", "-k", "nonsense"], "-k 'nonsense' selects no case"),
        (["-n", "2", "--hidden-size=8"], "--hidden-size fits none of the selected workloads"),
        (["-n", "2", "bench/nowhere.py"], "bench/nowhere.py"),
        (["-n", "2", "--benchmark-disable", "--benchmark-only"], "--benchmark-only"),
        (["-n", "64", "--parallel-timing", "--threads=8"], "need 512 cores"),
        (["-n", "2", "--parallel-timing", "--pin=none"], "--pin none"),
        (["-n", "2", "--baseline=nowhere.json"], "nowhere.json"),
    ],
)
def test_what_makes_no_sense_is_one_line(refused: Callable[..., str], args: List[str], told: str) -> None:
    assert told in refused(*SMALL, *XDIST, *args)


def test_a_required_device_that_is_missing_ends_the_run_once(suite: Suite) -> None:
    result = suite.run(*SMALL, *TWO, "--device=ipu", "--backend=popart", "--require-device")

    assert result.returncode == 1, result.text
    assert "--require-device: ipu is not present" in result.text
    assert "workers" not in result.stdout


@pytest.mark.parametrize("name, group", [("SIGINT", True), ("SIGKILL", False)])
def test_a_run_that_is_ended_leaves_no_process(suite: Suite, tmp_path: Path, name: str, group: bool) -> None:
    """Ctrl-C goes to every process of the terminal. Where only the controller is killed, its workers tidy up."""
    suite.add_backend("hangs", HANGS)
    suite.add("patient.py", PATIENT)
    args = (*SMALL, "--backend=hangs", "--batch-size=1,2,3", *TWO, "--benchmark-json=run.json", "-v")
    process = suite.start(*args, *([] if group else ["-p", "patient"]), TMPDIR=str(tmp_path))
    try:
        until(lambda: (suite.root / "hanging").exists() or process.poll() is not None)
        pids = [pid for found in suite.workers().values() for pid in found]
        pids.append(int((suite.root / "hanging").read_text()))
        (os.killpg if group else os.kill)(process.pid, getattr(signal, name))
        until(lambda: not any(map(alive, pids)), 30)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    result = finished(process, 60)

    assert result.returncode == (2 if group else -getattr(signal, name)), result.text
    until(lambda: not list(tmp_path.glob("layerbench-*")), 4)
    if group:
        # Whoever hangs may have kept the others from being timed: what was reported is what is kept.
        passed = re.findall(r"PASSED \S+\[(\S+)\]", result.stdout)
        assert sorted(passed) == sorted(suite.ids("run.json") if (suite.root / "run.json").exists() else [])

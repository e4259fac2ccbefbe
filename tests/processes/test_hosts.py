"""--worker-host: workers under other interpreters and on other hosts, and what happens when those go."""

from __future__ import annotations

import importlib.util
import os
import platform
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List

import pytest
import ssh_hosts
from ssh_hosts import FarHost
from suite import SMALL, Suite, alive, finished, until

from bench.devices import cpu
from bench.processes.host import RemoteHost

OTHER = f"popen//python={sys.executable}"
needs_hosts = pytest.mark.skipif(bool(ssh_hosts.missing()), reason=str(ssh_hosts.missing()))
needs_xdist = pytest.mark.skipif(importlib.util.find_spec("xdist") is None, reason="no pytest-xdist")

# Says where it is, with the case that it has; the case of batch size 3 then never ends.
HANG = """
with open({notes!r}, "a") as file:
    file.write(f"{{case.batch_size}} {{os.uname().nodename}} {{os.getpid()}}\\n")
def slow():
    while case.batch_size == 3:
        time.sleep(1)
    run()
program.run_resident = slow
"""


# What the tests wait for, in seconds: so that it is not long.
HASTE = {
    "bench/processes/agent.py": {"PULSE_S = 5.0": "PULSE_S = 0.5", "SILENCE_S = 30.0": "SILENCE_S = 4.0"},
    "bench/processes/host.py": {
        "ServerAliveInterval=5": "ServerAliveInterval=1",
        "ConnectTimeout=10": "ConnectTimeout=3",
    },
}


@pytest.fixture
def hasty(suite: Suite) -> Suite:
    """A copy that gives a host up sooner."""
    for name, changes in HASTE.items():
        text = (suite.root / name).read_text()
        for before, after in changes.items():
            assert before in text
            text = text.replace(before, after)
        (suite.root / name).write_text(text)
    return suite


class Notes:
    """Who ran what, where: lines that the backend `noted` writes."""

    def __init__(self, suite: Suite) -> None:
        self.path = suite.root / "notes.txt"
        suite.add_backend("noted", HANG.format(notes=str(self.path)))

    def of(self, batch_size: int) -> List[str]:
        """The node and the pid that had a batch size, of the last time; empty: nobody yet."""
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        found = [line.split() for line in lines if line.endswith(tuple("0123456789"))]
        return next((line[1:] for line in reversed(found) if line[0] == str(batch_size)), [])


@pytest.fixture
def far(tmp_path: Path, calibrated: Suite) -> Iterator[Callable[[str], FarHost]]:
    """Return a function that makes a host of a name."""
    made: List[FarHost] = []

    def make(name: str) -> FarHost:
        made.append(FarHost(name, len(made), tmp_path / name, calibrated.cache))
        return made[-1]

    try:
        yield make
    finally:
        for each in made:
            each.remove()


def records(suite: Suite) -> Dict[str, Dict[str, Any]]:
    return {entry["extra_info"]["id"]: entry["extra_info"] for entry in suite.read("run.json")["benchmarks"]}


def test_another_interpreter_runs_the_code_that_was_sent_to_it(suite: Suite, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    result = suite.run(
        *SMALL, f"--worker-host={OTHER}", "--benchmark-json=run.json", TMPDIR=str(tmp_path / "elsewhere")
    )

    assert result.returncode == 0, result.text
    (record,) = records(suite).values()
    assert (record["host"], record["python_version"]) == (socket.gethostname(), platform.python_version())
    assert f"workers on {OTHER}: " in result.stdout
    assert list((tmp_path / "elsewhere").glob("layerbench-*")) == []


@pytest.mark.skipif(len(cpu.usable_cores()) < 2, reason="two cores are needed")
def test_replicas_meet_on_the_host(suite: Suite) -> None:
    result = suite.run(*SMALL, "--replicas=1,2", f"--worker-host={OTHER}", "--benchmark-json=run.json")

    assert result.returncode == 0, result.text
    assert [len(record["replica_items_per_s"] or [1]) for record in records(suite).values()] == [1, 2]


def test_an_agent_that_hears_nothing_ends_and_takes_its_children_along(
    hasty: Suite, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What comes in is all that it can tell from a harness that is gone.
    monkeypatch.setattr("bench.processes.agent.PULSE_S", 1000.0)
    began = time.monotonic()
    there = RemoteHost("popen", hasty.root)
    channel = there.gateway({}).remote_exec("import os; channel.send(os.getpid()); channel.receive()")
    pid = channel.receive()
    assert alive(pid)
    assert alive(there.pid)

    until(lambda: not alive(there.pid) and not alive(pid) and not Path(there.root).exists(), 30)

    assert time.monotonic() - began > 4
    there.close()


def test_a_worker_that_is_killed_there_is_told_as_if_it_were_here(suite: Suite) -> None:
    suite.add_backend("killed", "print('complaint', file=sys.stderr, flush=True); os.kill(os.getpid(), signal.SIGKILL)")

    result = suite.run(*SMALL, "--backend=killed,numpy", f"--worker-host={OTHER}", "-rA")

    assert "the worker was killed by SIGKILL" in result.stdout
    assert "stderr: complaint" in result.stdout
    assert sorted(result.outcomes().values()) == ["FAILED", "PASSED"]


def test_a_case_that_takes_too_long_there_is_ended_there(suite: Suite) -> None:
    notes = Notes(suite)

    args = (*SMALL, "--backend=noted", "--batch-size=3,4", f"--worker-host={OTHER}", "--case-timeout=2", "-rA")
    result = suite.run(*args)

    assert "no result after 2 s (--case-timeout); the worker was killed" in result.stdout
    assert sorted(result.outcomes().values()) == ["FAILED", "PASSED"]
    assert not alive(int(notes.of(3)[1]))


@pytest.mark.parametrize("name", ["SIGINT", "SIGKILL", "SIGTERM"])
def test_a_run_that_is_ended_leaves_nothing_there(suite: Suite, tmp_path: Path, name: str) -> None:
    notes, folder = Notes(suite), tmp_path / "elsewhere"
    folder.mkdir()
    process = suite.start(
        *(*SMALL, "--backend=noted", "--batch-size=2,3", f"--worker-host={OTHER}", "--benchmark-json=run.json"),
        TMPDIR=str(folder),
    )
    until(lambda: notes.of(3))

    if name == "SIGINT":
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.send_signal(getattr(signal, name))

    assert finished(process, 60).returncode != 0
    until(lambda: not alive(int(notes.of(3)[1])), 10)
    # The agent's own folder, with the code in it; what was killed cannot tidy up its own.
    until(lambda: not [path for path in folder.glob("layerbench-*") if (path / "bench").exists()], 10)
    if name == "SIGINT":
        assert [each["batch_size"] for each in records(suite).values()] == [2]


@needs_hosts
def test_a_host_is_reached_by_ssh_and_named_in_the_record(suite: Suite, far: Callable[[str], FarHost]) -> None:
    east = far("east")

    result = suite.run(*SMALL, f"--worker-host={east.spec}", "--benchmark-json=run.json")

    assert result.returncode == 0, result.text
    assert [record["host"] for record in records(suite).values()] == ["east"]
    assert suite.read("run.json")["machine_info"]["node"] == "east"
    until(lambda: not east.pids(), 10)


@needs_hosts
@needs_xdist
def test_a_host_that_is_cut_off_loses_its_case_and_the_other_runs_the_rest(
    hasty: Suite, far: Callable[[str], FarHost]
) -> None:
    notes, east, west = Notes(hasty), far("east"), far("west")
    process = hasty.start(
        *("-k", "dense", "--units=8", "--backend=noted", "--batch-size=1,2,3,4,5,6", "-p", "xdist", "-rA"),
        *(f"--worker-host={east.spec},{west.spec}", "--benchmark-json=run.json"),
    )
    until(lambda: notes.of(3))
    lost, other = (east, west) if notes.of(3)[0] == "east" else (west, east)

    lost.cut_off()
    result = finished(process, 120)

    assert result.returncode == 1, result.text
    failed = [name for name, word in result.outcomes().items() if word == "FAILED"]
    assert failed == ["dense-u8-inference-b3-fp32-x1-noted-cpu"]
    assert f"the host {lost.spec} was cut off" in result.stdout
    found = {record["batch_size"]: record["host"] for record in records(hasty).values()}
    assert sorted(found) == [1, 2, 4, 5, 6]
    assert other.name in found.values()
    # It computes for nobody: it must notice by itself.
    until(lambda: not lost.pids(), 30)


@needs_hosts
def test_when_no_host_is_left_each_case_says_so_at_once(hasty: Suite, far: Callable[[str], FarHost]) -> None:
    notes, east = Notes(hasty), far("east")
    process = hasty.start(
        *(*SMALL, "--backend=noted", "--batch-size=1,3,4,5,6", "-rA", f"--worker-host={east.spec}"),
        "--benchmark-json=run.json",
    )
    until(lambda: notes.of(3))

    east.cut_off()
    result = finished(process, 120)

    assert result.returncode == 1, result.text
    assert sorted(result.outcomes().values()) == ["FAILED"] * 4 + ["PASSED"]
    assert result.stdout.count("no host is left: ssh=east") >= 3
    assert [record["batch_size"] for record in records(hasty).values()] == [1]


@needs_xdist
def test_two_hosts_that_are_one_machine_are_never_timed_at_once(suite: Suite) -> None:
    args = ("-p", "xdist", f"--worker-host=popen,{OTHER}", "--benchmark-json=run.json")
    result = suite.run("-k", "dense", "--units=8,16", "--batch-size=1,2,3", *args)

    assert result.returncode == 0, result.text
    assert "2 workers" in result.stdout
    spans = sorted((record["started_s"], record["ended_s"]) for record in records(suite).values())
    assert len(spans) == 6
    assert all(before[1] <= after[0] for before, after in zip(spans, spans[1:]))


def test_a_run_on_the_cpu_asks_for_no_other_device(suite: Suite, tmp_path: Path) -> None:
    for name in ("nvidia-smi", "gc-info"):
        (tmp_path / name).write_text(f"#!/bin/sh\ntouch {tmp_path}/asked\n")
        (tmp_path / name).chmod(0o755)

    result = suite.run(*SMALL, PATH=f"{tmp_path}:{os.environ['PATH']}")

    assert result.returncode == 0, result.text
    assert not (tmp_path / "asked").exists()

"""The two sides of a comparison: their code, the environment in which they start, and a side that is open."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
import zipfile
from dataclasses import replace

import pytest
from suite import ROOT, until

from bench.cases.case import Case, Settings
from bench.processes.host import LocalHost, RemoteHost, _archive_of
from bench.processes.hosts import Hosts
from bench.processes.side import Failed, Side

CASE = Case("dense", "u8", {"units": 8, "activation": "none"}, "inference", 2, "fp32", 1, "numpy", "cpu")
ENVIRONMENT = "channel.send(open('/proc/self/environ').read())"
needs_proc = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is Linux's")


@pytest.fixture
def repository(tmp_path):
    """A repository with two commits of one file."""

    def git(*words):
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True, capture_output=True)

    git("init", "-q")
    git("config", "user.email", "a@example.com")
    git("config", "user.name", "a")
    (tmp_path / "bench").mkdir()
    for text in ("first", "second"):
        (tmp_path / "bench" / "case.py").write_text(text)
        (tmp_path / "other.py").write_text(text)
        git("add", ".")
        git("commit", "-q", "-m", text)
    (tmp_path / "bench" / "case.py").write_text("not committed")
    return tmp_path


@pytest.mark.parametrize("revision, text", [("HEAD", b"second"), ("HEAD~1", b"first")])
def test_the_code_of_a_revision_is_that_of_its_commit(repository, revision, text):
    with zipfile.ZipFile(io.BytesIO(_archive_of(repository, revision))) as archive:
        files = {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}

    assert files == {"bench/case.py": text}


def test_the_code_of_a_folder_within_a_repository_is_found(repository):
    (repository / "inside").mkdir()
    (repository / "bench").rename(repository / "inside" / "bench")
    subprocess.run(["git", "-C", str(repository), "add", "."], check=True)
    subprocess.run(["git", "-C", str(repository), "commit", "-qm", "moved"], check=True)

    with zipfile.ZipFile(io.BytesIO(_archive_of(repository / "inside", "HEAD"))) as archive:
        assert archive.read("bench/case.py") == b"not committed"


@pytest.mark.parametrize("revision", ["no-such-commit", "HEAD~9", "--output=x"])
def test_a_revision_that_git_does_not_know_is_one_line(repository, revision):
    with pytest.raises(ValueError, match="no code of revision") as error:
        _archive_of(repository, revision)

    assert "\n" not in str(error.value)
    assert not (repository / "x").exists()


@needs_proc
@pytest.mark.parametrize("make", [LocalHost, lambda root: RemoteHost("popen", root)], ids=["here", "agent"])
def test_a_worker_starts_with_its_variables(make):
    """The first environment of a process: what the loader has seen."""
    host = make(ROOT)
    try:
        found = host.gateway({"A": "b c", "QUOTED": "it's"}).remote_exec(ENVIRONMENT).receive(60).split("\0")
        none = host.gateway({}).remote_exec(ENVIRONMENT).receive(60).split("\0")
    finally:
        host.close()

    assert {"A=b c", "QUOTED=it's"} <= set(found)
    assert not {"A=b c"} & set(none)


@pytest.fixture
def side():
    hosts = Hosts(["popen"], ROOT, ["cpu"], ["numpy"])
    opened = Side(hosts, {}, 60.0)
    yield opened
    opened.end_workers()
    hosts.lose()


def open_case(side, case=CASE):
    return side.open(case, Settings(), None, lambda phase: None)


def test_a_side_compiles_takes_its_turns_and_gives_a_record(side):
    step_s = open_case(side)
    blocks = [side.block(3), side.block(5)]
    reply = side.end()

    assert step_s > 0
    assert [len(block) for block in blocks] == [3, 5]
    assert (reply["kind"], reply["record"]["id"]) == ("record", CASE.id)
    assert reply["samples"] == [seconds for block in blocks for seconds in block]
    assert reply["use"] is None or len(reply["use"]) == 3


def test_the_cases_of_a_side_share_its_worker_until_that_ends(side):
    open_case(side)
    side.block(3)
    side.end()
    (first,) = [worker.pid for worker in side._pool.workers.values()]
    open_case(side, replace(CASE, batch_size=3))
    (again,) = [worker.pid for worker in side._pool.workers.values()]
    side.end_workers()
    open_case(side)
    (fresh,) = [worker.pid for worker in side._pool.workers.values()]

    assert first == again != fresh


def test_a_stopped_side_takes_its_turn_after_it_goes_on(side):
    open_case(side)
    side.pause(True)
    side.pause(False)

    assert len(side.block(3)) == 3


def test_a_case_that_fails_before_its_turns_says_how(side):
    with pytest.raises(Failed) as failed:
        open_case(side, replace(CASE, dimensions={"units": 8, "activation": "none", "unknown": 1}))

    assert failed.value.reply["kind"] == "error"


def test_a_worker_that_is_killed_in_its_turn_has_died(side):
    open_case(side)
    (worker,) = side._pool.workers.values()
    worker.host.machine.end(worker.pid)

    with pytest.raises(Failed, match="SIGKILL") as failed:
        side.block(3)
    assert failed.value.reply["kind"] == "died"


def test_a_worker_that_was_gone_before_its_turn_has_died(side):
    """The turn cannot be sent, since the connection is closed already."""
    open_case(side)
    (worker,) = side._pool.workers.values()
    worker.host.machine.end(worker.pid)
    until(lambda: unsendable(worker.channel))

    with pytest.raises(Failed, match="SIGKILL") as failed:
        side.block(3)
    assert failed.value.reply["kind"] == "died"


def unsendable(channel):
    try:
        channel.send(0)
    except OSError:
        return True
    return False


@pytest.mark.parametrize("error", [OSError, EOFError])
def test_an_error_while_the_lock_of_a_host_is_held_is_no_lost_host(tmp_path, monkeypatch, error):
    monkeypatch.setenv("LAYERBENCH_CACHE", str(tmp_path))
    host = RemoteHost("popen", ROOT)
    try:
        with pytest.raises(error, match="of something else"), host.timing("cpu"):
            raise error("of something else")
    finally:
        host.close()


# Writes to a process that has ended, as the host does for a message to a worker.
LATE = """
import subprocess, sys
try:
    from execnet.gateway_base import Popen2IO
except ImportError:
    from __main__ import Popen2IO
worker = subprocess.Popen([sys.executable, "-c", ""], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
worker.wait()
Popen2IO(worker.stdin, worker.stdout, None).write(b"too late")
channel.send("written")
"""


@pytest.mark.parametrize("imports", ["", "raise ImportError"], ids=["execnet", "no_execnet"])
def test_a_host_outlives_workers_that_end_as_they_are_written_to(tmp_path, capfd, imports):
    """While the host is stopped, a worker is killed and gets a message: then the host sees both at once."""
    (tmp_path / "execnet.py").write_text(imports)
    python = tmp_path / "python"
    path = f"PYTHONPATH={tmp_path} " if imports else ""
    python.write_text(f'#!/bin/sh\n{path}exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    host = RemoteHost(f"popen//python={python}", ROOT)
    try:
        assert host._agent.remote_exec(LATE).receive() == "written"
        for _ in range(20):
            worker = host.gateway({}).remote_exec("import os; channel.send(os.getpid()); channel.receive()")
            pid = worker.receive()
            os.kill(host.pid, signal.SIGSTOP)
            os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(OSError):
                worker.send("too late")
            os.kill(host.pid, signal.SIGCONT)
            assert host.machine.exists(host.root)
    finally:
        host.close()
    assert "Traceback" not in capfd.readouterr().err

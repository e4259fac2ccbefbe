"""Processes that a launcher started: rank 0 reports for all, the others are silent, and all take the same steps."""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest
from suite import SMALL, alive, finished, until

from bench.group import LOOPBACK
from bench.processes import launcher
from fixtures.processes import launched

TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "none",
    "RANK": "1",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "node0",
    "MASTER_PORT": "29500",
}
OPEN_MPI = {
    "OMPI_COMM_WORLD_RANK": "3",
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_LOCAL_RANK": "3",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "4",
    "OMPI_MCA_ess_base_jobid": "123",
}


def free_port():
    with socket.socket() as held:
        held.bind((LOOPBACK, 0))
        return held.getsockname()[1]


def ranks(suite, count, *args, **env):
    """Processes as `mpirun -n count` starts them, by rank."""
    where = rendezvous()
    return [suite.start(*args, where, **of_rank) for of_rank in environments(count, **env)]


def rendezvous():
    return f"--rendezvous={LOOPBACK}:{free_port()}"


def environments(count, **env):
    """What `mpirun -n count` sets, by rank."""
    common = {"OMPI_COMM_WORLD_SIZE": str(count), "OMPI_COMM_WORLD_LOCAL_SIZE": str(count), **env}
    return [
        {"OMPI_COMM_WORLD_RANK": str(rank), "OMPI_COMM_WORLD_LOCAL_RANK": str(rank), **common} for rank in range(count)
    ]


# The environment.


def test_nobody_started_a_process_like_any_other():
    assert launcher.detect({"PATH": "/bin"}) is None
    assert launcher.detect({**OPEN_MPI, "OMPI_COMM_WORLD_SIZE": "1", "OMPI_COMM_WORLD_RANK": "0"}) is None


@pytest.mark.parametrize(
    "environ, by, rank, count, local",
    [
        (TORCHRUN, "torchrun", 1, 4, (1, 2)),
        (OPEN_MPI, "mpirun", 3, 4, (3, 4)),
        ({**OPEN_MPI, "POPDIST_ANYTHING": "1"}, "poprun", 3, 4, (3, 4)),
        ({"PMI_RANK": "0", "PMI_SIZE": "2"}, "mpirun", 0, 2, (0, 2)),
    ],
)
def test_a_launcher_tells_rank_and_count(environ, by, rank, count, local):
    found = launcher.detect(environ)

    assert (found.by, found.rank, found.count, (found.local_rank, found.local_count)) == (by, rank, count, local)


ONE_PROCESS = {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "1"}


@pytest.mark.parametrize(
    "environ, in_process",
    [({**ONE_PROCESS, "POPDIST_ANYTHING": "1"}, "on"), (ONE_PROCESS, None), ({"POPDIST_ANYTHING": "1"}, None)],
)
def test_a_single_process_of_poprun_runs_its_cases_itself(environ, in_process, monkeypatch):
    for name in [name for name in os.environ if name.startswith(("OMPI_", "PMI_", "POPDIST_", "TORCHELASTIC_"))]:
        monkeypatch.delenv(name)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    arguments = argparse.Namespace(rendezvous=None, in_process=None, replicas=None)

    assert launched.prepare(arguments) is None
    assert (arguments.in_process, arguments.replicas) == (in_process, None)


def test_all_ranks_of_a_job_meet_at_one_place_and_those_of_another_elsewhere():
    one, same = (launcher.detect({**OPEN_MPI, "OMPI_COMM_WORLD_RANK": rank}).place() for rank in "03")
    other = launcher.detect({**OPEN_MPI, "OMPI_MCA_ess_base_jobid": "124"}).place()

    assert {**one, "rank": 3} == same
    assert (one["port"], one["key"]) != (other["port"], other["key"])


def test_ranks_of_torchrun_meet_at_its_master():
    assert launcher.detect(TORCHRUN).place()["host"] == "node0"
    assert launcher.detect(TORCHRUN).place("node7:5000")["port"] == 5000


def test_where_rank_0_is_on_other_machines_has_to_be_said():
    spread = launcher.detect({**OPEN_MPI, "OMPI_COMM_WORLD_LOCAL_SIZE": "2"})

    with pytest.raises(ValueError, match="mpirun started 4 processes, 2 of them here; say where rank 0"):
        spread.place()
    assert spread.place("10.0.0.1:4000")["host"] == "10.0.0.1"


@pytest.mark.parametrize("text", ["nonsense", "host:", ":5", "host:x", "host:99999"])
def test_a_place_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match="HOST:PORT is needed"):
        launcher.detect(TORCHRUN).place(text)


@pytest.mark.parametrize(
    "usable, local_rank, local_count, threads, own",
    [
        (range(8), 0, 2, 4, [0, 1, 2, 3]),
        (range(8), 1, 2, 2, [6, 7]),
        (range(8), 0, 2, 2, [4, 5]),
        # Shared out by the launcher already.
        ([5], 1, 2, 1, [5]),
    ],
)
def test_ranks_of_a_machine_share_its_cores(usable, local_rank, local_count, threads, own):
    environ = {**TORCHRUN, "LOCAL_RANK": str(local_rank), "LOCAL_WORLD_SIZE": str(local_count)}

    assert launcher.detect(environ).cores(list(usable), threads) == own


# Runs.


def test_rank_0_reports_and_stores_and_the_others_are_silent(suite):
    processes = ranks(suite, 2, *SMALL, "--threads=1", "--benchmark-json=ranks.json", "-rA")

    first, second = [finished(process) for process in processes]

    assert (first.returncode, second.returncode) == (0, 0), first.text + second.text
    assert (second.stdout, second.stderr) == ("", "")
    (entry,) = suite.read("ranks.json")["benchmarks"]
    info = entry["extra_info"]
    assert info["id"] == "dense-u8-inference-b32-fp32-x2-numpy-cpu"
    assert (info["items_per_step"], len(info["replica_items_per_s"])) == (64, 2)
    assert "1 passed" in first.stdout


def test_the_processes_of_a_launcher_are_compared_with_nothing(suite):
    """Each of them has been started once, and all of them refuse."""
    results = [finished(process) for process in ranks(suite, 2, *SMALL, "--baseline=base.json")]

    told = "ERROR: --baseline takes several fresh processes of each case; with mpirun there is one"
    assert [(result.returncode, result.errors) for result in results] == 2 * [(4, [told])]


def test_torchrun_starts_them_and_their_gradients_are_averaged(suite):
    if importlib.util.find_spec("torch") is None:
        pytest.skip("torch is not installed")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "-m", "pytest", "bench", *SMALL]
    command += ["--backend=torch", "--mode=training", "--threads=1", "--benchmark-max-time=0.05"]
    command += ["-p", "pytest_benchmark.plugin", "-p", "no:cacheprovider", "--benchmark-json=run.json"]
    environ = {**suite._environment(), "OMP_NUM_THREADS": "1"}

    done = subprocess.run(command, cwd=str(suite.root), env=environ, stdout=-1, stderr=-1, text=True, timeout=200)

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("1 passed") == 1
    info = suite.read("run.json")["benchmarks"][0]["extra_info"]
    assert (info["replicas"], info["global_batch"]) == (2, 64)
    assert info["all_reduce_percent"] is not None
    assert info["gradient_error"] < 1e-3


AT_RANK_1 = """
if os.environ.get("OMPI_COMM_WORLD_RANK") == "1":
    def wrong():
        {fault}
    program.run_resident = wrong
"""


@pytest.mark.parametrize(
    "fault, timeout_s, told",
    [
        ('raise RuntimeError("the oven is too hot")', 600, "rank 1 of 2: RuntimeError: the oven is too hot"),
        ("os.kill(os.getpid(), signal.SIGKILL)", 600, "replica 1 of 2 is gone"),
        ("time.sleep(600)", 2, "no message from the other 1 replicas for 2 s"),
    ],
    ids=["raises", "killed", "hangs"],
)
def test_a_rank_that_falls_fails_the_run(new_suite, fault, timeout_s, told):
    """Within seconds: what has fallen already is not waited for as long as a case may take."""
    suite = new_suite()
    suite.add_backend("faulty", AT_RANK_1.format(fault=fault))

    args = (*SMALL, "--backend=faulty", "--threads=1", f"--case-timeout={timeout_s}", "--benchmark-json=o.json")

    processes = ranks(suite, 2, *args)

    first = finished(processes[0], 100)
    processes[1].kill()
    processes[1].communicate(timeout=60)
    assert first.returncode == 1
    assert told in first.text
    written = (suite.root / "o.json").read_text() if (suite.root / "o.json").exists() else ""
    assert "dense-u8" not in written
    assert processes[1].returncode != 0


def test_a_rank_that_never_comes_is_told(suite):
    port = free_port()
    environ = {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "0"}

    result = suite.run(*SMALL, "--threads=1", "--case-timeout=1", f"--rendezvous={LOOPBACK}:{port}", **environ)

    assert result.returncode == 1
    assert "no message from the other 1 replicas for 1 s" in result.text


HOLDS = "from bench import locks\nwith locks.timing():\n    print('held', flush=True)\n    input()"


def on_two_machines(suite, own):
    """Two ranks of a launcher, each on a machine of its own by its name and its folder of locks, as `own` has them."""
    port, processes = free_port(), []
    for rank, (node, cache) in enumerate(own.items()):
        command = ["unshare", "--uts", "sh", "-c", f'hostname {node}; exec "$@"', "sh", sys.executable, "-m", "pytest"]
        # A case may take 2 s; to wait for the others does not count.
        command += ["bench", *SMALL, "--backend=numpy", "--threads=1", "--case-timeout=2"]
        command += [f"--rendezvous={LOOPBACK}:{port}", "--benchmark-max-time=0.05"]
        command += ["-p", "pytest_benchmark.plugin", "-p", "no:cacheprovider"]
        size = {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": str(rank), "OMPI_COMM_WORLD_LOCAL_RANK": "0"}
        local = {"OMPI_COMM_WORLD_LOCAL_SIZE": "1", "LAYERBENCH_CACHE": str(cache)}
        environ = {**suite._environment(), **size, **local}
        processes.append(subprocess.Popen(command, cwd=str(suite.root), env=environ, stdout=-1, stderr=-1, text=True))
    return processes


def test_each_machine_of_a_launcher_is_waited_for(suite, calibrated, tmp_path):
    """On one machine somebody else is timed meanwhile: on the first of one job, on the second of another."""
    if subprocess.run(["unshare", "--uts", "true"], stderr=subprocess.DEVNULL).returncode:
        pytest.skip("machines of other names need root")
    holders, jobs = [], []
    for held in ("east", "west"):
        own = {node: tmp_path / f"{node} of the job that finds {held} held" for node in ("east", "west")}
        for folder in own.values():
            shutil.copytree(str(calibrated.cache), str(folder), ignore=shutil.ignore_patterns("locks"))
        environ = {**suite._environment(), "LAYERBENCH_CACHE": str(own[held])}
        holders.append(
            subprocess.Popen([sys.executable, "-c", HOLDS], cwd=str(suite.root), env=environ, stdin=-1, stdout=-1)
        )
        assert holders[-1].stdout.readline() == b"held\n"
        jobs.append(on_two_machines(suite, own))

    # Whoever waits for a machine holds a ticket.
    held = [
        tmp_path / f"{node} of the job that finds {node} held" / "locks" / "room.queue" for node in ("east", "west")
    ]
    until(lambda: all(any(folder.glob("[0-9]*")) for folder in held))
    time.sleep(3)
    waiting = [process.poll() for processes in jobs for process in processes]
    for holder in holders:
        holder.communicate(b"\n")
    results = [[finished(process) for process in processes] for processes in jobs]

    assert waiting == 4 * [None], results
    assert [result.returncode for pair in results for result in pair] == 4 * [0], results
    assert all("1 passed" in first.stdout for first, _ in results)


@pytest.mark.parametrize(
    "args, told",
    [
        (["--replicas=4"], "--replicas 4: mpirun started 2 processes; give 2, or leave it out"),
        (["--rendezvous=nowhere"], "HOST:PORT is needed"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(suite, args, told):
    environ = {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "0"}

    result = suite.run(*SMALL, *args, **environ)

    assert result.returncode == 4
    assert told in result.stderr
    assert len(result.errors) == 1


def test_a_place_to_meet_is_for_a_launcher(suite):
    result = suite.run(*SMALL, "--rendezvous=localhost:4000")

    assert result.returncode == 4
    assert re.search("torchrun, mpirun or poprun started; none did", result.stderr)


def test_ctrl_c_at_the_launcher_leaves_nobody(new_suite):
    suite = new_suite()
    suite.add_backend("slow", "def slow():\n    run()\n    time.sleep(0.2)\nprogram.run_resident = slow")

    processes = ranks(suite, 2, *SMALL, "--backend=slow", "--threads=1", "--steps=10000")
    until(lambda: len([pid for owners in suite.workers().values() for pid in owners]) == 2)
    for process in processes:
        os.killpg(process.pid, signal.SIGINT)

    results = [finished(process) for process in processes]
    assert [result.returncode for result in results] == [2, 2]
    assert not any(alive(process.pid) for process in processes)

"""What others took of a case's cores, from a /proc/stat of the tests' own and from a real neighbour."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from bench.cases.case import Case, Settings
from bench.clock import neighbours, surroundings
from bench.clock.sampling import measure
from bench.job import Job

CASE = Case("dense", "u8", {"units": 8}, "inference", 1, "fp32", 1, "numpy", "cpu")
# user nice system idle iowait irq softirq steal guest guest_nice
BEFORE = "cpu  10 0 10 900 50 0 0 0 0 0\ncpu0 5 0 5 450 25 0 0 0 0 0\ncpu1 5 0 5 450 25 0 0 0 0 0\nintr 1 2 3\n"


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Return a function that sets what the kernel has counted, in hundredths of a second; 2 s pass and the process uses
    half a second of them between two calls of `watch` and `share`."""
    monkeypatch.setattr(neighbours, "STAT", tmp_path / "stat")
    monkeypatch.setattr(neighbours.os, "sysconf", lambda name: 100)
    clocks = {"monotonic": iter([10.0, 12.0]), "process_time": iter([1.0, 1.5])}
    for name, ticks in clocks.items():
        monkeypatch.setattr(neighbours.time, name, lambda ticks=ticks: next(ticks))

    def counted(text):
        neighbours.STAT.write_text(text)

    return counted


@pytest.mark.parametrize(
    "cores, cpu1, percent",
    [
        # Half a second of ours, and nothing else.
        ([1], "30 0 30 500 99 0 0 0", 0.0),
        # A second more by others: half of the two seconds.
        ([1], "100 0 60 500 99 0 0 0", 50.0),
        # The same, stolen by the hypervisor, and of interrupts.
        ([1], "30 0 30 500 99 0 0 100", 50.0),
        ([1], "30 0 30 500 99 60 40 0", 50.0),
        # Idle and waiting for a disk is nobody's.
        ([1], "5 0 5 9999 9999 0 0 0", 0.0),
    ],
)
def test_the_share_is_what_the_process_did_not_use_itself(machine, cores, cpu1, percent):
    machine(BEFORE)
    use = neighbours.watch(cores)
    machine(BEFORE.replace("cpu1 5 0 5 450 25 0 0 0", f"cpu1 {cpu1}"))

    assert neighbours.others_percent(use()) == pytest.approx(percent)


def test_a_case_that_is_not_bound_shares_all_cores(machine, monkeypatch):
    """Two cores and two seconds: 4 s. Busy for 2.5 s, half a second of them by ours."""
    monkeypatch.setattr(neighbours.os, "cpu_count", lambda: 2)
    machine(BEFORE)
    use = neighbours.watch([])
    machine(BEFORE.replace("cpu  10 0 10", "cpu  260 0 10"))

    assert neighbours.others_percent(use()) == pytest.approx(50.0)


@pytest.mark.parametrize("text", ["", "cpu 1 2\n", BEFORE.replace("cpu1", "cpu7")])
def test_what_the_kernel_does_not_tell_is_not_known(machine, text):
    machine(text)

    assert neighbours.watch([1])() is None


def test_a_system_without_these_counts_is_not_known(machine):
    assert neighbours.watch([0])() is None


def test_the_other_side_of_a_pair_is_no_neighbour():
    """Busy for 3 of 10 seconds: 1 s by this process, 1.5 s by the other side, half a second by others."""
    use = neighbours.Use(busy_s=3.0, own_s=1.0, passed_s=10.0)

    assert neighbours.others_percent(use, known_s=1.5) == pytest.approx(5.0)
    assert neighbours.others_percent(use, known_s=9.0) == 0.0
    assert neighbours.others_percent(None, known_s=1.5) is None


@pytest.mark.parametrize("percent, disturbed", [(None, False), (9.9, False), (10.1, True)])
def test_a_case_whose_cores_others_used_is_disturbed(monkeypatch, percent, disturbed):
    monkeypatch.setattr(neighbours, "watch", lambda cores: lambda: None)
    monkeypatch.setattr(neighbours, "others_percent", lambda use: percent)

    _, seen = surroundings.beside_canaries(Job(CASE, Settings()), 0, lambda: (measure(int, Settings(steps=1)), {}))

    assert (seen["others_percent"], seen["disturbed"]) == (percent, disturbed)


@pytest.mark.skipif(not neighbours.STAT.exists() or not hasattr(os, "sched_setaffinity"), reason="not Linux")
def test_a_real_neighbour_on_the_same_core_is_seen():
    """A process that computes on one core, while this one sleeps for half a second."""
    core = max(os.sched_getaffinity(0))
    program = f"import os; os.sched_setaffinity(0, [{core}]); print(flush=True)\nwhile True: pass"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as hog:
        try:
            assert hog.stdout is not None
            hog.stdout.readline()
            use = neighbours.watch([core])
            time.sleep(0.5)
            seen = neighbours.others_percent(use())
        finally:
            hog.kill()

    assert seen is not None
    assert seen > 50

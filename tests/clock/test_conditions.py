"""What must hold while a case is timed: threads stay on their cores, and no quota stops them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading

import pytest
from suite import ROOT, SMALL

from bench import quota
from bench.cases.case import Settings
from bench.cases.errors import Invalid
from bench.clock import conditions
from bench.devices import cpu

two_cores = pytest.mark.skipif(len(cpu.usable_cores()) < 2, reason="two cores are needed")


@pytest.fixture
def own_cores():
    """The cores of this process, which a test may change."""
    before = os.sched_getaffinity(0)
    yield sorted(before)
    cpu.bind(sorted(before))


@two_cores
def test_a_thread_that_leaves_the_cases_cores_makes_it_invalid(own_cores):
    first, *_, last = own_cores
    cpu.bind([last])

    text = rf"bound to core {last} \(--pin\), and a thread of it could run on core {first}"
    with pytest.raises(Invalid, match=text), conditions.required(Settings(cores=[last]), decoding=False):
        os.sched_setaffinity(0, [first])


@two_cores
def test_threads_that_are_elsewhere_before_the_clock_starts_are_brought_back(own_cores):
    first, *_, last = own_cores
    ended, seen = threading.Event(), []
    thread = threading.Thread(target=ended.wait)
    os.sched_setaffinity(0, [first])
    thread.start()
    os.sched_setaffinity(0, [last])

    with conditions.required(Settings(cores=[last]), decoding=False):
        seen = [os.sched_getaffinity(each) for each in cpu.threads()]
    ended.set()
    thread.join()

    assert len(seen) >= 2
    assert seen == len(seen) * [{last}]


@two_cores
def test_threads_that_decode_images_stay_where_they_are(own_cores):
    first, *_, last = own_cores
    ended = threading.Event()
    thread = threading.Thread(target=ended.wait)
    os.sched_setaffinity(0, [first])
    thread.start()
    os.sched_setaffinity(0, [last])

    with conditions.required(Settings(cores=[last]), decoding=True):
        seen = os.sched_getaffinity(thread.native_id)
    ended.set()
    thread.join()

    assert seen == {first}


def test_a_case_that_is_bound_to_no_core_may_run_on_any(own_cores):
    with conditions.required(Settings(), decoding=False):
        os.sched_setaffinity(0, own_cores[:1])


@pytest.mark.parametrize("percent, threads, valid", [(0.5, 1, True), (1.5, 1, False), (1.5, 2, True), (40, 2, False)])
def test_a_case_that_a_quota_stopped_for_more_than_a_hundredth_is_invalid(monkeypatch, percent, threads, valid):
    """Ten seconds by the clock, of which the kernel says for how many it stopped all threads together."""
    stopped, clock = iter([100.0, 100.0 + percent / 10]), iter([0.0, 10.0])
    monkeypatch.setattr(quota, "throttled_s", lambda: next(stopped))
    monkeypatch.setattr(quota, "cores", lambda: 0.5)
    monkeypatch.setattr(conditions, "perf_counter", lambda: next(clock))
    raised = []

    try:
        with conditions.required(Settings(threads=threads), decoding=False):
            pass
    except Invalid as error:
        raised.append(str(error))

    expected = f"the CPU quota of 0.5 cores of its cgroup stopped its threads for {percent / threads:.0f} % of the"
    assert [text.startswith(expected) for text in raised] == ([] if valid else [True])


# A worker that loads torch with more threads than one, and tells on which cores each of its threads may run.
PLACED = """
import json, os, sys
from bench.processes import worker
cores = [int(sys.argv[1])]
worker.prepare({"OMP_NUM_THREADS": "2"}, cores)
import torch
torch.ones(1 << 20).exp()
print(json.dumps([sorted(os.sched_getaffinity(int(task))) for task in os.listdir("/proc/self/task")]))
"""


@two_cores
@pytest.mark.parametrize(
    "environment", [{"GOMP_CPU_AFFINITY": "{first}"}, {"OMP_PLACES": "{{{first}}}", "OMP_PROC_BIND": "close"}]
)
def test_torch_runs_on_the_workers_core_whatever_openmp_is_told(own_cores, environment):
    pytest.importorskip("torch")
    first, *_, last = own_cores
    told = {name: value.format(first=first) for name, value in environment.items()}

    shown = subprocess.run(
        [sys.executable, "-c", PLACED, str(last)],
        cwd=str(ROOT),
        env={**os.environ, **told},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )

    placed = json.loads(shown.stdout)
    assert len(placed) >= 2
    assert placed == len(placed) * [[last]]


@two_cores
def test_a_case_that_runs_elsewhere_fails_by_name_and_is_not_recorded(suite):
    suite.add_backend("stray", "program.run_resident = lambda: (os.sched_setaffinity(0, [0]), run())")

    result = suite.run(*SMALL, "--backend", "stray", "--pin", str(cpu.usable_cores()[-1]))

    assert result.returncode == 1
    assert "stray-cpu: INVALID, not recorded: it is bound to core" in result.text
    assert "Traceback" not in result.text
    assert "items/s" not in result.text


def test_a_run_notes_the_variables_that_it_did_not_pass_on(suite):
    result = suite.run(*SMALL, "--benchmark-json=out.json", GOMP_CPU_AFFINITY="0")

    assert result.returncode == 0
    assert "not passed on to workers, which are bound by --pin: GOMP_CPU_AFFINITY" in result.text
    assert suite.read("out.json")["benchmarks"][0]["extra_info"]["removed_variables"] == {"GOMP_CPU_AFFINITY": "0"}


def test_two_threads_on_one_core_are_named(suite):
    result = suite.run(*SMALL, "--threads", "2", "--pin", str(cpu.usable_cores()[-1]))

    assert result.returncode == 0
    assert "warning: 2 threads share 1 core (--threads, --pin)" in result.text

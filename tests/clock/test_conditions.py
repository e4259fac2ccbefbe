"""What must hold while a case is timed: threads stay on their cores, and no quota stops them."""

from __future__ import annotations

import json
import math
import os
import random
import subprocess
import sys
import threading
import time

import pytest
from suite import ROOT, SMALL

from bench import quota
from bench.cases.case import Settings
from bench.clock import conditions, neighbours
from bench.clock.sampling import Samples, measure
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

    with conditions.watched(Settings(cores=[last]), decoding=False) as watch:
        os.sched_setaffinity(0, [first])

    assert watch.reasons == [f"it is bound to core {last} (--pin), and a thread of it could run on core {first}"]


@two_cores
def test_threads_that_are_elsewhere_before_the_clock_starts_are_brought_back(own_cores):
    first, *_, last = own_cores
    ended, seen = threading.Event(), []
    thread = threading.Thread(target=ended.wait)
    os.sched_setaffinity(0, [first])
    thread.start()
    os.sched_setaffinity(0, [last])

    with conditions.watched(Settings(cores=[last]), decoding=False):
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

    with conditions.watched(Settings(cores=[last]), decoding=True):
        seen = os.sched_getaffinity(thread.native_id)
    ended.set()
    thread.join()

    assert seen == {first}


def test_a_case_that_is_bound_to_no_core_may_run_on_any(own_cores):
    with conditions.watched(Settings(), decoding=False) as watch:
        os.sched_setaffinity(0, own_cores[:1])

    assert watch.reasons == []


@pytest.mark.parametrize("percent, threads, valid", [(0.5, 1, True), (1.5, 1, False), (1.5, 2, True), (40, 2, False)])
def test_a_case_that_a_quota_stopped_for_more_than_a_hundredth_is_invalid(monkeypatch, percent, threads, valid):
    """Ten seconds by the clock, of which the kernel says for how many it stopped all threads together."""
    stopped, clock = iter([100.0, 100.0 + percent / 10]), iter([0.0, 10.0])
    monkeypatch.setattr(quota, "throttled_s", lambda: next(stopped))
    monkeypatch.setattr(quota, "cores", lambda: 0.5)
    monkeypatch.setattr(conditions, "perf_counter", lambda: next(clock))

    with conditions.watched(Settings(threads=threads), decoding=False) as watch:
        pass

    expected = f"the CPU quota of 0.5 cores of its cgroup stopped its threads for {percent / threads:.0f} % of the time"
    assert watch.reasons == ([] if valid else [expected])


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


def test_a_run_notes_the_variables_that_it_did_not_pass_on(suite):
    result = suite.run(*SMALL, "--benchmark-json=out.json", GOMP_CPU_AFFINITY="0")

    assert result.returncode == 0
    assert "not passed on to workers, which are bound by --pin: GOMP_CPU_AFFINITY" in result.text
    assert suite.read("out.json")["benchmarks"][0]["extra_info"]["removed_variables"] == {"GOMP_CPU_AFFINITY": "0"}


def test_two_threads_on_one_core_are_named(suite):
    result = suite.run(*SMALL, "--threads", "2", "--pin", str(cpu.usable_cores()[-1]))

    assert result.returncode == 0
    assert "warning: 2 threads share 1 core (--threads, --pin)" in result.text


# What is compiled, stolen or swapped counts from the end of the warm-up.


class Compiled:
    """How often a program has been compiled, which a test may change."""

    count = 3

    def __call__(self):
        return self.count


@pytest.mark.parametrize("times, shown", [(1, "1 time"), (2, "2 times")])
def test_what_is_compiled_while_it_is_timed_is_invalid(times, shown):
    compiled = Compiled()

    with conditions.watched(Settings(), False, compiled) as watch:
        watch.warmed_up()
        compiled.count += times

    assert watch.reasons == [f"it was compiled {shown} while it was timed"]


def test_what_is_compiled_in_the_warm_up_is_valid():
    compiled = Compiled()

    with conditions.watched(Settings(), False, compiled) as watch:
        compiled.count += 1
        watch.warmed_up()

    assert watch.reasons == []


@pytest.mark.parametrize("percent, passed_s, valid", [(25, 9, True), (26, 9, False), (99, 0.4, True), (None, 9, True)])
def test_a_hypervisor_may_take_a_quarter(monkeypatch, percent, passed_s, valid):
    monkeypatch.setattr(neighbours, "steal", lambda cores: lambda: (percent, passed_s))

    with conditions.watched(Settings(), False) as watch:
        pass

    assert watch.reasons == ([] if valid else ["a hypervisor took 26 % of its cores' time (steal)"])


@pytest.mark.parametrize(
    "faults, pages, valid",
    # Of code that is read from its file the system swaps no page in; others' pages are no fault of this process.
    [(10, 10, False), (9, 500, True), (500, 9, True), (12, 40, False)],
)
def test_pages_that_come_back_from_swap_make_a_case_invalid(monkeypatch, faults, pages, valid):
    counts = {"_major_faults": iter([5, 100, 100 + faults]), "_swapped_in": iter([5, 100, 100 + pages])}
    for name, values in counts.items():
        monkeypatch.setattr(conditions, name, lambda values=values: next(values))

    with conditions.watched(Settings(), False) as watch:
        watch.warmed_up()

    text = f"{min(faults, pages)} pages of it were read back from swap while it was timed"
    assert watch.reasons == ([] if valid else [text])


def test_all_reasons_are_told_at_once(monkeypatch):
    compiled = Compiled()
    monkeypatch.setattr(neighbours, "steal", lambda cores: lambda: (30.0, 1.0))

    with conditions.watched(Settings(), False, compiled) as watch:
        watch.warmed_up()
        compiled.count += 1

    assert [reason.split(" ")[0] for reason in watch.reasons] == ["it", "a"]


@pytest.mark.parametrize(
    "others_percent, passed_s, clocks, expected",
    [
        (90.0, 1.0, (2e9, 2e9), []),
        (None, 1.0, (None, None), []),
        (91.0, 0.4, (2e9, None), []),
        (91.0, 1.0, (2e9, 2e9), ["others took 91 % of its cores' time"]),
        (0.0, 1.0, (4e9, 2e9), []),
        (0.0, 1.0, (4e9, 1.9e9), ["its core's clock was 4.00 GHz before it was timed, and 1.90 after"]),
        (0.0, 1.0, (1.9e9, 4e9), ["its core's clock was 1.90 GHz before it was timed, and 4.00 after"]),
    ],
)
def test_the_machines_load_and_clock_have_bounds(others_percent, passed_s, clocks, expected):
    assert conditions.of_machine(others_percent, passed_s, *clocks) == expected


# What the samples themselves show.


def samples_of(seconds, by_clocks_s=(1.0, 1.0)):
    return Samples(list(seconds), 1, 1, 0.1, True, sum(seconds), by_clocks_s)


@pytest.mark.parametrize(
    "by_clock_s, by_second_s, valid",
    [(1.0, 1.0, True), (1.009, 1.0, True), (0.5, 1.0, False), (1.05, 1.0, False), (0.001, 0.02, True), (0, 0, True)],
)
def test_two_clocks_must_agree(by_clock_s, by_second_s, valid):
    reasons = conditions.of_samples(samples_of([0.1], (by_clock_s, by_second_s)))

    text = f"its clock says {by_clock_s:.3g} s for samples that took {by_second_s:.3g} s by a second clock"
    assert reasons == ([] if valid else [text])


@pytest.mark.parametrize("factor, change", [(4.0, "slower"), (1 / 4, "faster")])
def test_steps_that_drift_by_more_than_a_factor_of_two_are_invalid(factor, change):
    """From 1 to 4 over 120 samples in geometric steps: the middles of the thirds are at 1/6 and 5/6, so 4^(2/3) = 2.52
    apart; with noise of 1 % on each."""
    noise = random.Random(0)
    seconds = [factor ** (i / 119) * noise.uniform(0.99, 1.01) for i in range(120)]

    assert f"its steps became 2.5 times {change} while it was timed" in conditions.of_samples(samples_of(seconds), 10.0)
    # With a neighbour on the cores, the record is disturbed.
    assert conditions.of_samples(samples_of(seconds), 10.1) == []


@pytest.mark.parametrize("factor", [1.5, 0.67])
def test_steps_that_drift_by_half_are_valid(factor):
    noise = random.Random(0)

    seconds = [factor ** (i / 119) * noise.uniform(0.9, 1.1) for i in range(120)]

    assert conditions.of_samples(samples_of(seconds)) == []


def test_steps_that_become_slower_at_once_are_valid():
    """Another process started: its share of the cores says what that means."""
    noise = random.Random(0)

    seconds = [(1 if i < 60 else 3) * noise.uniform(0.95, 1.05) for i in range(120)]

    assert conditions.of_samples(samples_of(seconds)) == []


def test_a_slow_start_of_few_samples_is_valid():
    assert conditions.of_samples(samples_of([4.0**-i for i in range(10)])) == []


def test_samples_that_tell_as_much_as_one_are_invalid():
    """A wave of one period over 120 samples: each is as the last, and the ends are as the start."""
    seconds = [2 + math.sin(2 * math.pi * i / 120) for i in range(120)]

    (reason,) = conditions.of_samples(samples_of(seconds))

    assert reason.startswith("its 120 samples tell as much as 0.")


def test_quiet_samples_may_follow_each_other_closely():
    """The same wave, of a hundredth: nobody reads another rate from it."""
    seconds = [2 + 0.01 * math.sin(2 * math.pi * i / 120) for i in range(120)]

    assert conditions.of_samples(samples_of(seconds)) == []


def test_two_modes_that_alternate_now_and_then_are_valid():
    noise = random.Random(0)

    seconds = [(1 if i // 20 % 2 else 2) * noise.uniform(0.95, 1.05) for i in range(120)]

    assert conditions.of_samples(samples_of(seconds)) == []


def test_a_patched_clock_is_seen_by_the_second_one():
    """A clock that runs at half the speed, and a step that sleeps."""
    samples = measure(lambda: time.sleep(0.02), Settings(steps=5), clock=lambda: time.perf_counter() / 2)

    (reason,) = conditions.of_samples(samples)

    assert "by a second clock" in reason


def test_the_clock_itself_agrees_with_the_second_one():
    assert conditions.of_samples(measure(lambda: time.sleep(0.02), Settings(steps=5))) == []

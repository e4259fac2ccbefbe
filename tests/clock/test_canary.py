"""The canaries, with times of the tests' own."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from bench import calibration
from bench.cases.case import Case, Settings
from bench.clock import canary, neighbours, surroundings
from bench.clock.sampling import measure
from bench.job import Job

CASE = Case("dense", "u8", {"units": 8}, "inference", 1, "fp32", 1, "numpy", "cpu")
MIB = 1 << 20
QUIET = dict.fromkeys(canary.KINDS, 0.5)


@pytest.fixture(autouse=True)
def no_neighbours(monkeypatch):
    """Nobody else uses the cores: the canaries alone decide."""
    monkeypatch.setattr(neighbours, "watch", lambda cores: lambda: None)


@pytest.fixture
def scripted(monkeypatch):
    """Return a function that makes the rounds of a canary take the given seconds."""

    def script(*seconds):
        ticks = iter([tick for i, each in enumerate(seconds) for tick in (i * 1000.0, i * 1000.0 + each)])
        monkeypatch.setattr(canary, "perf_counter", lambda: next(ticks))

    return script


def test_a_canary_takes_the_shortest_median_of_five_rounds(scripted):
    """Of all rounds but five, the shortest takes 0.1 s: two of five that are so short say nothing."""
    scripted(*(canary.ROUNDS // canary.FEW - 1) * [80, 0.1, 80, 0.1, 80], 0.5, 1.5, 0.4, 1.6, 0.6)

    assert canary.seconds(1, ["level2"], {"level2": 0.1}) == {"level2": pytest.approx(0.6)}


def test_a_canary_ends_after_five_rounds_whose_median_is_nearly_the_known_time(scripted):
    """The known time is 10 s: a median of 10.6 s is not near enough and 10.4 s is. Later rounds would be faster."""
    scripted(20, 10.6, 20, 9, 9, 20, 20, 10.4, 9, 9, 1, 1, 1, 1, 1)

    assert canary.seconds(1, ["level2"], {"level2": 10.0}) == {"level2": pytest.approx(10.4)}


def test_the_times_of_another_amount_of_work_are_not_known_times(monkeypatch):
    name = calibration._canary_name(1, [0])

    monkeypatch.setattr(canary, "WORK", (1, 1, 1, 1, 1))

    assert calibration._canary_name(1, [0]) != name


@pytest.mark.parametrize(
    "cores, pauses", [([], [surroundings.SETTLE_S] * 2), ([0], []), ([0, 1], [surroundings.SETTLE_S] * 2)]
)
def test_a_canary_waits_for_threads_that_spin_on_other_cores(monkeypatch, cores, pauses):
    slept = []
    monkeypatch.setattr(surroundings.time, "sleep", slept.append)

    beside(monkeypatch, {}, {}, Job(CASE, Settings(cores=cores), canary_s=QUIET))

    assert slept == pauses


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_every_kind_runs_on_every_thread_at_once(threads):
    for kind, (run, arguments) in canary._kernels(threads, canary.KINDS).items():
        assert len(arguments) == threads, kind
        together = threading.Barrier(threads, timeout=10)
        seen = []

        def noting(argument, run=run, together=together, seen=seen):
            together.wait()
            seen.append(run(argument))

        with canary.ThreadPoolExecutor(threads) as pool:
            next(canary._rounds(pool, noting, arguments))
        # One round more warms up.
        assert len(seen) == threads * (canary.FEW + 1), kind


def test_each_level_is_read_from_memory_that_it_alone_fits_in(monkeypatch):
    """With a second cache of 1 MiB and a last one of 16: 512 KiB, 4 MiB and 32 MiB of distinct addresses."""
    monkeypatch.setattr(canary, "caches", lambda: (MIB, 16 * MIB))

    kernels = canary._kernels(2, canary.KINDS)

    def span(array):
        return array.shape[-1] * array.itemsize

    assert [(span(row), span(result)) for row, result in kernels["arithmetic"][1]] == 2 * [(16 << 10, 16 << 10)]
    assert [(span(row), span(result)) for row, result in kernels["level2"][1]] == 2 * [(MIB // 4, MIB // 4)]
    assert [span(array) for array in kernels["level3"][1]] == 2 * [4 * MIB]
    assert sum(map(span, kernels["memory"][1])) == 32 * MIB
    rows = [*kernels["level3"][1], *(row for pair in kernels["level2"][1] for row in pair)]
    assert all(row.ctypes.data % 4096 == 0 for row in rows)
    assert all(places.min() >= 0 and places.max() < 8 * MIB for places in kernels["latency"][1])


@pytest.mark.parametrize(
    "threads, working_set, kinds",
    [
        (1, 0, ["arithmetic", "level2"]),
        (1, MIB, ["arithmetic", "level2"]),
        (1, MIB + 1, ["arithmetic", "level2", "level3"]),
        (1, 16 * MIB + 1, ["arithmetic", "level2", "level3", "memory", "latency"]),
        (2, 0, ["arithmetic", "level2", "threads"]),
    ],
)
def test_a_case_depends_on_the_kinds_up_to_the_level_that_its_data_fit_in(monkeypatch, threads, working_set, kinds):
    monkeypatch.setattr(canary, "caches", lambda: (MIB, 16 * MIB))

    assert canary.kinds(threads, working_set) == kinds


def test_the_sizes_of_the_caches_are_the_kernels():
    second, last = canary.caches()

    assert 1 << 16 <= second <= last <= 1 << 32


def test_the_best_of_several_occasions_is_the_shortest_of_each_kind():
    assert canary.best({"arithmetic": 2.0, "memory": 5.0}, {"arithmetic": 3.0, "memory": 4.0, "level2": 1.0}, {}) == {
        "arithmetic": 2.0,
        "memory": 4.0,
        "level2": 1.0,
    }


@pytest.mark.parametrize("kind", list(canary.KINDS))
def test_every_kind_takes_time_on_a_real_clock(kind):
    assert canary.seconds(1, [kind])[kind] > 0


def timed():
    """One sample of nothing, and something that was seen besides."""
    return measure(lambda: None, Settings(steps=1)), {"top1_percent": 50.0}


def beside(monkeypatch, before, after, job=None):
    """What is seen around a case, where the canaries take these seconds before and after it."""
    times = iter([before, after])
    monkeypatch.setattr(canary, "seconds", lambda threads, wanted, known: next(times))
    return surroundings.beside_canaries(job or Job(CASE, Settings(), canary_s=QUIET), 0, timed)[1]


@pytest.mark.parametrize(
    "before, after, slowdowns, kind, disturbed",
    [
        ({"arithmetic": 0.5}, {"arithmetic": 0.5}, (1.0, 1.0), "arithmetic", False),
        ({"arithmetic": 0.6, "memory": 0.55}, {"arithmetic": 0.5, "memory": 0.52}, (1.2, 1.0), "arithmetic", False),
        ({"arithmetic": 0.5, "memory": 0.8}, {"arithmetic": 0.5, "memory": 0.5}, (1.6, 1.0), "memory", True),
        # Of 1.4 in memory, where 1.5 is allowed, and 1.3 in arithmetic, where 1.25 is, the second says more.
        ({"arithmetic": 0.5, "memory": 0.7}, {"arithmetic": 0.5, "memory": 0.5}, (1.4, 1.0), "memory", False),
        ({"arithmetic": 0.65, "memory": 0.7}, {"arithmetic": 0.5, "memory": 0.5}, (1.3, 1.0), "arithmetic", True),
        ({"arithmetic": 0.5, "level2": 0.5}, {"arithmetic": 0.5, "level2": 1.5}, (1.0, 3.0), "level2", True),
    ],
)
def test_the_kind_that_is_slowed_down_most_on_either_side_decides(
    monkeypatch, before, after, slowdowns, kind, disturbed
):
    seen = beside(monkeypatch, before, after)

    assert (seen["canary_slowdown_before"], seen["canary_slowdown_after"]) == pytest.approx(slowdowns)
    assert (seen["canary_kind"], seen["disturbed"]) == (kind, disturbed)


def test_what_the_canaries_took_comes_back_so_that_the_best_is_known(monkeypatch):
    seen = beside(monkeypatch, {"arithmetic": 0.4}, {"arithmetic": 0.6})

    assert seen["canary_s"] == {"arithmetic": 0.4}


def test_without_a_known_time_there_is_no_canary():
    _, seen = surroundings.beside_canaries(Job(CASE, Settings()), 0, timed)

    assert (seen["canary_slowdown_before"], seen["canary_slowdown_after"], seen["disturbed"]) == (None, None, False)
    assert (seen["canary_kind"], seen["canary_s"]) == (None, {})


def test_what_was_timed_comes_back_with_what_it_saw_and_when():
    samples, seen = surroundings.beside_canaries(Job(CASE, Settings()), 0, timed)

    assert len(samples.seconds) == 1
    assert seen["top1_percent"] == 50.0
    assert 0 <= seen["ended_s"] - seen["started_s"] < 60


def test_replicas_take_turns_and_the_slowest_counts(monkeypatch):
    """Rank 1 of 2 is asked: it runs no canary while rank 0 does, and takes over what rank 0 has seen."""

    class Pair:
        count, rank = 2, 1
        rank_0 = iter([{"memory": 2.0}, {}, {"memory": 2.0}, {}])

        def all_gather(self, value, no_timeout=False):
            return [next(self.rank_0), value] if isinstance(value, dict) else [value, value]

    seen = beside(
        monkeypatch, {"memory": 0.5}, {"memory": 0.6}, replace(Job(CASE, Settings(), canary_s=QUIET), group=Pair())
    )

    # Rank 0's 2 s, which this rank did not see itself, over the known 0.5 s.
    assert (seen["canary_slowdown_before"], seen["canary_s"]) == (4.0, {"memory": 2.0})

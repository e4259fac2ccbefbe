"""The canary, with times of the tests' own."""

from __future__ import annotations

import pytest

from bench.cases.case import Settings
from bench.clock import canary, surroundings
from bench.clock.sampling import measure


@pytest.fixture
def scripted(monkeypatch):
    """Return a function that makes the rounds of a canary take the given seconds."""

    def script(*seconds):
        ticks = iter([tick for i, each in enumerate(seconds) for tick in (i * 1000.0, i * 1000.0 + each)])
        monkeypatch.setattr(canary, "perf_counter", lambda: next(ticks))

    return script


def test_a_canary_on_a_machine_as_fast_as_known_is_one(scripted):
    scripted(*canary.ROUNDS * [0.5])

    assert canary.slowdown(1, 0.5) == pytest.approx(1)


def test_a_slowdown_is_the_median_round_over_the_known_one(scripted):
    """Four rounds as known, one three times slower, four stalled: the fifth of nine counts."""
    scripted(0.5, 50, 0.5, 50, 1.5, 50, 0.5, 50, 0.5)

    assert canary.slowdown(1, 0.5) == pytest.approx(3)


def test_one_stalled_round_does_not_disturb(scripted):
    scripted(*(canary.ROUNDS - 1) * [0.5], 80)

    assert canary.slowdown(1, 0.5) == pytest.approx(1)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_round_hashes_a_buffer_on_every_thread(monkeypatch, threads):
    hashed = []
    monkeypatch.setattr(canary, "_hash", hashed.append)

    assert len(canary.seconds(threads)) == canary.ROUNDS
    # One round more warms up.
    assert sorted(hashed) == sorted((canary.ROUNDS + 1) * list(range(threads)))


def timed():
    """One sample of nothing, and something that was seen besides."""
    return measure(lambda: None, Settings(steps=1)), {"top1_percent": 50.0}


def test_rounds_take_time_on_a_real_clock():
    assert min(canary.seconds(1)) > 0


@pytest.mark.parametrize(
    "before, after, disturbed", [(1.0, 1.0, False), (1.49, 1.49, False), (1.6, 1.0, True), (1.0, 1.6, True)]
)
def test_a_slow_canary_on_either_side_marks_a_case_as_disturbed(monkeypatch, before, after, disturbed):
    found = iter([before, after])
    monkeypatch.setattr(canary, "slowdown", lambda threads, known_s: next(found))

    _, seen = surroundings.beside_canaries(Settings(), 0.5, timed)

    assert (seen["canary_slowdown_before"], seen["canary_slowdown_after"], seen["disturbed"]) == (
        before,
        after,
        disturbed,
    )


def test_without_a_known_time_there_is_no_canary():
    _, seen = surroundings.beside_canaries(Settings(), None, timed)

    assert (seen["canary_slowdown_before"], seen["canary_slowdown_after"], seen["disturbed"]) == (None, None, False)


def test_what_was_timed_comes_back_with_what_it_saw_and_when():
    samples, seen = surroundings.beside_canaries(Settings(), None, timed)

    assert len(samples.seconds) == 1
    assert seen["top1_percent"] == 50.0
    assert 0 <= seen["ended_s"] - seen["started_s"] < 60

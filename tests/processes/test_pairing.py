"""One case on both sides of a pair: whose turn it is, what is compared, and what fails. The sides are of paper."""

from __future__ import annotations

import math

import pytest

from bench.cases.case import Case, Settings
from bench.clock.neighbours import Use
from bench.processes import pairing
from bench.processes.pairing import Plan
from bench.processes.side import Failed
from bench.results.pair import BASE, CANDIDATE

CASE = Case("dense", "u8", {"units": 8}, "inference", 2, "fp32", 1, "numpy", "cpu")
QUIET = {"disturbed": False, "canary_slowdown_before": 1.0, "canary_slowdown_after": 1.0, "canary_kind": "level2"}


class Paper:
    """A side whose steps take `step_s`, and which says what is asked of it."""

    def __init__(self, name, said, step_s=0.01, reply=None, fails_at=None):
        self.name, self.said, self.step_s = name, said, step_s
        self.reply = reply or {"kind": "record", "record": dict(QUIET), "use": [1.0, 0.5, 10.0]}
        self.fails_at, self.blocks, self.paused = fails_at, 0, False
        self.opened, self.other = False, None

    def open(self, case, settings, canary_s, tell):
        self._require_turn()
        self.said.append((self.name, "open"))
        if self.fails_at == "open":
            raise Failed({"kind": "wrong", "text": "wrong result"})
        self.opened = True
        return self.step_s

    def _require_turn(self):
        assert not self.paused, "a stopped side has no turn"
        assert self.other.paused or not self.other.opened, "the other side is not stopped"

    def block(self, samples):
        self._require_turn()
        self.said.append((self.name, samples))
        self.blocks += 1
        if self.fails_at == self.blocks:
            raise Failed({"kind": "died", "text": "the worker was killed"})
        return [self.step_s] * samples

    def end(self):
        self._require_turn()
        self.said.append((self.name, "end"))
        return self.reply

    def pause(self, paused):
        self.paused = paused


def measured(said=None, time_s=0.0, base=None, candidate=None, index=0):
    said = [] if said is None else said
    sides = {BASE: Paper(BASE, said, **(base or {})), CANDIDATE: Paper(CANDIDATE, said, **(candidate or {}))}
    sides[BASE].other, sides[CANDIDATE].other = sides[CANDIDATE], sides[BASE]
    settings = {BASE: Settings(), CANDIDATE: Settings()}
    found = pairing.measure(CASE, index, 0, sides, settings, Plan(seed=1, time_s=time_s), lambda phase: None)
    return found, sides


def test_a_candidate_that_takes_longer_has_a_lower_rate():
    found, _ = measured(candidate={"step_s": 0.0125})

    assert found.outcome == "counted"
    assert found.log_ratios["rate"] == pytest.approx(math.log(0.8))
    assert found.log_ratios["mean_rate"] == pytest.approx(math.log(0.8))


def test_one_side_at_a_time_has_its_turn_and_the_other_is_stopped():
    said = []
    _, sides = measured(said)

    turns = [name for name, what in said if isinstance(what, int)]
    orders = ["".join("A" if name == BASE else "B" for name in turns[i : i + 4]) for i in range(0, len(turns), 4)]
    assert set(orders) <= {"ABBA", "BAAB"}
    assert len(orders) == pairing.FEWEST_UNITS
    assert not any(side.paused for side in sides.values())


def test_who_starts_first_is_a_coin():
    firsts = []
    for index in range(40):
        said = []
        measured(said, index=index)
        firsts.append(said[0][0])

    assert 8 < firsts.count(CANDIDATE) < 32


@pytest.mark.parametrize(
    "step_s, time_s, samples, units",
    [
        # 20 ms of steps of 1 ms, and as many units of 80 ms as fit into a second: 12.
        (0.001, 1.0, 20, 12),
        # Three steps of 50 ms, and 4 units of 0.6 s.
        (0.05, 2.4, 3, 4),
        # Steps of a second: no fewer than three units.
        (1.0, 1.0, 3, 3),
    ],
)
def test_a_block_is_20_ms_or_three_steps(step_s, time_s, samples, units):
    said = []
    measured(said, time_s, base={"step_s": step_s}, candidate={"step_s": step_s})

    counts = [what for _, what in said if isinstance(what, int)]
    assert set(counts) == {samples}
    assert len(counts) == 4 * units


def test_both_sides_have_as_many_steps_in_a_block():
    said = []
    measured(said, base={"step_s": 0.001}, candidate={"step_s": 0.01})

    assert {what for _, what in said if isinstance(what, int)} == {20}


@pytest.mark.parametrize("side", [BASE, CANDIDATE])
@pytest.mark.parametrize("at, kind", [("open", "wrong"), (5, "died")])
def test_a_side_that_fails_is_named(side, at, kind):
    name = "base" if side == BASE else "candidate"
    found, _ = measured(**{name: {"fails_at": at}})

    assert (found.outcome, found.side, found.kind) == ("failed", side, kind)
    assert found.log_ratios == {}


def test_a_wrong_result_after_the_clock_is_a_failure():
    found, _ = measured(candidate={"reply": {"kind": "wrong", "text": "wrong result, not recorded"}})

    assert (found.outcome, found.side, found.reason) == ("failed", CANDIDATE, "wrong result, not recorded")


def test_a_side_with_a_disturbed_canary_disturbs_the_pair():
    record = {**QUIET, "disturbed": True, "canary_slowdown_after": 1.4}
    found, _ = measured(base={"reply": {"kind": "record", "record": record, "use": None}})

    assert found.outcome == "disturbed"
    assert found.reason == "a canary (level2) was 1.4 times slower than known"


def test_an_invalid_time_of_a_side_disturbs_the_pair():
    found, _ = measured(candidate={"reply": {"kind": "invalid", "text": "it swapped", "record": None}})

    assert (found.outcome, found.reason) == ("disturbed", "candidate: it swapped")


@pytest.mark.parametrize("own_s, outcome", [(4.0, "counted"), (2.0, "disturbed")])
def test_the_time_of_the_other_side_is_no_disturbance(own_s, outcome):
    """Of 10 s the core was busy for 8.5: each side's own time, and what is left is somebody else's."""
    reply = {"kind": "record", "record": dict(QUIET), "use": list(Use(busy_s=8.5, own_s=own_s, passed_s=10.0))}
    found, _ = measured(base={"reply": reply}, candidate={"reply": reply})

    assert found.outcome == outcome
    assert found.reason in ("", "others took 45 % of the cores")


def test_a_pair_says_how_long_it_took_and_keeps_both_records():
    found, _ = measured()

    assert found.seconds >= 0
    assert found.started_s > 1e9
    assert set(found.records) == {BASE, CANDIDATE}
    assert len(found.units) == pairing.FEWEST_UNITS

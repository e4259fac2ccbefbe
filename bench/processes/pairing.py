"""Times one case on both sides of a pair, one side at a time and in random order, while the other side is stopped."""

from __future__ import annotations

import contextlib
import math
import time
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple, TypeVar

from bench.cases.case import Case, Settings
from bench.clock import neighbours
from bench.processes.pool import Reply
from bench.processes.side import Failed, Side
from bench.results import coins, pair
from bench.results.pair import BASE, CANDIDATE, COUNTED, DISTURBED, FAILED, LETTERS, SIDES, Pair, Unit

T = TypeVar("T")

# A block is as long as this or has LEAST_SAMPLES, whichever is longer.
BLOCK_S = 0.02
LEAST_SAMPLES = 3
# Of the units of a pair. Between them, a pair has as many as fit into its time.
FEWEST_UNITS, MOST_UNITS = 3, 12


@dataclass(frozen=True)
class Plan:
    """How a pair of a case is timed.

    seed      of the coins
    time_s    what both sides together are timed for, roughly
    canary_s  of each side, seconds of each kind of canary when the machine is quiet; missing: not known
    """

    seed: int
    time_s: float
    canary_s: Mapping[str, Optional[Mapping[str, float]]] = field(default_factory=dict)


def measure(
    case: Case,
    index: int,
    attempt: int,
    sides: Mapping[str, Side],
    settings: Mapping[str, Settings],
    plan: Plan,
    tell: Callable[[str], None],
) -> Pair:
    """Time a case on both sides. What fails on a side is an outcome. Raises HostLost.

    sides, settings   by name: base and candidate
    """
    turns = _Turns(case, index, attempt, sides, settings, plan, tell)
    started_s, start = time.time(), time.monotonic()

    def outcome(name: str, **fields: Any) -> Pair:
        return Pair(case.id, index, attempt, name, started_s=started_s, seconds=time.monotonic() - start, **fields)

    try:
        units, replies = turns.measure()
    except Failed as failed:
        kind, side = failed.reply["kind"], turns.side
        if kind == "invalid":
            return outcome(DISTURBED, reason=f"{side}: {failed}")
        return outcome(FAILED, side=side, kind=kind, reason=str(failed))
    records = {name: replies[name]["record"] for name in SIDES}
    reason = _disturbance(replies)
    return outcome(
        DISTURBED if reason else COUNTED,
        reason=reason,
        log_ratios=pair.log_ratios(units, records),
        units=[vars(each) for each in units],
        records=records,
    )


@dataclass
class _Turns:
    """The turns of both sides. `side` is the one whose turn it is, or was when it failed."""

    case: Case
    index: int
    attempt: int
    sides: Mapping[str, Side]
    settings: Mapping[str, Settings]
    plan: Plan
    tell: Callable[[str], None]
    side: str = ""

    def measure(self) -> Tuple[List[Unit], Dict[str, Reply]]:
        """The units, and the reply of each side. Raises Failed, and HostLost."""
        first = coins.roles(self.plan.seed, self.index, self.attempt).candidate_first
        started = (CANDIDATE, BASE) if first else (BASE, CANDIDATE)
        with contextlib.ExitStack() as stopped:
            samples_s = [self._open(name, stopped) for name in started]
            self.tell("timing")
            samples, count = _sizes(samples_s, self.plan.time_s)
            orders = coins.units(self.plan.seed, self.index, self.case.id, count, self.attempt)
            units = [self._unit(order, samples) for order in orders]
            return units, {name: self._end(name) for name in started}

    def _open(self, name: str, stopped: contextlib.ExitStack) -> float:
        """Compile and warm up a side. Then it is stopped, but for its turns, until `stopped` ends."""
        self.side = name
        sample_s = self.sides[name].open(self.case, self.settings[name], self.plan.canary_s.get(name), self.tell)
        stopped.callback(self.sides[name].pause, False)
        self.sides[name].pause(True)
        return sample_s

    def _unit(self, order: str, samples: int) -> Unit:
        return pair.unit(order, [self._turn(LETTERS[letter], lambda side: side.block(samples)) for letter in order])

    def _end(self, name: str) -> Reply:
        """The reply of a side, which is checked and ends. Raises Failed if it is no record."""
        reply = self._turn(name, lambda side: side.end())
        if reply["kind"] != "record":
            raise Failed(reply)
        return reply

    def _turn(self, name: str, act: Callable[[Side], T]) -> T:
        """Let a side go on for its turn. The other is stopped: thread pools spin for a while after their last work."""
        self.side = name
        self.sides[name].pause(False)
        result = act(self.sides[name])
        self.sides[name].pause(True)
        return result


def _sizes(samples_s: List[float], time_s: float) -> Tuple[int, int]:
    """The samples of a block, the same on both sides, and the number of units."""
    samples = max(LEAST_SAMPLES, math.ceil(BLOCK_S / max(min(samples_s), 1e-9)))
    unit_s = 2 * samples * sum(samples_s)
    return samples, max(FEWEST_UNITS, min(MOST_UNITS, round(time_s / unit_s)))


def _disturbance(replies: Mapping[str, Mapping[str, Any]]) -> str:
    """What disturbed the machine while both sides were timed; empty: nothing that was seen."""
    uses = {name: reply["use"] and neighbours.Use(*reply["use"]) for name, reply in replies.items()}
    for name, other in ((BASE, CANDIDATE), (CANDIDATE, BASE)):
        share = neighbours.others_percent(uses[name], uses[other].own_s) if uses[other] else None
        if (share or 0) > neighbours.MOST_PERCENT:
            return f"others took {share:.0f} % of the cores"
    for name in SIDES:
        record = replies[name]["record"]
        if record["disturbed"]:
            slower = max(record["canary_slowdown_before"] or 0, record["canary_slowdown_after"] or 0)
            return f"a canary ({record['canary_kind']}) was {slower:.2g} times slower than known"
    return ""

"""Times one case on both sides of a pair, one side at a time and in random order, while the other side is stopped."""

from __future__ import annotations

import contextlib
import math
import time
from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Tuple

from bench.cases.case import Case, Settings
from bench.clock import neighbours
from bench.processes.side import Failed, Side
from bench.results import coins, pair
from bench.results.pair import BASE, CANDIDATE, COUNTED, DISTURBED, FAILED, LETTERS, SIDES, Pair

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
    canary_s  seconds of each kind of canary on this machine when it is quiet; None: not known
    stopping  the side that waits is stopped
    """

    seed: int
    time_s: float
    canary_s: Optional[Mapping[str, float]] = None
    stopping: bool = True


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
    started_s, start = time.time(), time.monotonic()

    def outcome(name: str, **fields: Any) -> Pair:
        return Pair(case.id, index, attempt, name, started_s=started_s, seconds=time.monotonic() - start, **fields)

    roles = coins.roles(plan.seed, index, attempt)
    open_first = (CANDIDATE, BASE) if roles.candidate_first else (BASE, CANDIDATE)
    replies: Dict[str, Dict[str, Any]] = {}
    with contextlib.ExitStack() as stack:
        name = ""
        try:
            steps_s = []
            for name in open_first:
                steps_s.append(sides[name].open(case, settings[name], plan.canary_s, lambda phase: tell(phase)))
                stack.enter_context(_stopped(sides[name], plan.stopping))
            tell("timing")
            units = []
            samples, count = _sizes(steps_s, plan.time_s)
            for order in coins.units(plan.seed, index, case.id, count, attempt):
                blocks = []
                for name in (LETTERS[letter] for letter in order):
                    with _going(sides[name], plan.stopping):
                        blocks.append(sides[name].block(samples))
                units.append(pair.unit(order, blocks))
            for name in open_first:
                with _going(sides[name], plan.stopping):
                    replies[name] = sides[name].end()
                if replies[name]["kind"] == "invalid":
                    return outcome(DISTURBED, reason=f"{name}: {replies[name]['text']}")
                if replies[name]["kind"] != "record":
                    raise Failed(replies[name])
        except Failed as failed:
            return outcome(FAILED, side=name, kind=failed.reply["kind"], reason=str(failed))
    records = {name: replies[name]["record"] for name in SIDES}
    reason = _disturbance(replies)
    return outcome(
        DISTURBED if reason else COUNTED,
        reason=reason,
        log_ratios=pair.log_ratios(units, records),
        units=[vars(each) for each in units],
        records=records,
    )


def _sizes(steps_s: List[float], time_s: float) -> Tuple[int, int]:
    """The samples of a block, the same on both sides, and the number of units."""
    samples = max(LEAST_SAMPLES, math.ceil(BLOCK_S / max(min(steps_s), 1e-9)))
    unit_s = 2 * samples * sum(steps_s)
    return samples, max(FEWEST_UNITS, min(MOST_UNITS, round(time_s / unit_s)))


@contextlib.contextmanager
def _stopped(side: Side, stopping: bool) -> Iterator[None]:
    """Stop a side while it waits: thread pools go on spinning for a while after their last work."""
    if stopping:
        side.pause(True)
    try:
        yield
    finally:
        if stopping:
            side.pause(False)


@contextlib.contextmanager
def _going(side: Side, stopping: bool) -> Iterator[None]:
    """Let a stopped side go on for its turn."""
    if stopping:
        side.pause(False)
    yield
    if stopping:
        side.pause(True)


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

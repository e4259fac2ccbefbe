"""Pairs of several cases, one after another, until each case has its verdict.

Each backend has two fresh workers a pair, one a side, which its cases share. Between pairs no worker is alive.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

from bench.cases.case import Case, Settings
from bench.processes import pairing
from bench.processes.host import HostLost
from bench.processes.hosts import Hosts
from bench.processes.side import Side
from bench.results import coins
from bench.results.comparison import Comparisons
from bench.results.pair import CANDIDATE, FAILED, SIDES, Pair

Tell = Callable[[str], None]
# A text of random length, which moves the stack of a worker.
PADDING = "LAYERBENCH_PADDING"
# Before a pair that was disturbed is measured again: a neighbour may go away.
PAUSES_S = (1.0, 5.0, 20.0)


@dataclass(frozen=True)
class Rounds:
    """What is compared, and where.

    cases      by id
    settings   of each case on each side, by id and side
    hosts      of each side
    variables  of the environment of each side
    canaries   seconds of each kind of canary on the quiet machine, by side and case id
    time_s     what both sides of a pair are timed for, roughly
    timeout_s, pinned   see Side
    """

    cases: Mapping[str, Case]
    settings: Mapping[str, Mapping[str, Settings]]
    hosts: Mapping[str, Hosts]
    canaries: Mapping[str, Mapping[str, Optional[Mapping[str, float]]]]
    time_s: float
    timeout_s: float
    pinned: Optional[Sequence[int]] = None
    variables: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def run(
        self,
        comparisons: Comparisons,
        seed: int,
        note: Callable[[Pair], None],
        tell: Tell,
        stop: Callable[[], str] = lambda: "",
    ) -> None:
        """Measure pairs until no case needs another.

        seed   of the coins
        note   stores a pair
        stop   why to stop before the next pair; empty: go on
        """
        while True:
            wanting = comparisons.wanting()
            if not wanting or comparisons.stopped:
                return
            index = len(comparisons.counted(wanting[0]))
            attempt = max(comparisons.attempt(name, index) for name in wanting)
            if attempt:
                tell("waiting for a quiet machine")
                time.sleep(PAUSES_S[min(attempt, len(PAUSES_S)) - 1])
            for device, names in self._by_backend(coins.order(seed, index, wanting)):
                comparisons.stopped = stop()
                if comparisons.stopped:
                    return
                before = {name: len(comparisons.pairs[name]) for name in names}
                try:
                    self._of_backend(comparisons, seed, index, device, names, note, tell)
                except HostLost as error:
                    left = [name for name in names if len(comparisons.pairs[name]) == before[name]]
                    for pair in self._lost(comparisons, index, left, error):
                        note(pair)
                        comparisons.add(pair)

    def _by_backend(self, ordered: Sequence[str]) -> List[Tuple[str, List[str]]]:
        """Devices and cases, a group for each backend."""
        found: Dict[Tuple[str, str], List[str]] = {}
        for name in ordered:
            found.setdefault((self.cases[name].backend, self.cases[name].device), []).append(name)
        return [(device, names) for (_, device), names in found.items()]

    def _of_backend(
        self,
        comparisons: Comparisons,
        seed: int,
        index: int,
        device: str,
        names: Sequence[str],
        note: Callable[[Pair], None],
        tell: Tell,
    ) -> None:
        """Measure one pair of each of some cases of a backend, in fresh workers."""
        paddings = coins.roles(seed, index, comparisons.attempt(names[0], index)).padding
        tell("waiting")
        with self.hosts[CANDIDATE].now().timing(device):
            sides = {
                side: Side(
                    self.hosts[side],
                    {PADDING: "x" * padding, **self.variables.get(side, {})},
                    self.timeout_s,
                    self.pinned,
                )
                for side, padding in zip(SIDES, paddings)
            }
            try:
                for name in names:
                    pair = self._pair(comparisons, seed, index, name, sides, tell)
                    if pair.outcome == FAILED:
                        self._end(sides)
                    note(pair)
                    comparisons.add(pair)
            finally:
                self._end(sides)

    def _pair(
        self, comparisons: Comparisons, seed: int, index: int, name: str, sides: Mapping[str, Side], tell: Tell
    ) -> Pair:
        attempt = comparisons.attempt(name, index)
        plan = pairing.Plan(seed, self.time_s, {side: self.canaries[side][name] for side in SIDES})
        head = f"pair {index + 1} of at most {comparisons.last}, {name}"
        say = _prefixed(tell, head, left_s(comparisons))
        try:
            return pairing.measure(self.cases[name], index, attempt, sides, self.settings[name], plan, say)
        except HostLost as error:
            return self._lost(comparisons, index, [name], error)[0]

    def _lost(self, comparisons: Comparisons, index: int, names: Sequence[str], error: HostLost) -> List[Pair]:
        """What became of cases whose host was lost. The next pair connects to it again."""
        for hosts in self.hosts.values():
            hosts.lose()
        return [
            Pair(name, index, comparisons.attempt(name, index), FAILED, reason=str(error), kind="lost")
            for name in names
        ]

    def _end(self, sides: Mapping[str, Side]) -> None:
        for side in sides.values():
            side.end_workers()


def seconds(comparisons: Comparisons) -> Dict[str, float]:
    """The seconds of a pair of each case that has one, the longest."""
    return {name: max(pair.seconds for pair in pairs) for name, pairs in comparisons.pairs.items() if pairs}


def left_s(comparisons: Comparisons) -> Optional[float]:
    """The seconds that are left at most; None before each case has a pair."""
    known = seconds(comparisons)
    if len(known) < len(comparisons.pairs):
        return None
    return sum((comparisons.last - len(comparisons.counted(name))) * known[name] for name in known)


def duration(seconds: float) -> str:
    """A duration to read: 45 s, 12 min."""
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


def _prefixed(tell: Tell, head: str, rest_s: Optional[float]) -> Callable[[str], Any]:
    left = "" if rest_s is None else f"; at most {duration(rest_s)} left"
    return lambda phase: tell(f"{head}: {phase}{left}")

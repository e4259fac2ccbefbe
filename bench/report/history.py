"""The history of cases over many runs: series of rates, their steps, and the cases that came, went or were renamed.

A series is one case, with one graph and one set of settings, on one class of machine. Another version of a framework,
of a library or of the kernel does not end it.
"""

from __future__ import annotations

import datetime
import functools
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Mapping, Sequence, Tuple

import numpy as np

from bench.report import index
from bench.report.entries import DISTURBED, INVALID, UNSTEADY, Entry
from bench.results import change_points, fingerprints
from bench.results.change_points import ChangePoint
from bench.results.verdict import percent

# What names a case. Two series that differ only in these are one case that was renamed, if one ends before the other.
NAMES = ("id", "workload", "size")
Facts = Dict[str, Any]


@dataclass(frozen=True)
class Step:
    """A step of a series. Positions are those of its points.

    point    the change point, by indices in `Series.counted`
    before   the last run that certainly has the old level, and `after` the first that certainly has the new one
    changed  what differs between these two runs: commits, versions, machine, settings
    """

    point: ChangePoint
    before: int
    after: int
    changed: Sequence[str]

    @property
    def change_percent(self) -> float:
        return percent(self.point.size)

    @property
    def size(self) -> str:
        """The change with its interval, such as -5.1 % (-6 to -4.2)."""
        low, high = percent(self.point.low), percent(self.point.high)
        return f"{self.change_percent:+.1f} % ({low:+.1f} to {high:+.1f})"


@dataclass
class Series:
    """The points of one case, in the order of time.

    key      what separates it from others: see `entries.SERIES`; of the latest name, if it was renamed
    names    the ids that it has had, each with the position of the first point that has it
    points   of the type `entries.POINT`
    runs     the index in `History.runs` of each point's run
    history  that it belongs to
    """

    key: Facts
    names: List[Tuple[str, int]]
    points: Any
    runs: Any
    history: History = field(repr=False)

    @property
    def id(self) -> str:
        return str(self.key["id"])

    def facts(self, position: int) -> Facts:
        """What can change within the series, at one of its points."""
        return self.history.facts(int(self.points["facts"][position]))

    def run(self, position: int) -> Entry:
        return self.history.runs[int(self.runs[position])]

    @functools.cached_property
    def counted(self) -> Any:
        """The positions of the points that a search for steps uses.

        Disturbed and unsteady points do not count, unless they are more than half of the points.
        """
        known = np.isfinite(self.points["rate"]) & (self.points["state"] & INVALID == 0)
        sound = known & (self.points["state"] & (DISTURBED | UNSTEADY) == 0)
        return np.flatnonzero(sound if 2 * sound.sum() >= known.sum() else known)

    @functools.cached_property
    def steps(self) -> List[Step]:
        """The change points, in the order of time."""
        logarithms = np.log(self.points["rate"][self.counted])
        return [self._step(point) for point in change_points.change_points(logarithms)]

    @functools.cached_property
    def levels(self) -> List[Tuple[int, int, float]]:
        """The first and the last position of each level, and its median rate."""
        edges = [0, *(step.point.index for step in self.steps), len(self.counted)]
        return [
            (int(self.counted[start]), int(self.counted[end - 1]), self._median(start, end))
            for start, end in zip(edges, edges[1:])
            if end > start
        ]

    def _median(self, start: int, end: int) -> float:
        return float(np.median(self.points["rate"][self.counted[start:end]]))

    def _step(self, point: ChangePoint) -> Step:
        before, after = int(self.counted[point.earliest - 1]), int(self.counted[point.latest])
        return Step(point, before, after, self.changes(before, after))

    def changes(self, before: int, after: int) -> List[str]:
        """What differs between the runs of two points: a text each."""
        found = []
        old, new = self.run(before), self.run(after)
        if old.commit != new.commit:
            found.append(f"commit {short(old)} -> {short(new)}")
        elif new.dirty or old.dirty:
            found.append(f"uncommitted changes at {short(new)}")
        return found + [str(difference) for difference in self._differences(before, after)]

    @functools.cached_property
    def ticks(self) -> List[Tuple[int, str]]:
        """The positions where the software of the run before is another, and what changed."""
        changed: Any = np.flatnonzero(np.diff(self.points["facts"])) + 1
        found = []
        for position in map(int, changed):
            software = [each for each in self._differences(position - 1, position) if each.software]
            if software:
                found.append((position, ", ".join(map(str, software))))
        return found

    def _differences(self, before: int, after: int) -> List[fingerprints.Difference]:
        old, new = (self._record(position) for position in (before, after))
        found = fingerprints.differences(new, old)
        if old["host"] != new["host"]:
            found.append(fingerprints.Difference("host", old["host"], new["host"]))
        return found

    def _record(self, position: int) -> Facts:
        """As much of a point's record as there is."""
        facts = self.facts(position)
        machine = {"cpu": self.key["machine_cpu"], "cores": self.key["machine_cores"], **facts["machine"]}
        return {**self.key, **facts, "machine": machine}


@dataclass
class History:
    """Series of the runs of some files and folders.

    runs      the files with results, oldest first
    series    those with steps first, the latest step first
    accepted  each time that somebody accepted results as a baseline: who, when, why, cases
    faults    the files that cannot be used, and why: a line each
    notes     what a person should know besides
    """

    runs: List[Entry]
    series: List[Series]
    accepted: List[Mapping[str, Any]]
    faults: List[str]
    notes: List[str]
    texts: List[str] = field(repr=False, default_factory=list)
    _facts: Dict[int, Facts] = field(repr=False, default_factory=dict)

    def facts(self, number: int) -> Facts:
        if number not in self._facts:
            self._facts[number] = json.loads(self.texts[number])
        return self._facts[number]

    @property
    def came(self) -> List[Series]:
        """Cases that the first run did not measure."""
        return [series for series in self.series if series.runs[0] > 0]

    @property
    def went(self) -> List[Series]:
        """Cases that the last run did not measure."""
        return [series for series in self.series if series.runs[-1] < len(self.runs) - 1]

    @property
    def renamed(self) -> List[Series]:
        return [series for series in self.series if len(series.names) > 1]


def short(run: Entry) -> str:
    """A commit for a person, with a + if there were uncommitted changes."""
    return f"{run.commit[:7] or 'no commit'}{'+' if run.dirty else ''}"


def date(time_s: float) -> str:
    """A time for a person, in UTC: 2026-11-29 08:20."""
    if not time_s:
        return "date not known"
    return datetime.datetime.fromtimestamp(time_s, datetime.timezone.utc).strftime("%Y-%m-%d %H:%M")


def read(paths: Sequence[Path]) -> History:
    """The history of files and folders. Raises ValueError, in one line, for a path that cannot be read."""
    for path in paths:
        if not path.exists():
            raise ValueError(f"{path}: No such file or directory")
    found = index.collect(paths)
    return of_collection(found)


def of_collection(found: index.Collection) -> History:
    """The history of what was collected."""
    with_points = set(np.unique(found.files).tolist())
    order = sorted(with_points, key=lambda file: (found.entries[file].time_s, found.entries[file].file))
    place: Any = np.zeros(len(found.entries), np.int64)
    place[order] = np.arange(len(order))
    history = History(
        [found.entries[file] for file in order],
        [],
        sorted((each for entry in found.entries for each in entry.accepted), key=lambda each: float(each["time_s"])),
        [entry.fault for entry in found.entries if entry.fault],
        found.notes,
        found.texts,
    )
    single = _series(history, found.points, place[found.files])
    history.series = sorted(_joined(single), key=_rank)
    return history


def _series(history: History, points: Any, runs: Any) -> List[Series]:
    """The points by series and time. A point of two files, such as an autosave and --benchmark-json, counts once."""
    order = np.lexsort((runs, points["time_s"], points["series"]))
    points, runs = points[order], runs[order]
    before, after = points[:-1], points[1:]
    same = (before["series"] == after["series"]) & (before["time_s"] == after["time_s"]) & (after["time_s"] > 0)
    kept = np.concatenate([[True], ~(same & (before["rate"] == after["rate"]))]) if len(points) else slice(0)
    points, runs = points[kept], runs[kept]
    starts = np.flatnonzero(np.diff(points["series"], prepend=-1))
    ends = [*starts[1:], len(points)]
    found = []
    for start, end in zip(starts, ends):
        key = json.loads(history.texts[int(points["series"][start])])
        found.append(Series(key, [(str(key["id"]), 0)], points[start:end], runs[start:end], history))
    return found


def _joined(single: Sequence[Series]) -> List[Series]:
    """Two series that differ in names only are one case that was renamed, if one ends before the other begins."""
    chains: Dict[str, List[Series]] = {}
    for series in sorted(single, key=lambda series: int(series.runs[0])):
        same = json.dumps({name: value for name, value in series.key.items() if name not in NAMES}, sort_keys=True)
        earlier = chains.setdefault(same, [])
        ended = [other for other in earlier if other.runs[-1] < series.runs[0] and other.id != series.id]
        # Of several that ended, none is known to be this one.
        if series.key["graph"] and len(ended) == 1:
            earlier.remove(ended[0])
            series = _chained(ended[0], series)
        earlier.append(series)
    return [series for chain in chains.values() for series in chain]


def _chained(old: Series, new: Series) -> Series:
    names = [*old.names, (new.id, len(old.points))]
    points, runs = np.concatenate([old.points, new.points]), np.concatenate([old.runs, new.runs])
    return Series(new.key, names, points, runs, new.history)


def _rank(series: Series) -> Tuple[float, float, str]:
    """The latest step first; of steps in one run, the largest; cases without steps last, by id."""
    if not series.steps:
        return math.inf, 0.0, series.id
    last = series.steps[-1]
    return -float(series.runs[last.after]), -abs(last.point.size), series.id

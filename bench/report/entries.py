"""What a history needs of one file: its date and commit, and the rate, the noise and the facts of each case."""

from __future__ import annotations

import datetime
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Sequence, Tuple

import numpy as np

from bench.cases.case import AXES, RECORDED
from bench.report import reading
from bench.report.reading import Run, number
from bench.results.fingerprints import SOFTWARE
from bench.results.record import Record

# What is kept of a case in one run. `series` and `facts` are numbers of texts; rates are in items per second: that of
# the median step, and those of the third and the first quartile of the steps. They are NaN if they are not known.
POINT = np.dtype(
    [
        ("series", "<i4"),
        ("facts", "<i4"),
        ("time_s", "<f8"),
        ("rate", "<f8"),
        ("low", "<f8"),
        ("high", "<f8"),
        ("noise", "<f4"),
        ("state", "<u1"),
    ]
)
# Later times are damage: this is the year 5138.
LATEST_S = 1e11
# Bits of a point's state.
DISTURBED, UNSTEADY, INVALID = 1, 2, 4
# What separates two series: the case, what is computed, how, and on which class of machine.
SERIES = ("id", *AXES, "item", "graph", "settings", "environment", "device_model", "device_cores")
OF_MACHINE = ("cpu", "cores")
# What can change within a series. Settings are here by name, and in a series by their fingerprint.
FACTS = (*SOFTWARE, "revision", "host", "interpreter", *RECORDED)
Row = Tuple[str, str, float, float, float, float, float, int]


@dataclass(frozen=True)
class Entry:
    """What a history needs of one file.

    file      the path
    time_s    the start of its first case, since 1970; 0: not known
    commit    of the folder in which the benchmarks ran; empty: it was not in git
    points    series, facts, time_s, rate, low, high, noise and state of each case: see POINT
    accepted  a stored baseline: who, when, why and the cases of each time that somebody accepted
    fault     why the file cannot be used, in one line; empty: it can
    """

    file: str
    time_s: float = 0.0
    commit: str = ""
    dirty: bool = False
    branch: str = ""
    points: Sequence[Row] = ()
    accepted: Sequence[Mapping[str, Any]] = ()
    fault: str = ""

    @property
    def head(self) -> str:
        """What is not a point, as JSON."""
        names = ("time_s", "commit", "dirty", "branch", "accepted", "fault")
        return json.dumps({name: getattr(self, name) for name in names})


def entry(path: Path) -> Entry:
    """Read a file. A file that cannot be used is an entry with a fault."""
    try:
        content = reading.content(path)
    except ValueError as error:
        return Entry(str(path), fault=str(error))
    if is_baseline(content):
        return Entry(str(path), accepted=[_accepted(each) for each in content["accepted"] if isinstance(each, dict)])
    return of_run(str(path), reading.from_json(path.name, content), _quartiles(content["benchmarks"]))


def is_baseline(content: Mapping[str, Any]) -> bool:
    """Whether a file is a stored baseline, and not a run."""
    return isinstance(content.get("accepted"), list)


def of_run(file: str, run: Run, quartiles: Mapping[str, Tuple[float, float]]) -> Entry:
    """The entry of a run.

    quartiles   first and third quartile of the seconds of a step, by the id of a case
    """
    finished_s = _seconds(run.date)
    records = [(result.record, 0) for result in run.results if result.record.get("source", "measured") == "measured"]
    records += [(record, INVALID) for record in run.invalid]
    points = [_point(record, state, finished_s, quartiles.get(record["id"])) for record, state in records]
    starts = [point[2] for point in points if point[2]]
    return Entry(
        file,
        min(starts) if starts else finished_s,
        reading.text(run.commit, "id").replace("unknown", ""),
        run.commit.get("dirty") is True,
        reading.text(run.commit, "branch"),
        points,
    )


def _point(record: Record, state: int, finished_s: float, quartiles: Optional[Tuple[float, float]]) -> Row:
    rate = _or_nan(record, "items_per_s")
    if not rate > 0:
        rate, state = math.nan, state | INVALID
    state |= (DISTURBED if record.get("disturbed") is True else 0) | (UNSTEADY if record.get("steady") is False else 0)
    median_s = _or_nan(record, "step_median_s")
    low, high = (rate * median_s / quartile for quartile in reversed(quartiles or (math.nan, math.nan)))
    series, facts = _texts(record)
    started_s = number(record, "started_s") or 0.0
    if not 0 < started_s < LATEST_S:
        started_s = finished_s
    return series, facts, started_s, rate, low, high, _or_nan(record, "noise_percent"), state


def _texts(record: Record) -> Tuple[str, str]:
    """The JSON of what separates the series of a record, and of what can change within it."""
    known = record.get("machine")
    machine = known if isinstance(known, dict) else {}
    series = {name: record.get(name) for name in SERIES}
    series.update({f"machine_{name}": machine.get(name) for name in OF_MACHINE})
    facts = {name: record.get(name) for name in FACTS}
    facts["machine"] = {name: value for name, value in machine.items() if name not in OF_MACHINE}
    return json.dumps(series, sort_keys=True), json.dumps(facts, sort_keys=True)


def _or_nan(record: Record, name: str) -> float:
    value = number(record, name)
    return math.nan if value is None else value


def _quartiles(benchmarks: Sequence[Any]) -> Dict[str, Tuple[float, float]]:
    """First and third quartile of the seconds of a step, by the id of a case."""
    found = {}
    for each in benchmarks:
        info, stats = (each.get(name) if isinstance(each, dict) else None for name in ("extra_info", "stats"))
        if isinstance(info, dict) and isinstance(stats, dict) and isinstance(info.get("id"), str):
            first, third = number(stats, "q1"), number(stats, "q3")
            if first and third and 0 < first <= third:
                found[info["id"]] = (first, third)
    return found


def _accepted(given: Mapping[str, Any]) -> Dict[str, Any]:
    cases = given.get("cases")
    texts: Dict[str, Any] = {name: reading.text(given, name) for name in ("who", "when", "why")}
    texts["time_s"] = _seconds(texts["when"])
    return {**texts, "cases": [str(case) for case in cases] if isinstance(cases, list) else []}


def _seconds(date: str) -> float:
    """A date of pytest-benchmark in seconds since 1970; 0 if it is none."""
    try:
        known = datetime.datetime.fromisoformat(date.replace("Z", "+00:00"))
        if known.tzinfo is None:
            known = known.replace(tzinfo=datetime.timezone.utc)
        return known.timestamp() if 0 < known.timestamp() < LATEST_S else 0.0
    except (ValueError, OverflowError):
        return 0.0

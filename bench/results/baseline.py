"""Baselines: the processes of each case that somebody accepted, and the verdict of a run's processes against them.

A baseline is valid for its own machine, software, settings and graph. If one of them differs, the verdict is "changed",
whatever the rate, and the line names what differs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import math
import re
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, Mapping, Optional, Sequence, Tuple, Union

from bench import cache, locks
from bench.results import fingerprints
from bench.results.fields import FIELDS, SCHEMA
from bench.results.fingerprints import Difference
from bench.results.record import Record, is_valid, upgraded
from bench.results.stored import OCCASION_GAP_S, judge_stored, lack, occasions
from bench.results.verdict import CHANGED, NEW, Verdict

Process = Dict[str, Any]

NEEDED = tuple(name for name, field in FIELDS.items() if field.needed)
# What a record keeps of each process.
OF_PROCESS = ("started_s", "items_per_s", "noise_percent", "disturbed", "steady")
# The latest processes of a case count: so many in all, and of one occasion.
KEPT, KEPT_OF_OCCASION = 40, 10
UNIT = "fresh processes"


@dataclass(frozen=True)
class Match:
    """The stored processes of a case that a run's are compared with.

    record       one of the records that have them
    processes    the processes, the latest last
    differences  of the run from the record
    comparable   whether there are none but those that the user accepts
    """

    record: Record
    processes: List[Process]
    differences: List[Difference]
    comparable: bool

    @property
    def items_per_s(self) -> float:
        """The median of the processes' rates."""
        return float(statistics.median(process["items_per_s"] for process in self.processes))

    @property
    def lack(self) -> str:
        """What the stored processes lack for a verdict; empty: nothing."""
        return lack([process["started_s"] for process in self.processes])


def process_of(record: Record) -> Process:
    """What is kept of the one process that a record comes from."""
    return {name: record.get(name) for name in OF_PROCESS}


def processes_of(record: Record) -> List[Process]:
    """The processes of a record. An older record is one process."""
    return list(record.get("processes") or [{**process_of(record), "started_s": record.get("started_s") or 0.0}])


def fault(process: Process) -> str:
    """Why a process decides nothing; empty: it counts."""
    if process.get("disturbed"):
        return "the machine was disturbed"
    return "it was not steady after the warm-up" if process.get("steady") is False else ""


def match(now: Record, stored: Sequence[Record], any_software: bool = False) -> Optional[Match]:
    """The stored processes to compare a record with: all with the same facts; else those of the record that differs
    least. None: none are stored. `any_software`: accept other software."""
    compared = [(fingerprints.differences(now, record), record) for record in stored]
    equal = [record for found, record in compared if not found]
    if equal:
        processes = latest([process for record in equal for process in processes_of(record)])
        return Match(equal[-1], processes, [], True)
    if not compared:
        return None
    found, record = min(compared, key=lambda each: (not all(one.software for one in each[0]), len(each[0])))
    return Match(record, processes_of(record), found, any_software and all(one.software for one in found))


def judge(now: Record, base: Optional[Match], budget_percent: float) -> Verdict:
    """The verdict of a record's processes against stored ones. Disturbed and unsteady processes do not count."""
    if base is None:
        return Verdict(NEW, 0, UNIT, budget_percent, 0.0, "it is not in the baseline")
    if now["source"] != "measured":
        return Verdict(CHANGED, 0, UNIT, budget_percent, 0.0, f"its source is {now['source']}")
    named = tuple(map(str, base.differences))
    if not base.comparable:
        change = math.log(now["items_per_s"] / base.items_per_s)
        software = all(difference.software for difference in base.differences)
        reason = f"not compared{' without --baseline-software any' if software else ''}"
        return Verdict(CHANGED, 0, UNIT, budget_percent, 0.0, reason, estimate=change, confounded=named)
    fresh = processes_of(now)
    faults = [text for text in map(fault, fresh) if text]
    verdict = judge_stored(
        [(process["started_s"], process["items_per_s"]) for process in base.processes],
        [process["items_per_s"] for process in fresh if not fault(process)],
        budget_percent,
    )
    reason = verdict.reason
    if faults and reason:
        reason += f", and {len(faults)} of this run's do not count: {faults[0]}"
    return dataclasses.replace(verdict, reason=reason, confounded=named)


def text(now: Record, verdict: Verdict) -> str:
    """One line: the case, its rate, its verdict, and how often the rule calls an unchanged case slower."""
    rate = f"{now['items_per_s']:,.6g} {now['item']}s/s; " if now["items_per_s"] else ""
    alarm = f"; false alarms {100 * verdict.false_alarm:.2g} %" if verdict.false_alarm else ""
    return f"{now['id']}: {rate}{verdict.line()}{alarm}"


def latest(processes: Iterable[Process]) -> List[Process]:
    """The processes that are kept of these, the latest last: some of each occasion, so that no occasion replaces all
    others."""
    kept: List[List[Process]] = []
    for process in sorted(processes, key=lambda process: float(process["started_s"])):
        if not kept or process["started_s"] - kept[-1][-1]["started_s"] >= OCCASION_GAP_S:
            kept.append([])
        kept[-1].append(process)
    return [process for occasion in kept for process in occasion[-KEPT_OF_OCCASION:]][-KEPT:]


def path_of(name: str, root: Path, machine: Mapping[str, Any]) -> Path:
    """The path of a baseline: an existing file or folder, else baselines/<machine class>/<name>.json."""
    with contextlib.suppress(OSError):
        if "/" in name or name.endswith(".json") or Path(name).exists():
            return Path(name)
    return root / "baselines" / machine_class(machine) / f"{name}.json"


def machine_class(machine: Mapping[str, Any]) -> str:
    """The folder name of a class of machines: processor and number of cores."""
    text = f"{machine['model']} {machine['cores']} cores".lower()
    return re.sub(r"[^a-z0-9]+", "-", text).strip("-")


@dataclass(frozen=True)
class Stored:
    """A baseline that was read.

    records   by id; a case has several records if their facts differ, the latest last
    skipped   what could not be used, and why: one line each
    """

    records: Dict[str, List[Record]]
    skipped: List[str]

    @property
    def counts(self) -> Dict[str, int]:
        """The number of processes of each case that has enough for a verdict."""
        matches = {name: match(records[-1], records) for name, records in self.records.items()}
        return {name: len(found.processes) for name, found in matches.items() if found is not None and not found.lack}


def load(path: Path) -> Stored:
    """Read a file, or every *.json in a folder. Processes of one case are together if all facts are equal.

    Raises ValueError, in one line, if there is nothing that can be used.
    """
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not files:
        raise ValueError(f"--baseline {path}: no *.json in this folder")
    together: Dict[str, List[Record]] = {}
    skipped: List[str] = []
    for file in files:
        for entry in _entries(file):
            if isinstance(entry, str):
                skipped.append(entry)
            else:
                together.setdefault(fingerprints.key(entry), []).append(entry)
    if not together:
        more = f" (and {len(skipped) - 1} more)" if len(skipped) > 1 else ""
        raise ValueError(f"--baseline {skipped[0]}{more}")
    records: Dict[str, List[Record]] = {}
    for alike in together.values():
        processes = latest([process for record in alike for process in processes_of(record)])
        records.setdefault(alike[-1]["id"], []).append({**alike[-1], "processes": processes})
    for several in records.values():
        several.sort(key=lambda record: float(record["processes"][-1]["started_s"]))
    return Stored(records, skipped)


def _entries(file: Path) -> Iterator[Union[Record, str]]:
    """The records in a file, with the processes that count; for one that cannot be used, its name and the reason."""
    try:
        benchmarks = _benchmarks(file, _parsed(file))
    except ValueError as error:
        yield str(error)
        return
    if not benchmarks:
        yield f"{file}: no case in it; --baseline-accept WHY stores those of a run"
    for number, entry in enumerate(benchmarks, 1):
        record = _record(entry)
        yield record if not isinstance(record, str) else f"{file}: entry {number}: {record}"


def _record(entry: Any) -> Union[Record, str]:
    """The record of an entry, with the processes that count; or why it cannot be used."""
    stored = entry.get("extra_info") if isinstance(entry, dict) else None
    record = upgraded(stored)
    if record is None:
        schema = stored.get("schema") if isinstance(stored, dict) else None
        return f"its record has schema {schema}, this suite writes {SCHEMA}"
    if record.get("source", "measured") != "measured":
        return f"{record.get('id')} was not measured: its source is {record['source']}"
    if not is_valid(record):
        return f"{record.get('id')} is INVALID: {'; '.join(record['invalid_reasons'])}"
    lacking = [key for key in NEEDED if key not in record]
    if lacking:
        return f"the record of {record.get('id')} lacks {', '.join(lacking)}"
    damage = _damage(record)
    if damage:
        return f"damaged: {damage} of {record['id']}"
    processes = processes_of(record)
    sound = [process for process in processes if not fault(process)]
    return {**record, "processes": sound} if sound else f"{record['id']}: {fault(processes[-1])}"


def _damage(record: Record) -> str:
    """What is damaged of a record; empty: nothing."""
    listed = record.get("processes")
    if listed is not None and not (isinstance(listed, list) and all(isinstance(process, dict) for process in listed)):
        return f"processes {listed!r}"
    rates = [("items_per_s", each.get("items_per_s")) for each in (record, *processes_of(record))]
    starts = [("started_s", each.get("started_s")) for each in processes_of(record)]
    for name, value in (*rates, *starts):
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < math.inf
        if not number or (name == "items_per_s" and value == 0):
            return f"{name} {value!r}"
    return ""


def require_own_machine(path: Path, records: Iterable[Record], devices: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise ValueError if all records of the devices of this machine come from other machines.

    devices   the facts of each device of this machine, by name
    """
    known = [record for record in records if record["device"] in devices]
    if not known:
        return
    for record in known:
        differing = fingerprints.of_machine(record, devices)
        if not differing:
            return
    raise ValueError(
        f"--baseline {path}: measured on another machine ({', '.join(map(str, differing))}); a baseline holds for its"
        f" own machine, store one with --baseline NAME --baseline-accept WHY"
    )


@dataclass(frozen=True)
class Accepted:
    """What became of a run's results.

    starts_s   of all processes that each stored case has now, by id
    replaced   why the earlier processes of a case are no longer stored, by id
    left_out   why the results of a case were not stored, by id
    """

    starts_s: Dict[str, List[float]]
    replaced: Dict[str, str]
    left_out: Dict[str, str]

    def lines(self) -> List[str]:
        """What each case has now and what it lacks: one line for all cases that have the same."""
        cases: Dict[str, List[str]] = {}
        for name, starts_s in self.starts_s.items():
            days = occasions(starts_s)
            has = f"{_count(len(starts_s), 'process', 'processes')} of {_count(days, 'occasion', 'occasions')}"
            more = lack(starts_s)
            has += f": {more}; more are stored by another run with --baseline-accept" if more else ": enough"
            cases.setdefault(has, []).append(name)
        texts = []
        for has, names in cases.items():
            which = _count(len(names), "case", "cases") if len(cases) == 1 else ", ".join(names)
            texts.append(f"{which}: {has}")
        texts += [f"replaced, {reason}: {name}" for name, reason in self.replaced.items()]
        return texts + [f"not stored: {reason}" for reason in self.left_out.values()]


def _count(number: int, one: str, several: str) -> str:
    return f"{number} {one if number == 1 else several}"


def accept(path: Path, records: Iterable[Record], who: str, why: str) -> Accepted:
    """Add the processes of records to those stored in a file, with who, when and why. What else is in the file stays.

    Earlier processes with other facts are replaced. If no process counts, the file stays as it is.
    Raises ValueError if two records are of the same case.
    """
    records = list(records)
    ids = [record["id"] for record in records]
    duplicates = sorted({id for id in ids if ids.count(id) > 1})
    if duplicates:
        raise ValueError(f"several tests measured {', '.join(duplicates)}; select one of them (-k)")
    read = {record["id"]: _record({"extra_info": record}) for record in records}
    left_out = {name: record for name, record in read.items() if isinstance(record, str)}
    new = {name: record for name, record in read.items() if not isinstance(record, str)}
    if not new:
        return Accepted({}, {}, left_out)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Another run may store in the same file.
    with locks.alone(f"baseline-{cache.fingerprint(str(path.resolve()))}"):
        content = _parsed(path) if path.exists() else {"accepted": [], "benchmarks": []}
        others, merged, replaced = _merged(_benchmarks(path, content), new)
        when = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        entry = {"who": who, "when": when, "why": why, "cases": sorted(new)}
        content = {
            "accepted": [*content.get("accepted", []), entry],
            "benchmarks": sorted([*others, *({"extra_info": record} for record in merged.values())], key=_name),
        }
        cache.write_whole(path, json.dumps(content, indent=1, sort_keys=True) + "\n")
    starts_s = {name: [each["started_s"] for each in record["processes"]] for name, record in merged.items()}
    return Accepted(starts_s, replaced, left_out)


def _merged(entries: Sequence[Any], new: Mapping[str, Record]) -> Tuple[List[Any], Dict[str, Record], Dict[str, str]]:
    """The entries of other cases, unchanged; the new records with the earlier processes of their cases; and, by id, why
    earlier ones are replaced."""
    others: List[Any] = []
    earlier = {name: [record] for name, record in new.items()}
    replaced: Dict[str, str] = {}
    for entry in entries:
        record = _record(entry)
        if isinstance(record, str) or record["id"] not in new:
            others.append(entry)
            continue
        found = fingerprints.differences(new[record["id"]], record)
        if found:
            replaced[record["id"]] = f"measured with {', '.join(map(str, found))}"
        else:
            earlier[record["id"]].append(record)
    merged = {
        name: {**new[name], "processes": latest([each for record in alike for each in record["processes"]])}
        for name, alike in earlier.items()
    }
    return others, merged, replaced


def _name(entry: Any) -> str:
    """The id in an entry; empty: it has none."""
    info = entry.get("extra_info") if isinstance(entry, dict) else None
    return str(info.get("id", "")) if isinstance(info, dict) else ""


def _benchmarks(path: Path, content: Any) -> List[Any]:
    benchmarks = content.get("benchmarks") if isinstance(content, dict) else None
    if not isinstance(benchmarks, list):
        raise ValueError(f"{path}: no list of benchmarks in it; give a file of --benchmark-json or --baseline-accept")
    return benchmarks


def _parsed(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise ValueError(f"{path}: No such file or directory; --baseline-accept WHY stores one") from None
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON, or cut off ({error})") from None

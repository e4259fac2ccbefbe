"""What was measured, where and when; how many cases are valid, and why the others are not."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any, Dict, List, Mapping, Sequence

from bench.report.content import Block, Cell, Column, Note, Section, Table
from bench.report.reading import LONGEST, Run, newest, newest_invalid, number, shortened, text
from bench.results.record import Record

POSITION = 10
# The reasons that are listed, the most frequent first.
REASONS = 12
NUMBER = re.compile(r"\d[\d.,]*")


def section(runs: Sequence[Run]) -> Section:
    """Present in every report: without a measured case it says so."""
    records, invalid = [result.record for result in newest(runs)], newest_invalid(runs)
    blocks: List[Block] = [_counted(records, invalid, runs), *_notes(records, runs)]
    facts = _facts(records or invalid, runs)
    rows = [[Cell(name), Cell(value)] for name, value in facts.items() if value]
    blocks.append(Table([Column("fact"), Column("value")], rows))
    reasons = _reasons(invalid, runs)
    if reasons.rows:
        blocks.append(reasons)
    if len(runs) > 1:
        blocks.append(_files(runs))
    return Section("What and where", blocks)


def _counted(records: Sequence[Record], invalid: Sequence[Record], runs: Sequence[Run]) -> Note:
    missing = [entry for entry in runs[-1].missing] if runs else []
    total = len(records) + len(invalid) + len(missing)
    if not total:
        return Note("No case was measured.", bad=True)
    outcomes = Counter(text(entry, "outcome") for entry in missing)
    others = {"INVALID": len(invalid), **outcomes}
    parts = [f"{count} {name}" for name, count in others.items() if count]
    rest = f"; {', '.join(parts)}" if parts else ""
    return Note(f"{len(records)} of {total} case{'s' if total > 1 else ''} valid{rest}.", bad=not records)


def _notes(records: Sequence[Record], runs: Sequence[Run]) -> List[Note]:
    notes = []
    disturbed = sum(record.get("disturbed") is True for record in records)
    if disturbed:
        notes.append(
            Note(
                f"The machine was disturbed during {disturbed} case{'s' if disturbed > 1 else ''}, marked with ! behind"
                " the noise: other processes used its cores, or a kernel of known time ran too slowly."
            )
        )
    machines = sorted({text(record, "device_model") for record in records} - {""})
    if len(machines) > 1:
        notes.append(Note(f"The cases ran on different machines: {', '.join(machines)}.", bad=True))
    sources = Counter(text(record, "source") for record in records if record.get("source") != "measured")
    notes += [Note(f"{count} cases are of {name}, a simulation, and have no rate.") for name, count in sources.items()]
    older = sum(len(run.results) for run in runs) - len(records)
    if older:
        notes.append(Note(f"{older} older results of the same cases are shown only in the history."))
    strange = sum(run.others for run in runs)
    if strange:
        notes.append(Note(f"{strange} results of other benchmarks in these files are left out."))
    return notes


def _facts(records: Sequence[Record], runs: Sequence[Run]) -> Dict[str, str]:
    """The facts of the machine and of the software, by name; several values are separated by commas."""
    run = runs[-1] if runs else Run("")
    machines = [record["machine"] for record in records if isinstance(record.get("machine"), dict)]
    versions = {text(record, "backend", 40): text(record, "framework_version", 40) for record in records}
    return {
        "machine": _values(machines, "cpu") or _values(records, "device_model") or _model(run),
        "device": _values([record for record in records if record.get("device") != "cpu"], "device_model"),
        "cores": _values(machines, "cores"),
        "memory": " ".join(part for part in (_values(machines, "memory_gib"), "GiB") if machines),
        "kernel": _values(machines, "kernel") or text(run.machine, "release"),
        "host": _values(records, "host") or text(run.machine, "node"),
        "frameworks": ", ".join(f"{name} {version}" for name, version in sorted(versions.items())),
        "Python": _values(records, "python_version") or text(run.machine, "python_version"),
        "threads": _values(records, "threads"),
        "commit": _commit(run),
        "date": run.when,
        "command": run.command,
    }


def _values(records: Sequence[Mapping[str, Any]], name: str) -> str:
    found = {text(record, name): number(record, name) for record in records}
    ordered = sorted(found, key=lambda value: (found[value] or 0.0, value))
    return shortened(", ".join(value for value in ordered if value))


def _model(run: Run) -> str:
    cpu = run.machine.get("cpu")
    return text(cpu, "brand_raw") if isinstance(cpu, dict) else ""


def _commit(run: Run) -> str:
    branch, dirty = text(run.commit, "branch", 60), " with changes" if run.commit.get("dirty") is True else ""
    commit = text(run.commit, "id", 60)[:12]
    return f"{commit}{f' ({branch})' if branch else ''}{dirty}" if commit and commit != "unknown" else ""


def _reasons(invalid: Sequence[Record], runs: Sequence[Run]) -> Table:
    """Why cases have no rate, with numbers left open, so that equal reasons are counted together."""
    reasons = [("INVALID", text({"": reason}, "")) for record in invalid for reason in record["invalid_reasons"] or ()]
    reasons += [(text(entry, "outcome"), text(entry, "reason")) for entry in (runs[-1].missing if runs else ())]
    counts = Counter((outcome, _open(reason)) for outcome, reason in reasons)
    rows = [
        [Cell(str(count)), Cell(outcome, bad=outcome != "skipped"), Cell(reason)]
        for (outcome, reason), count in counts.most_common(REASONS)
    ]
    return Table([Column("cases", number=True), Column("outcome"), Column("reason")], rows)


def _open(reason: str) -> str:
    """A reason without its id and numbers."""
    words = [word for word in reason.split() if word.count("-") < 6]
    return NUMBER.sub("…", " ".join(words))[:LONGEST]


def _files(runs: Sequence[Run]) -> Table:
    columns = [Column("file"), Column("date"), Column("commit"), Column("cases", number=True)]
    shown = list(runs)[-50:]
    rows = [
        [
            Cell(shortened(run.name, 80)),
            Cell(run.when),
            Cell(_commit(run)),
            Cell(str(len(run.results))),
        ]
        for run in shown
    ]
    return Table(columns, rows, brief=False)

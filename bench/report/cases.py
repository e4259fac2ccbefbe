"""Names of cases for a page: what all cases share is said once, and a label has the rest."""

from __future__ import annotations

from typing import Dict, List, Mapping, Sequence, Tuple

from bench.report.reading import Result, text
from bench.results.record import Record

# The axes of a group: the cases in one picture differ in the batch size and the framework alone.
GROUP = ("workload", "size", "mode", "precision", "replicas", "device")
# The axes of a comparison of frameworks.
COMPARED = ("workload", "size", "mode", "batch_size", "precision", "replicas", "device")


def axis(record: Mapping[str, object], name: str) -> str:
    """The value of an axis, as a label shows it."""
    if name == "batch_size":
        return f"batch {record[name]:g}"
    if name == "replicas":
        return f"{record[name]:g} replica{'' if record[name] == 1 else 's'}"
    return text(record, name, 60)


def shared(records: Sequence[Record], axes: Sequence[str] = COMPARED) -> List[str]:
    """The axes that have one value in all records."""
    return [name for name in axes if len({axis(record, name) for record in records}) == 1]


def label(record: Record, axes: Sequence[str]) -> str:
    """The values of these axes of a record, such as `lstm h128_t5, batch 8`."""
    first = " ".join(axis(record, name) for name in ("workload", "size") if name in axes)
    others = [axis(record, name) for name in axes if name not in ("workload", "size")]
    return ", ".join(part for part in (first, *others) if part)


def differing(records: Sequence[Record], axes: Sequence[str] = COMPARED) -> List[str]:
    """The axes that a label of these records needs: those with several values, and the workload."""
    same = shared(records, axes)
    return [name for name in axes if name not in same or name in ("workload", "size")]


def described(records: Sequence[Record]) -> str:
    """What all records share, for a caption: `inference, batch 8, fp32, cpu`. One replica is not said."""
    same = [name for name in shared(records) if name not in ("workload", "size")]
    return ", ".join(axis(records[0], name) for name in same if name != "replicas" or records[0][name] != 1)


def grouped(results: Sequence[Result], axes: Sequence[str]) -> Dict[Tuple[str, ...], List[Result]]:
    """The results by their values of these axes, in the order in which they come."""
    found: Dict[Tuple[str, ...], List[Result]] = {}
    for result in results:
        found.setdefault(tuple(axis(result.record, name) for name in axes), []).append(result)
    return found


def backends(results: Sequence[Result]) -> List[str]:
    """The frameworks of results, sorted."""
    return sorted({text(result.record, "backend", 40) for result in results})

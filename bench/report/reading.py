"""Reads files of pytest-benchmark's JSON.

Values of a record are read through `number` and `text`, since a file may be damaged or hostile.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence

from bench.results.record import Record, is_valid, upgraded, without_rates

# The keys of the suite in a JSON file, beside those of pytest-benchmark.
INVALID, EXTRA = "layerbench_invalid", "layerbench"
# Longer texts of a record are cut.
LONGEST = 200
# Larger numbers of a record, and smaller ones than their inverse, are damaged.
MOST = 1e30


@dataclass(frozen=True)
class Result:
    """One measured case.

    record    pytest-benchmark's `extra_info`, in the current schema
    samples   seconds of each sample; empty: the file has none (--benchmark-autosave without --benchmark-save-data)
    """

    record: Record
    samples: Sequence[float] = ()


@dataclass(frozen=True)
class Run:
    """One file.

    name       of the file, without its folder
    machine    pytest-benchmark's `machine_info`; `commit`: its `commit_info`
    date       the end of the run in UTC, such as 2026-11-29T08:20:03; empty: not known
    results    the measured cases; `invalid`: records without a rate
    command    the command line of the run; empty: not known
    missing    cases that were selected and not measured: `id`, `outcome` (skipped or failed) and `reason` of each
    verdicts   of --against and of baselines: `id`, `spec`, `verdict`, `text`, `metrics` and `log_ratios` of each
    self_check what the last self-check on this machine found; empty: there was none
    others     results that are not the suite's
    """

    name: str
    machine: Mapping[str, Any] = field(default_factory=dict)
    commit: Mapping[str, Any] = field(default_factory=dict)
    date: str = ""
    results: Sequence[Result] = ()
    invalid: Sequence[Record] = ()
    command: str = ""
    missing: Sequence[Mapping[str, Any]] = ()
    verdicts: Sequence[Mapping[str, Any]] = ()
    self_check: Mapping[str, Any] = field(default_factory=dict)
    others: int = 0

    @property
    def when(self) -> str:
        """The date for a person: 2026-11-29 08:20 UTC."""
        return f"{self.date[:10]} {self.date[11:16]} UTC" if len(self.date) >= 16 else "date not known"


def read(path: Path) -> Run:
    """The run of a file. Raises ValueError, in one line, for a file that cannot be read or is not such a JSON file."""
    return from_json(path.name, content(path))


def content(path: Path) -> Dict[str, Any]:
    """What a file has, of which `benchmarks` is a list. Raises ValueError, in one line, as `read` does."""
    try:
        found = json.loads(path.read_bytes().decode("utf-8"))
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise ValueError(f"{path} is not JSON; a file of --benchmark-json is needed") from None
    if not isinstance(found, dict) or not isinstance(found.get("benchmarks"), list):
        raise ValueError(f"{path} has no list of benchmarks; a file of --benchmark-json is needed")
    return found


def files(names: Sequence[str]) -> List[Path]:
    """The files of these names: a folder stands for all JSON files in it. Raises ValueError for one without any."""
    found: List[Path] = []
    for name in names:
        path = Path(name)
        inside = sorted(path.rglob("*.json")) if path.is_dir() else [path]
        if not inside:
            raise ValueError(f"{path} has no JSON file in it")
        found += inside
    return found


def from_json(name: str, content: Mapping[str, Any]) -> Run:
    """The run of a file's content, of which `benchmarks` is a list."""
    entries = [entry for entry in content["benchmarks"] if isinstance(entry, dict)]
    results = [result for result in map(_result, entries) if result is not None]
    extra = _dictionary(content.get(EXTRA))
    invalid = [upgraded(record) for record in _list(content.get(INVALID))]
    return Run(
        name,
        machine=_dictionary(content.get("machine_info")),
        commit=_dictionary(content.get("commit_info")),
        date=text(content, "datetime"),
        results=[result for result in results if is_valid(result.record)],
        # Earlier versions left some times in them.
        invalid=[without_rates(record) for record in invalid if record is not None and _has_axes(record)],
        command=text(extra, "command", 10 * LONGEST),
        verdicts=[*_of_sides(results), *(entry for entry in _list(extra.get("verdicts")) if isinstance(entry, dict))],
        missing=[entry for entry in _list(extra.get("missing")) if isinstance(entry, dict)],
        self_check=_dictionary(extra.get("self_check")),
        others=len(entries) - len(results),
    )


def _result(entry: Mapping[str, Any]) -> Optional[Result]:
    """The result of an entry of `benchmarks`; None if it is not the suite's."""
    record = upgraded(entry.get("extra_info"))
    if record is None or not _has_axes(record):
        return None
    return Result(record, _finite(_dictionary(entry.get("stats")).get("data")))


def _of_sides(results: Sequence[Result]) -> List[Dict[str, Any]]:
    """The verdicts of --against, which are in the records."""
    return [
        {**result.record["against"], "id": result.record["id"]}
        for result in results
        if isinstance(result.record.get("against"), dict)
    ]


def newest(runs: Sequence[Run]) -> List[Result]:
    """The newest result of each case, in the order in which the cases come. Runs are oldest first."""
    found = {result.record["id"]: result for run in runs for result in run.results}
    return list(found.values())


def newest_invalid(runs: Sequence[Run]) -> List[Record]:
    """The INVALID records of the last run in which each case was measured."""
    last = {record["id"]: index for index, run in enumerate(runs) for record in (*_records(run), *run.invalid)}
    found = {
        record["id"]: record for index, run in enumerate(runs) for record in run.invalid if last[record["id"]] == index
    }
    return list(found.values())


def _records(run: Run) -> List[Record]:
    return [result.record for result in run.results]


def _has_axes(record: Record) -> bool:
    """Whether a record says which case it is of."""
    texts = ("id", "workload", "size", "mode", "precision", "backend", "device")
    return all(isinstance(record.get(name), str) and record[name] for name in texts) and all(
        (number(record, name) or 0) >= 1 for name in ("batch_size", "replicas")
    )


def number(record: Mapping[str, Any], name: str) -> Optional[float]:
    """A number of a record; None if it is missing, no number, or larger or smaller than anything that is measured."""
    value: Any = record.get(name)
    known = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if known and (value == 0 or 1 / MOST < abs(value) < MOST) else None


def text(record: Mapping[str, Any], name: str, longest: int = LONGEST) -> str:
    """A text of a record, cut to `longest` characters; empty if it is missing or null. It is not escaped."""
    value = record.get(name)
    return "" if value is None else shortened(value if isinstance(value, str) else json.dumps(value), longest)


def shortened(value: str, longest: int = LONGEST) -> str:
    """A text without characters that are not printed or that change the direction of others, cut to a length."""
    kept = "".join(each if each.isprintable() else " " for each in value[: longest + 1])
    return kept if len(kept) <= longest else f"{kept[: longest - 1]}…"


def _finite(values: Any) -> List[float]:
    """A list of seconds; empty if it is none."""
    known = isinstance(values, list) and all(
        type(value) in (int, float) and 1 / MOST < value < MOST for value in values
    )
    return values if known else []


def _dictionary(value: Any) -> Dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> List[Any]:
    return value if isinstance(value, list) else []

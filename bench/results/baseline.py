"""Baselines, and the verdict: is a case slower than its baseline?

A baseline is valid for its own machine, versions, settings and graph. If one of them differs, the verdict is "changed",
whatever the rate.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import math
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterable, List, Mapping, Optional

from bench import cache
from bench.cases.case import RECORDED
from bench.clock.sampling import FEWEST
from bench.results.fields import FIELDS, SCHEMA
from bench.results.record import Record, is_valid, upgraded

# Fields that must be equal. Settings are compared by their fingerprint.
MATCHED = tuple(name for name, field in FIELDS.items() if field.matched and name not in RECORDED)
NEEDED = tuple(name for name, field in FIELDS.items() if field.needed)
# A baseline with more noise than this would let a case become much slower.
NOISIEST_PERCENT = 25


@dataclass(frozen=True)
class Verdict:
    """`kind`: slower, undecided, same, faster, changed or new. `text`: one line for a person."""

    kind: str
    text: str
    change_percent: Optional[float] = None


def judge(now: Record, base: Optional[Record], tolerance_percent: float) -> Verdict:
    """Compare two records of one case, by the logarithm of the ratio of their rates: twice as slow is as far away as
    twice as fast.

    slower      below the baseline by more than the tolerance and the noise of both sides together
    undecided   below by more than the tolerance, but within the noise; or the noise of a side is not known, its machine
                was disturbed, or it was not steady
    tolerance_percent   the fall that is accepted, below 100
    """
    if base is None:
        return Verdict("new", f"{now['id']} is not in the baseline")
    if now["source"] != "measured":
        return Verdict("changed", f"{now['id']} cannot be compared: its source is {now['source']}")
    change = 100 * (now["items_per_s"] / base["items_per_s"] - 1)
    different = differences(now, base)
    if different:
        return Verdict("changed", f"{now['id']} cannot be compared: {'; '.join(different)}", change)
    distance = abs(math.log(now["items_per_s"] / base["items_per_s"]))
    tolerance = -math.log(1 - tolerance_percent / 100)
    faults = doubts(now) or doubts(base)
    noise = math.hypot(*(math.log1p((side["noise_percent"] or 0) / 100) for side in (now, base)))
    text = (
        f"{now['id']}: {now['items_per_s']:,.6g} {now['item']}s, items/s is {abs(change):.1f} %"
        f" {'below' if change < 0 else 'above'} the baseline's {base['items_per_s']:,.6g}"
        f" (tolerance {tolerance_percent:g} %, noise {100 * math.expm1(noise):.1f} %)"
    )
    if distance <= tolerance:
        return Verdict("same", text, change)
    if faults:
        return Verdict("undecided", f"{text}; {faults[0]}", change)
    if distance <= tolerance + noise:
        return Verdict("undecided", text, change)
    return Verdict("slower" if change < 0 else "faster", text, change)


def doubts(record: Record) -> List[str]:
    """Why a rate decides nothing; none: it does."""
    faults = ["the machine was disturbed"] if record["disturbed"] else []
    if record["noise_percent"] is None or (record.get("samples") or FEWEST) < FEWEST:
        faults.append(f"fewer than {FEWEST} samples show no noise")
    return faults + (["it was not steady after the warm-up"] if record.get("steady") is False else [])


def unfit(record: Record) -> str:
    """Why a record cannot be a baseline; empty: it can."""
    if record["source"] != "measured":
        return f"its source is {record['source']}"
    if not is_valid(record):
        return f"it is INVALID: {'; '.join(record['invalid_reasons'])}"
    faults = doubts(record)
    if not faults and record["noise_percent"] > NOISIEST_PERCENT:
        faults = [f"its noise is {record['noise_percent']:.0f} %, more than {NOISIEST_PERCENT} % hides a regression"]
    return faults[0] if faults else ""


def differences(now: Record, base: Record) -> List[str]:
    """The fields that make two records incomparable, each as `field before -> now`."""
    devices = sorted(key for key in {*now, *base} if key.startswith("device_"))
    keys = [*MATCHED, *devices]
    different = [key for key in keys if now.get(key) != base.get(key)]
    if "settings" in different:
        tuned = sorted(key for key in {*now, *base} if key.startswith("tuned_"))
        names = [*_different_settings(now, base), *(key for key in tuned if now.get(key) != base.get(key))]
        different[different.index("settings") : different.index("settings") + 1] = names or ["settings"]
    return [f"{key} {base.get(key)} -> {now.get(key)}" for key in different]


def _different_settings(now: Record, base: Record) -> List[str]:
    """The names of the settings that differ and have an effect on the case."""
    # With parallel timing, a case runs on any free cores. Only their number must be equal.
    by_count = bool(now.get("parallel_timing") and base.get("parallel_timing"))
    different = []
    for name, setting in RECORDED.items():
        values = [now.get(name), base.get(name)]
        if name == "cores" and by_count:
            values = [len(str(cores).split(",")) if cores else 0 for cores in values]
        # An older record may lack a newer setting.
        if name in base and setting.matters(now) and values[0] != values[1]:
            different.append(name)
    return different


def path_of(name: str, root: Path, machine: Mapping[str, Any]) -> Path:
    """The path of a baseline: an existing file or folder, else baselines/<machine class>/<name>.json."""
    with contextlib.suppress(OSError):
        if "/" in name or name.endswith(".json") or Path(name).exists():
            return Path(name)
    return root / "baselines" / machine_class(machine) / f"{name}.json"


def machine_class(machine: Mapping[str, Any]) -> str:
    """The folder name of a class of machines: CPU model and number of cores."""
    text = f"{machine['model']} {machine['cores']} cores".lower()
    return re.sub(r"[^a-z0-9]+", "-", text).strip("-")


def load(path: Path) -> Dict[str, Record]:
    """The records of a file, or of every *.json in a folder, by id.

    Raises ValueError, in one line, if the file is missing, not JSON, or not written by this suite.
    """
    if path.is_dir():
        files = sorted(path.glob("*.json"))
        if not files:
            raise ValueError(f"--baseline {path}: no *.json in this folder")
        return {key: value for file in files for key, value in load(file).items()}
    content = _parsed(path)
    benchmarks = content.get("benchmarks") if isinstance(content, dict) else None
    if not isinstance(benchmarks, list):
        raise ValueError(
            f"--baseline {path}: no list of benchmarks in it; give a file of --benchmark-json or --baseline-accept"
        )
    if not benchmarks:
        raise ValueError(f"--baseline {path}: no case in it; --baseline-accept WHY stores those of a run")
    records = {}
    for entry in benchmarks:
        stored = entry.get("extra_info") if isinstance(entry, dict) else None
        info = upgraded(stored)
        if info is None:
            schema = stored.get("schema") if isinstance(stored, dict) else None
            raise ValueError(f"--baseline {path}: its records have schema {schema}, this suite writes {SCHEMA}")
        if info.get("source", "measured") != "measured":
            raise ValueError(f"--baseline {path}: {info.get('id')} was not measured: its source is {info['source']}")
        lacking = [key for key in NEEDED if key not in info]
        if lacking:
            raise ValueError(f"--baseline {path}: the record of {info.get('id')} lacks {', '.join(lacking)}")
        _require_numbers(path, info)
        records[info["id"]] = info
    return records


def _require_numbers(path: Path, info: Mapping[str, Any]) -> None:
    """Raise ValueError if a record's rate or noise is no number that can be: the noise of few samples is null."""
    for key, least in (("items_per_s", sys.float_info.min), ("noise_percent", 0)):
        value = info[key]
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not (number and least <= value < math.inf) and not (key == "noise_percent" and value is None):
            raise ValueError(f"--baseline {path}: damaged: {key} of {info['id']} is {value!r}")


def require_own_machine(path: Path, records: Iterable[Record], devices: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise ValueError if all records of the devices of this machine come from other machines.

    devices   the facts of each device of this machine, by name
    """
    known = [record for record in records if record["device"] in devices]
    if not known or any(_same_device(record, devices) for record in known):
        return
    first = known[0]
    named = {key[7:]: value for key, value in first.items() if key.startswith("device_")}
    theirs, ours = (
        ", ".join(f"{key} {value}" for key, value in sorted(facts.items()) if value is not None)
        for facts in (named, devices[first["device"]])
    )
    raise ValueError(
        f"--baseline {path}: measured on another machine ({theirs}; here {ours}); a baseline holds for its own machine,"
        f" store one with --baseline NAME --baseline-accept WHY"
    )


def accept(path: Path, records: Iterable[Record], who: str, why: str) -> List[Record]:
    """Store records in a file, with who, when and why. Records of other cases stay in the file.

    Returns the records that were not stored, since they are unfit. If all are, the file stays as it is.
    Raises ValueError if two records are of the same case.
    """
    records = list(records)
    ids = [record["id"] for record in records]
    duplicates = sorted({id for id in ids if ids.count(id) > 1})
    if duplicates:
        raise ValueError(f"several tests measured {', '.join(duplicates)}; select one of them (-k)")
    accepted = [record for record in records if not unfit(record)]
    if not accepted:
        return records
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = _parsed(path) if path.exists() else {"accepted": []}
    merged = load(path) if path.exists() else {}
    merged.update({record["id"]: record for record in accepted})
    when = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    entry = {"who": who, "when": when, "why": why, "cases": sorted(record["id"] for record in accepted)}
    content = {
        "accepted": [*stored.get("accepted", []), entry],
        "benchmarks": [{"extra_info": merged[key]} for key in sorted(merged)],
    }
    cache.write_whole(path, json.dumps(content, indent=1, sort_keys=True) + "\n")
    return [record for record in records if unfit(record)]


def _same_device(record: Record, devices: Mapping[str, Mapping[str, Any]]) -> bool:
    return all(record.get(f"device_{key}") == value for key, value in devices[record["device"]].items())


def _parsed(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise ValueError(f"--baseline {path}: No such file or directory; --baseline-accept WHY stores one") from None
    except OSError as error:
        raise ValueError(f"--baseline {path}: {error.strerror}") from None
    except ValueError as error:
        raise ValueError(f"--baseline {path}: not JSON, or cut off ({error})") from None

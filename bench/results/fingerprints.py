"""What two records must have in common to be compared, and the names of what differs.

Measurement   graph, settings, environment variables: another one is another thing that is measured
Machine       CPU, cores and device: another one is another machine. Kernel, microcode, governor, memory and driver can
              change on one machine, and the rate with them
Software      framework, libraries, Python: a user may want to compare just these (--baseline-software any)
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Iterator, List, Mapping

from bench.cases.case import RECORDED
from bench.results.fields import FIELDS
from bench.results.record import Record

# Fields that must be equal. Settings are compared by their fingerprint.
MATCHED = tuple(name for name, field in FIELDS.items() if field.matched and name not in RECORDED)
SOFTWARE = ("framework_version", "libraries", "python_version")
# Facts without which a machine is another one; of the CPU for every device.
MACHINE = ("device_model", "device_cores", "cpu", "cores")


@dataclass(frozen=True)
class Difference:
    """A fact that two records have differently. `software`: the software has changed, and nothing else."""

    name: str
    before: Any
    now: Any
    software: bool = False

    def __str__(self) -> str:
        return f"{self.name} {self.before} -> {self.now}"


def differences(now: Record, base: Record) -> List[Difference]:
    """The facts that make two records incomparable. What an older record does not know is no difference."""
    found: List[Difference] = []
    for key in MATCHED:
        if key == "settings":
            found += _settings(now, base)
        elif key in ("machine", "libraries"):
            found += _facts(key, now, base)
        elif now.get(key) != base.get(key) and (key != "python_version" or base.get(key)):
            found.append(Difference(key, base.get(key), now.get(key), key in SOFTWARE))
    devices = sorted(key for key in base if key.startswith("device_") and now.get(key) != base[key])
    return found + [Difference(key, base[key], now.get(key)) for key in devices]


def key(record: Record) -> str:
    """A text that is equal for two records without differences."""
    devices = {name: value for name, value in record.items() if name.startswith("device_")}
    return json.dumps([record["id"], devices, [record.get(name) for name in MATCHED]], sort_keys=True)


def of_machine(record: Record, devices: Mapping[str, Mapping[str, Any]]) -> List[Difference]:
    """The facts that say that a record comes from another machine than this one.

    devices   the facts of each device of this machine, by name
    """
    facts = {f"device_{name}": value for name, value in devices[record["device"]].items()}
    cpu = devices["cpu"]
    now = {**record, **facts, "machine": {"cpu": cpu["model"], "cores": cpu["cores"]}}
    return [difference for difference in differences(now, record) if difference.name in MACHINE]


def _facts(key: str, now: Record, base: Record) -> Iterator[Difference]:
    """The differing facts of a field that is a dictionary."""
    before, after = base.get(key) or {}, now.get(key) or {}
    for name in sorted({*before, *after}) if before else ():
        # The device's facts have the CPU's model and cores as well.
        known = now["device"] == "cpu" and name in MACHINE
        if not known and before.get(name) != after.get(name):
            yield Difference(name, before.get(name), after.get(name), key in SOFTWARE)


def _settings(now: Record, base: Record) -> List[Difference]:
    """The settings, and the facts of the backend, that differ and have an effect on the case."""
    if now["settings"] == base["settings"]:
        return []
    # With parallel timing, a case runs on any free cores. Only their number must be equal.
    by_count = bool(now.get("parallel_timing") and base.get("parallel_timing"))
    found = []
    for name, setting in RECORDED.items():
        before, after = base.get(name), now.get(name)
        equal = _count(before) == _count(after) if name == "cores" and by_count else before == after
        # An older record may lack a newer setting.
        if name in base and setting.matters(now) and not equal:
            found.append(Difference(name, before, after))
    tuned = sorted(key for key in {*now, *base} if key.startswith("tuned_") and now.get(key) != base.get(key))
    found += [Difference(key, base.get(key), now.get(key)) for key in tuned]
    return found or [Difference("settings", base["settings"], now["settings"])]


def _count(cores: Any) -> int:
    """The number of cores in a list with commas."""
    return len(str(cores).split(",")) if cores else 0

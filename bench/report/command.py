"""The command that repeats a case: its axes and settings as options of the command line."""

from __future__ import annotations

import re
import shlex
from typing import Dict, List, Mapping, Optional

from bench import workloads
from bench.cases import dimension
from bench.cases.dimension import Dimension, Value
from bench.report.reading import number, text
from bench.results.record import Record

# Values of a record that the options have if they are left out.
USUAL = {"device": "cpu", "mode": "inference", "precision": "fp32", "data": "synthetic", "tuning": "best"}
USUAL["protocol"] = "median"
# Options whose names do not follow from those of the fields, by the value of the field that needs them.
SWITCHES = {
    "zero_values": (True, "--use-zero-values"),
    "min_latency": (True, "--min-latency"),
    "half_partial": (True, "--half-partial"),
    "all_reduce": (False, "--no-all-reduce"),
}
FILES = ("data_dir",)
# Options of IPUs without a value.
FLAGS = ("conv_dithering", "replicated_tensor_sharding", "cycle_count")
SWITCHED = {"True": "on", "False": "off"}
# Between two settings. A value may have a comma as well.
SEPARATOR = re.compile(r", (?=\w+=)")


def of(record: Record) -> str:
    """The command that measures the case of a record again, and no other case.

    It is for this machine or one like it. What a record does not have is left out: times, and files of weights.
    """
    where = text(record, "workload_file", 1000) or "bench"
    words = ["pytest", where, "-k", f"[{text(record, 'id')}]", *_axes(record), *_settings(record), "--benchmark-only"]
    return " ".join(map(shlex.quote, words))


def _axes(record: Record) -> List[str]:
    words = ["--backend", text(record, "backend"), "--batch-size", f"{record['batch_size']:.0f}"]
    for name in ("device", "mode", "precision"):
        if record[name] != USUAL[name]:
            words += [option(name), text(record, name)]
    if record["replicas"] != 1:
        words += ["--replicas", f"{record['replicas']:.0f}"]
    return words + _size(record)


def _size(record: Record) -> List[str]:
    """The options that select the size of a record: none for the first one, its name, or its dimensions."""
    try:
        workload = workloads.load(record["workload"])
    except ValueError:
        return ["--sizes", text(record, "size")]
    named, size = workloads.named_sizes(workload), record["size"]
    first = next(iter(named))
    if size in named:
        return [] if size == first else ["--sizes", size]
    values = dimensions_of(size, workload.dimensions)
    if values is None:
        return ["--sizes", text(record, "size")]
    changed = {name: value for name, value in values.items() if value != named[first].get(name)}
    words = []
    for name, value in changed.items():
        words += [option(name)] if workload.dimensions[name].flag else [option(name), str(value)]
    return words


def dimensions_of(size: str, dimensions: Mapping[str, Dimension]) -> Optional[Dict[str, Value]]:
    """The dimensions that a size's name says, with the defaults of the others; None if the name does not parse."""
    values: Dict[str, Value] = {}
    for part in size.split("_"):
        found = [(name, value) for name, each in dimensions.items() for value in _values(each, part)]
        if len(found) != 1:
            return None
        values.update(found)
    missing = [name for name, each in dimensions.items() if name not in values and each.default is None]
    return None if missing else dimension.with_defaults(dimensions, values)


def _values(each: Dimension, part: str) -> List[Value]:
    """The value of a dimension that has this part of a size's name, if any."""
    if each.choices:
        return [choice for choice in each.choices if part and each.name_part(choice) == part]
    digits = part[len(each.abbreviation) :]
    return [int(digits)] if part.startswith(each.abbreviation) and digits.isdigit() else []


def _settings(record: Record) -> List[str]:
    words: List[str] = []
    for name in ("data", "tuning", "protocol"):
        if text(record, name) not in ("", USUAL[name]):
            words += [option(name), text(record, name)]
    for name in ("threads", "batches_per_step"):
        count = number(record, name)
        if count is not None and (count != 1 or name == "threads"):
            words += [option(name), f"{count:.0f}"]
    words += [switch for name, (needed, switch) in SWITCHES.items() if record.get(name) is needed]
    words += [word for name in FILES if text(record, name) for word in (option(name), text(record, name, 1000))]
    for group in ("recipe", "poplar"):
        words += _group(text(record, group, 2000))
    return words


def _group(settings: str) -> List[str]:
    """The options of a recipe, or of an IPU, from `name=value, name=value`: each field has the name of its option."""
    words: List[str] = []
    for part in SEPARATOR.split(settings):
        name, equals, value = part.partition("=")
        if not equals or not re.fullmatch(r"\w+", name) or value.startswith("{"):
            continue
        if value in SWITCHED:
            words += [option(name)] if name in FLAGS else [option(name), SWITCHED[value]]
        else:
            words += [option(name), value.strip("()").rstrip(",").replace(" ", "")]
    return words


def option(name: str) -> str:
    """The spelling of an option with this name."""
    return f"--{name.replace('_', '-')}"

"""The record of a measured case: one flat dictionary, which pytest-benchmark stores as `extra_info`.

`bench/results/fields.py` defines the fields. Fields that do not apply are null. Keys that start with `tuned_` are facts
of the backend, keys that start with `device_` facts of the device.
"""

from __future__ import annotations

import math
import statistics
from typing import Any, Dict, Mapping, Optional, Sequence, Tuple

from bench.cache import fingerprint
from bench.cases.case import Case, Settings
from bench.cases.errors import Wrong
from bench.clock import protocol, roofline
from bench.clock.sampling import Samples
from bench.graph import Graph
from bench.program import Step
from bench.results import profile
from bench.results.fields import FIELDS, SCHEMA, Measurement, percentile

Record = Dict[str, Any]
# If the theoretical peak of a device is unknown, a case may raise the measured peak by this factor.
UNKNOWN_LIMIT = 2.0
# Fields of records of schema 1 that have other names, or are no longer recorded.
RENAMED = {field.schema_1: field.name for field in FIELDS.values() if field.schema_1}
DROPPED = ("elementwise_per_item",)


def build(
    case: Case, settings: Settings, graph: Graph, step: Step, samples: Samples, notes: Mapping[str, Any]
) -> Record:
    """Return the record of a case, without the fields of the peak. `with_peak` adds those.

    notes   the fields that the worker sets: check, canaries, versions, facts of backend and device
    """
    measurement = Measurement(case, settings, graph, step, samples)
    axes = case.plain()
    record: Record = {name: field.value(measurement) if field.value else None for name, field in FIELDS.items()}
    record["invalid_reasons"] = []
    record.update(settings.recorded(axes))
    record.update(protocol.rates(settings.protocol, case, measurement.batches, samples.seconds))
    record.update(notes)
    tuned = {key: value for key, value in record.items() if key.startswith("tuned_")}
    record["settings"] = fingerprint({**settings.matched(axes), **tuned})
    if record["source"] != "measured":
        # No time of a simulation is shown, so none is wrong.
        record["invalid_reasons"] = []
    record["validity"] = "INVALID" if record["invalid_reasons"] else "VALID"
    return without_rates(record) if record["source"] != "measured" or not is_valid(record) else record


def without_rates(record: Record) -> Record:
    """The record with null in all fields that need a sound time: rates, times of steps and latencies, the profile."""
    return {**record, **{name: None for name, field in FIELDS.items() if field.rate}}


def is_valid(record: Record) -> bool:
    """Whether the time is what a record says. Records of earlier versions had to be, to be stored."""
    return record.get("validity") != "INVALID"


def upgraded(stored: Any) -> Optional[Record]:
    """A stored record, converted to the current schema. None if it is no record, or its schema is unknown."""
    schema = stored.get("schema") if isinstance(stored, dict) else None
    if schema == SCHEMA:
        return dict(stored)
    if schema != 1:
        return None
    renamed = {RENAMED.get(key, key): value for key, value in stored.items() if key not in DROPPED}
    return {**renamed, "schema": SCHEMA}


def latency(seconds: Sequence[float], single: bool, step: Step, settings: Settings) -> Record:
    """The latency percentiles of one batch, in seconds. They are null if no seconds of single batches are known.

    seconds   the times of batches if `single`, else of samples, which are used only if a step is one batch
    """
    known = bool(seconds) and (single or (step.iterations == 1 and settings.recipe.gradient_accumulation == 1))
    ordered = sorted(seconds) if known else []
    shares = {"p90": 0.9, "p99": 0.99, "p999": 0.999}
    return {
        "latency_p50_s": statistics.median_low(ordered) if known else None,
        **{f"latency_{name}_s": percentile(ordered, share) for name, share in shares.items()},
    }


def with_peak(record: Record, peak: Mapping[str, Any], raised: bool = False) -> Record:
    """Return the record with its share of the roofline `peak`. Without a roofline or FLOP, it stays unchanged.

    The bandwidth is that of the largest measured working set that is not larger than the batch's, since small working
    sets stay in a cache.
    """
    if not peak or record["source"] != "measured" or record["tflops"] is None:
        return record
    size = roofline.level(peak, _moved(record))
    bandwidth = peak["bandwidth_bytes_per_s"][size] if size else None
    shares = {"flops": record["tflops"] * 1e12 / peak["flops"]}
    if bandwidth:
        shares[size] = record["gbytes_per_s"] * 1e9 / bandwidth
    roof = max(shares, key=lambda name: shares[name])
    rate = f"{peak['flops'] / 1e12:.3g} TFLOP/s" if roof == "flops" else f"{(bandwidth or 0) / 1e9:.3g} GB/s"
    rows = record.get("profile")
    return {
        **record,
        "percent_of_peak": 100 * shares[roof],
        "peak_tflops": peak["flops"] / 1e12,
        "peak_gbytes_per_s": bandwidth / 1e9 if bandwidth else None,
        "peak_library": f"{peak['sources'].get(roof)}: {rate}",
        "peak_raised": raised,
        **({"profile": profile.with_peak(rows, peak["flops"], record["replicas"])} if rows else {}),
    }


def _moved(record: Record) -> float:
    """The smallest number of bytes that one batch can move."""
    batches = record["batches_per_step"] * record["batches_in_flight"]
    return float(record["bytes_per_item"] * record["items_per_step"] / batches)


def rates(record: Record) -> Tuple[float, float, float, str]:
    """The arguments of `roofline.raised`: FLOP per second, bytes per second, bytes of a batch, and the case's id."""
    return record["tflops"] * 1e12, record["gbytes_per_s"] * 1e9, _moved(record), record["id"]


def require_possible(record: Record, peak: Mapping[str, Any]) -> None:
    """Raise Wrong if the rates exceed the theoretical peak of the device.

    The limit follows from the clock at calibration, or from the clock of the case's core if that is higher.
    """
    flops, bandwidth, moved, _ = rates(record)
    size = roofline.level(peak, moved)
    known = {"flops": peak["flops"], "bytes": peak["bandwidth_bytes_per_s"].get(size, math.inf)}
    limits = peak["limit"] or {key: UNKNOWN_LIMIT * value for key, value in known.items()}
    higher = (record.get("core_hz") or 0) / (peak.get("clock_hz") or math.inf)
    for rate, key, name in ((flops, "flops", "TFLOP/s"), (bandwidth, "bytes", "TB/s")):
        limit = max(known[key], limits[key] * max(1, higher))
        if rate > limit:
            raise Wrong(
                f"{rate / 1e12:.3g} {name} is more than this device can do ({limit / 1e12:.3g}),"
                f" so the clock or the count of operations is wrong"
            )

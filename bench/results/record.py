"""What one measured case leaves behind: one flat dictionary, stored by pytest-benchmark as `extra_info`.

`bench/results/fields.py` has its fields. What does not apply is null. Keys that start with `tuned_` are a backend's own
facts, and `device_` a device's.
"""

from __future__ import annotations

import math
from typing import Any, Dict, Mapping, Optional, Sequence, Tuple

from bench.cache import fingerprint
from bench.cases.case import Case, Settings
from bench.cases.errors import Wrong
from bench.clock import protocol, roofline
from bench.clock.sampling import Samples
from bench.graph import Graph
from bench.program import Step
from bench.results.fields import FIELDS, SCHEMA, Measurement, percentile

Record = Dict[str, Any]
# Where no limit of a device is known, a case may raise the measured peak by so much.
UNKNOWN_LIMIT = 2.0
# What records of schema 1 call by other names, and what is recorded no more.
RENAMED = {field.schema_1: field.name for field in FIELDS.values() if field.schema_1}
DROPPED = ("elementwise_per_item",)


def build(
    case: Case, settings: Settings, graph: Graph, step: Step, samples: Samples, notes: Mapping[str, Any]
) -> Record:
    """Return the record of a case, but for the peak, which `with_peak` adds.

    notes   what the worker saw besides, by field: check, canaries, versions, facts of backend and device
    """
    measurement = Measurement(case, settings, graph, step, samples)
    axes = case.plain()
    record: Record = {name: field.value(measurement) if field.value else None for name, field in FIELDS.items()}
    record.update(settings.recorded(axes))
    record.update(protocol.rates(settings.protocol, case, measurement.batches, samples.seconds))
    record.update(notes)
    tuned = {key: value for key, value in record.items() if key.startswith("tuned_")}
    record["settings"] = fingerprint({**settings.matched(axes), **tuned})
    if record["source"] != "measured":
        record.update({name: None for name, field in FIELDS.items() if field.rate})
    return record


def upgraded(stored: Any) -> Optional[Record]:
    """A stored record with the names of the present schema; None where it is no record, or one of an unknown schema."""
    schema = stored.get("schema") if isinstance(stored, dict) else None
    if schema == SCHEMA:
        return dict(stored)
    if schema != 1:
        return None
    renamed = {RENAMED.get(key, key): value for key, value in stored.items() if key not in DROPPED}
    return {**renamed, "schema": SCHEMA}


def latency(seconds: Sequence[float], single: bool, step: Step, settings: Settings) -> Record:
    """Percentiles of the time of single batches. `single`: the seconds are those of batches; else those of
    samples, which say so only where a step is one batch."""
    known = bool(seconds) and (single or (step.iterations == 1 and settings.recipe.gradient_accumulation == 1))
    ordered = sorted(seconds) or [0.0]
    shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999}
    return {f"latency_{name}_s": percentile(ordered, share) if known else None for name, share in shares.items()}


def with_peak(record: Record, peak: Mapping[str, Any], raised: bool = False) -> Record:
    """Return the record with its share of the roofline `peak`; empty: nothing is known. What computes nothing has none.

    The bandwidth is that of the largest measured working set that is not larger than one batch's: small ones live in a
    cache, from batch to batch.
    """
    if not peak or record["source"] != "measured" or record["tflops"] is None:
        return record
    size = roofline.level(peak, _moved(record))
    bandwidth = peak["bandwidth_bytes_per_s"][size] if size else None
    shares = {"flops": record["tflops"] * 1e12 / peak["flops"]}
    if bandwidth:
        shares[size] = record["gbytes_per_s"] * 1e9 / bandwidth
    roof = max(shares, key=lambda name: shares[name])
    return {
        **record,
        "percent_of_peak": 100 * shares[roof],
        "peak_tflops": peak["flops"] / 1e12,
        "peak_gbytes_per_s": bandwidth / 1e9 if bandwidth else None,
        "peak_library": peak["sources"].get(roof),
        "peak_raised": raised,
    }


def _moved(record: Record) -> float:
    """Bytes that one batch moves at the least."""
    batches = record["batches_per_step"] * record["batches_in_flight"]
    return float(record["bytes_per_item"] * record["items_per_step"] / batches)


def rates(record: Record) -> Tuple[float, float, float, str]:
    """What raises a roofline: FLOP and bytes per second, the bytes of a batch, and the case."""
    return record["tflops"] * 1e12, record["gbytes_per_s"] * 1e9, _moved(record), record["id"]


def require_possible(record: Record, peak: Mapping[str, Any]) -> None:
    """Raise Wrong where no program can have such rates on this device.

    The limit follows from the clock at calibration, or from that of the case's core where it was higher.
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

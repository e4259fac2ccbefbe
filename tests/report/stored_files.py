"""Files of pytest-benchmark's JSON, made by hand."""

from __future__ import annotations

import json

from bench.results.fields import FIELDS, SCHEMA

MACHINE = {"node": "paper", "python_version": "3.11.7", "layerbench": {"model": "Paper CPU", "cores": 2}}


def record(workload="lstm", backend="torch", rate=1000.0, **changed):
    """A record of a case; what is not given is null or usual."""
    made = {
        **dict.fromkeys(FIELDS),
        "schema": SCHEMA,
        "workload": workload,
        "size": "h8_t3",
        "mode": "inference",
        "batch_size": 1,
        "precision": "fp32",
        "replicas": 1,
        "backend": backend,
        "device": "cpu",
        "source": "measured",
        "validity": "VALID",
        "invalid_reasons": [],
        "item": "sequence",
        "items_per_s": rate,
        "step_median_s": 1 / rate if rate else None,
        "latency_p50_s": 1 / rate if rate else None,
        "noise_percent": 0.5,
        "steps_per_sample": 1,
        "samples": 3,
        "disturbed": False,
        "steady": True,
        "threads": 1,
        "protocol": "median",
        "framework_version": "1.0",
        "device_model": "Paper CPU",
        "device_cores": 2,
        **changed,
    }
    axes = "{workload}-{size}-{mode}-b{batch_size}-{precision}-x{replicas}-{backend}-{device}"
    return {"id": axes.format(**made), **{name: value for name, value in made.items() if name != "id" or value}}


def content(records, samples=(), **changed):
    """What a file of these records has. `samples` are the seconds of each."""
    return {
        "machine_info": MACHINE,
        "commit_info": {"id": "0123456789abcdef0123", "branch": "main", "dirty": False},
        "benchmarks": [{"extra_info": each, "stats": {"data": list(samples)}} for each in records],
        "datetime": "2026-11-29T08:20:03.427403+00:00",
        "version": "5.3.1",
        **changed,
    }


def write(path, records, **changed):
    """Write a file of these records. Returns its path."""
    path.write_text(json.dumps(content(records, **changed)))
    return path

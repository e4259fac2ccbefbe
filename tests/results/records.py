"""Records made by hand."""

from __future__ import annotations

from bench.results import baseline
from bench.results.fields import FIELDS, SCHEMA

MACHINE = {"model": "Paper CPU @ 2.0GHz", "cores": 4}
# A peak of round numbers.
PEAK = {"flops": 1e12, "bandwidth_bytes_per_s": {"1000": 8e9, "1000000": 4e9, "100000000": 2e9}}
PEAK["sources"] = {"flops": "paper 1.0", "1000": "a copy", "1000000": "a copy", "100000000": "a copy"}
PEAK["clock_hz"] = 2e9
PEAK["limit"] = {"flops": 4e12, "bytes": 16e9}


def record_of(name="lstm-h8_t3", rate=1000.0, noise=0.0, **changed):
    """As much of a record as verdicts and the table read; the rest is null."""
    made = {
        **dict.fromkeys(FIELDS),
        "schema": SCHEMA,
        "id": f"{name}-inference-b1-fp32-x1-numpy-cpu",
        "workload": name.split("-")[0],
        "size": name.split("-")[1],
        "mode": "inference",
        "batch_size": 1,
        "precision": "fp32",
        "replicas": 1,
        "backend": "numpy",
        "device": "cpu",
        "source": "measured",
        "item": "sequence",
        "items_per_s": rate,
        "step_median_s": 1 / rate,
        "noise_percent": noise,
        "percent_of_peak": 12.5,
        "disturbed": False,
        "canary_slowdown_before": 1.0,
        "canary_slowdown_after": 2.34,
        "canary_kind": "memory",
        "others_percent": 3.0,
        "steady": True,
        "threads": 1,
        "protocol": "median",
        "graph": "aaaa",
        "settings": "bbbb",
        "framework_version": "1.0",
        "device_model": MACHINE["model"],
        "device_cores": 4,
    }
    return {**made, **changed}


# Ten processes on three occasions, four hours apart, within one percent of 1000.
TEN = (990.0, 992.0, 994.0, 996.0, 998.0, 1002.0, 1004.0, 1006.0, 1008.0, 1010.0)


def processes_of(rates, first_s=1e9):
    """Processes of these rates; a new occasion begins four hours after the one before, with every fourth."""
    return [
        {
            "started_s": first_s + index // 4 * 4 * 3600 + index % 4 * 60,
            "items_per_s": rate,
            "noise_percent": 1.0,
            "disturbed": False,
            "steady": True,
        }
        for index, rate in enumerate(rates)
    ]


def with_processes(rates, name="lstm-h8_t3", **changed):
    """A record of processes of these rates."""
    return record_of(name, **{"rate": min(rates), "processes": processes_of(rates), **changed})


def judged(now, *stored, budget_percent=5.0, any_software=False):
    """The verdict of a record against stored ones."""
    return baseline.judge(now, baseline.match(now, stored, any_software), budget_percent)

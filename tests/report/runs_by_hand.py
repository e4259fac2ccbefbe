"""Runs with something for every section."""

from __future__ import annotations

import random

from stored_files import content, record

from bench.report import reading

FRAMEWORKS = ("torch", "tensorflow", "onnxruntime", "openvino")


def case(batch_size=1, backend="torch", rate=1000.0, samples=(), **changed):
    """An entry of `benchmarks`: a record that has a roof, and its samples."""
    ordered = sorted(samples) or [batch_size / rate]
    values = {
        "items_per_step": batch_size,
        "step_median_s": batch_size / rate,
        "latency_p50_s": ordered[(len(ordered) - 1) // 2],
        "samples": len(ordered),
        "flops_per_item": 2e6,
        "bytes_per_item": 1e6,
        "tflops": 2e6 * rate / 1e12,
        "gbytes_per_s": 1e6 * rate / 1e9,
        "peak_tflops": 0.1,
        "peak_gbytes_per_s": 20.0,
        "percent_of_peak": 100 * rate / 20_000,
        "batches_per_step": 1,
        "batches_in_flight": 1,
        "compile_s": 0.5,
        "memory_peak_bytes": 600 << 20,
        "memory_case_bytes": 100 << 20,
    }
    made = record(backend=backend, rate=rate, batch_size=batch_size, **{**values, **changed})
    return {"extra_info": made, "stats": {"data": list(samples)}}


def steps(count, median_s, seed=1):
    """Seconds of so many steps, spread by a few percent."""
    draw = random.Random(seed)
    return [median_s * draw.lognormvariate(0.0, 0.05) for _ in range(count)]


def run_of(entries, **changed):
    """A run of these entries."""
    return reading.from_json("a.json", {**content([]), "benchmarks": list(entries), **changed})


def pair_verdict(kind, estimate, log_ratios=(), **changed):
    """What a record has of --against."""
    rate = {
        "kind": kind,
        "count": len(log_ratios),
        "unit": "pairs",
        "budget_percent": 5.0,
        "false_alarm": 0.005,
        "estimate": estimate,
        "interval": [estimate - 0.02, estimate + 0.02],
        "confidence": 0.995,
        "smallest": -0.06,
    }
    pairs = [{"rate": ratio} for ratio in log_ratios]
    return {"spec": "same", "verdict": kind, "text": kind, "metrics": {"rate": rate}, "log_ratios": pairs, **changed}


def many(count=128, samples=400):
    """A run of so many cases: layers and batch sizes in four frameworks."""
    layers = ("dense", "conv", "lstm", "gru", "rnn", "hmc", "grouped_conv", "lstm_multi")
    entries = []
    for index in range(count):
        layer, batch = layers[index // 16 % 8], (1, 8, 64, 512)[index // 4 % 4]
        median_s = 2e-4 * batch**0.7 * (1 + index % 4)
        seconds = steps(samples, median_s, index)
        changed = {
            "workload": layer,
            "size": f"h{128 + index // 128}_t5_biasoff",
            "flops_per_item": 2e6 * (1 + index % 7),
        }
        entries.append(case(batch, FRAMEWORKS[index % 4], batch / median_s, seconds, **changed))
    return run_of(entries)

"""What one measured case leaves behind: one flat dictionary, stored by pytest-benchmark as `extra_info`.

FIELDS is its documentation and its schema; docs/record.md is held to it by a test. What does not apply is null.
Keys that start with `tuned_` are a backend's own facts, and `device_` a device's.
"""

from __future__ import annotations

import math
import platform
from typing import Any, Dict, List, Mapping, Sequence

from bench import workloads
from bench.cache import fingerprint
from bench.cases.case import AXES, Case, Settings
from bench.cases.errors import Wrong
from bench.cases.precision import PRECISIONS
from bench.clock import protocol
from bench.clock.sampling import Samples, noise_percent
from bench.graph import Graph
from bench.program import Step, throughput

Record = Dict[str, Any]
SCHEMA = 1
# What a simulation, or a stand-in, says nothing about.
RATES = (
    *("items_per_s", "tflops", "gbytes_per_s", "step_median_s", "step_mean_s"),
    *("step_p90_s", "step_p99_s", "noise_percent"),
    *protocol.FIELDS,
)
# Where no limit of a device is known, a case may raise the measured peak by so much.
UNKNOWN_LIMIT = 2.0
# A training step: one pass forward, and two of the same cost backward.
PASSES = {"inference": 1, "eval": 1, "training": 3}

FIELDS = {
    "schema": "version of this dictionary",
    "id": "workload-size-mode-b<batch>-precision-x<replicas>-backend-device",
    "workload": "axis",
    "workload_file": "the file of a workload that is not one of the suite's; else empty",
    "size": "axis: the dimensions, abbreviated",
    "mode": "axis",
    "batch_size": "axis: items per replica and batch",
    "precision": "axis",
    "replicas": "axis",
    "backend": "axis",
    "device": "axis",
    "source": "measured; or ipu_model, or fake: what no rate comes of, and no baseline",
    "item": "what is counted",
    "items_per_step": "items in one timed step, over all replicas and batches",
    "items_per_s": "items_per_step / step_median_s: the rate",
    "replica_items_per_s": "each replica's own rate, by rank; null for one replica",
    "scaling_percent": "the rate, of replicas times that of one replica in the same run",
    "communication_percent": "share of a step that the exchange of gradients adds, in percent",
    "step_median_s": "median of the samples, seconds",
    "step_mean_s": "mean of the samples, seconds",
    "step_p90_s": "90th percentile of the samples, seconds",
    "step_p99_s": "99th percentile of the samples, seconds",
    "latency_p50_s": "median time of a single batch; null where several share a step",
    "latency_p90_s": "90th percentile of it, seconds",
    "latency_p99_s": "99th percentile of it, seconds",
    "latency_p999_s": "99.9th percentile of it, seconds",
    "protocol_items_per_s": "the rate as the program of --protocol has it; null for median, or where it drops all",
    "protocol_min_items_per_s": "the least of the rates behind it; pytorch_cnns only, as are the next two",
    "protocol_max_items_per_s": "the largest of them",
    "protocol_std_items_per_s": "their standard deviation, over all of them (not n - 1)",
    "samples": "number of samples",
    "steps_per_sample": "steps that share one sample, for steps below 20 us",
    "noise_percent": "half the range of the medians of six blocks of samples, of the median",
    "cycles": "of one tile in the last call, by the IPU's own counter, where asked for",
    "sdk_latency_s": "mean time from host to host by the SDK's stamps of 1 ms, in the last call; IPU",
    "memory_peak_bytes": "the worker's peak resident memory while it was timed, framework and all",
    "compile_s": "lowering, compiling, loading and the first step, seconds",
    "warmup_steps": "steps before the first sample",
    "warmup_s": "seconds before the first sample",
    "attempts": "processes that measured it; more than 1 when it looked slower than its baseline",
    "steady": "whether the warm-up ended because steps stopped getting faster",
    "parameters": "trained numbers",
    "flops_per_item": "2 x multiply-accumulate of dense, convolution and gates; three passes in training",
    "elementwise_per_item": "elementwise operations of a forward pass, not in flops_per_item",
    "bytes_per_item": "inputs, weights and output, each once; weights once more in training",
    "tflops": "achieved, 1e12 FLOP/s",
    "gbytes_per_s": "achieved on those bytes, 1e9 bytes/s",
    "percent_of_peak": "roofline time / step_median_s; the roofline is measured on this machine",
    "peak_tflops": "the best product or convolution of a library, this precision and thread count",
    "peak_gbytes_per_s": "the best copy or read of a working set of this size",
    "peak_library": "what measured the peak, and the case that raised it last",
    "peak_raised": "this case was above the measured peak, which was raised to it",
    "canary_before": "slowdown of a kernel of known time, before the case",
    "canary_after": "the same, after the case",
    "disturbed": "a canary was more than 1.5 times slower than known: no verdict, no baseline",
    "load": "load average over one minute, before the case",
    "error": "norm of the output's error against the float64 reference, of its norm",
    "gradient_error": "error of the update along random directions, of its norm; 0 without training",
    "tolerance": "what `error` may be",
    "checked_rows": "rows of the batch that were checked",
    "checked_size": "shape of the first input that was checked",
    "data_dir": "folder of the set of images; real images only, as are the next eleven",
    "images_skipped": "bad images left out, over all replicas",
    "pipeline_items_per_s": "rate of the input pipeline alone",
    "transfer_s_per_item": "what moving decoded images to the device adds to a step",
    "compute_s_per_item": "a step on images that are on the device",
    "bound_by": "which of these three is the slowest",
    "top1_percent": "hits among the validation images, in percent",
    "top5_percent": "hits among the likeliest five, in percent",
    "images_scored": "images that were scored",
    "epochs": "of training; its losses and hits are those of weights that were trained so long",
    "loss_first": "mean loss of the first ten updates",
    "loss_last": "mean loss of the last ten updates",
    "graph": "fingerprint of what is computed",
    "settings": "fingerprint of the settings below, threads, cores and facts",
    "data": "synthetic, generated or real",
    "global_batch": "items behind one weight update; in inference, behind one batch",
    "all_reduce": "whether replicas average their gradients",
    "recipe": "how it is trained, but for what goes without saying",
    "min_latency": "one batch in flight",
    "half_partial": "16-bit sums in 16-bit products were allowed",
    "pipeline_splits": "where an IPU's pipeline was to be cut; of no effect elsewhere",
    "poplar": "what an IPU was told, but for what goes without saying",
    "protocol": "median, or the program that was timed as: what is warmed up and dropped",
    "zero_values": "inputs of zeros",
    "batches_per_step": "batches behind one blocking call",
    "batches_in_flight": "batches that run at once",
    "tuning": "best or default",
    "threads": "threads of the framework's pools",
    "cores": "cores that the worker was bound to; empty: not bound",
    "parallel_timing": "others were timed beside, on other cores (--parallel-timing)",
    "host": "name of the machine that the worker was on",
    "framework_version": "of the backend's framework",
    "python_version": "of the worker",
    "started_s": "when the timed section began, seconds since 1970",
    "ended_s": "when it ended",
}


def build(
    case: Case,
    settings: Settings,
    graph: Graph,
    step: Step,
    samples: Samples,
    found: Mapping[str, Any],
) -> Record:
    """Return the record of a case, but for the peak, which `with_peak` adds.

    found   what the worker saw besides: check, canaries, versions, facts of backend and device
    """
    median = samples.median_s
    ordered = sorted(samples.seconds)
    batch = workloads.items(case)
    passes = PASSES[case.mode]
    element = PRECISIONS[case.precision].bytes
    moved = graph.elements_moved + (graph.parameters if case.mode == "training" else 0)
    batches = step.items / batch
    record: Record = dict.fromkeys(FIELDS)
    record.update(schema=SCHEMA, id=case.id)
    record.update({axis: getattr(case, axis) for axis in AXES}, workload_file=case.own.get("shown", ""))
    record.update(
        source="measured",
        item=workloads.load(case.workload).ITEM,
        items_per_step=step.items,
        items_per_s=throughput(step.items, median),
        step_median_s=median,
        step_mean_s=math.fsum(ordered) / len(ordered),
        step_p90_s=_percentile(ordered, 0.90),
        step_p99_s=_percentile(ordered, 0.99),
        samples=len(ordered),
        steps_per_sample=samples.steps_per_sample,
        noise_percent=noise_percent(samples.seconds),
        warmup_steps=samples.warmup_steps,
        warmup_s=samples.warmup_s,
        steady=samples.steady,
        parameters=graph.parameters,
        flops_per_item=passes * graph.flops / batch,
        elementwise_per_item=graph.elementwise / batch,
        bytes_per_item=moved * element / batch,
        tflops=passes * graph.flops * batches / median / 1e12,
        gbytes_per_s=moved * element * batches / median / 1e9,
        graph=graph.fingerprint,
        host=platform.node(),
        python_version=platform.python_version(),
        global_batch=_global_batch(case, settings),
        **protocol.rates(settings.protocol, case, batches, samples.seconds),
        recipe=settings.recipe.told if case.mode == "training" else "",
        **{key: value for key, value in settings.matched.items() if key not in ("cores", "recipe", "parallel_timing")},
        pipeline_splits=settings.pipeline_splits,
        poplar=settings.poplar.non_defaults if case.device == "ipu" else "",
        cores=",".join(map(str, settings.cores)),
        parallel_timing=settings.parallel_timing,
    )
    record.update(found)
    tuned = {key: value for key, value in record.items() if key.startswith("tuned_")}
    matched = settings.matched
    if case.mode != "training":
        # A recipe says nothing where nothing is trained.
        matched.pop("recipe")
    if case.device == "ipu":
        matched.update(poplar=record["poplar"], pipeline_splits=settings.pipeline_splits)
    record["settings"] = fingerprint({**matched, **tuned})
    return record if record["source"] == "measured" else {**record, **dict.fromkeys(RATES)}


def _global_batch(case: Case, settings: Settings) -> int:
    batch = workloads.items(case)
    if case.mode != "training":
        return batch
    return settings.recipe.global_batch(batch, case.replicas if settings.all_reduce else 1)


def latency(seconds: Sequence[float], single: bool, step: Step, settings: Settings) -> Record:
    """Percentiles of the time of single batches. `single`: the seconds are those of batches; else those of
    samples, which say so only where a step is one batch."""
    known = bool(seconds) and (single or (step.iterations == 1 and settings.recipe.gradient_accumulation == 1))
    ordered = sorted(seconds) or [0.0]
    shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999}
    return {f"latency_{name}_s": _percentile(ordered, share) if known else None for name, share in shares.items()}


def with_peak(record: Record, peak: Mapping[str, Any]) -> Record:
    """Return the record with its share of the measured roofline.

    The bandwidth is that of the largest calibrated working set that is not larger than one batch's:
    small ones live in a cache, from batch to batch. `peak` is what a device's `peak` returned; empty: nothing is known.
    """
    if not peak or record["source"] != "measured":
        return {
            **record,
            "percent_of_peak": None,
            "peak_tflops": None,
            "peak_gbytes_per_s": None,
            "peak_library": "",
            "peak_raised": None,
        }
    size = _working_set(record, peak)
    bandwidth = peak["bandwidth"][size] if size else None
    shares = [record["tflops"] * 1e12 / peak["flops"]]
    shares += [record["gbytes_per_s"] * 1e9 / bandwidth] if bandwidth else []
    return {
        **record,
        "percent_of_peak": 100 * max(shares),
        "peak_tflops": peak["flops"] / 1e12,
        "peak_gbytes_per_s": bandwidth / 1e9 if bandwidth else None,
        "peak_library": peak["library"],
        "peak_raised": False,
    }


def _working_set(record: Record, peak: Mapping[str, Any]) -> str:
    """The largest calibrated working set that is not larger than a batch's, or the smallest; none: empty."""
    batches = record["batches_per_step"] * record["batches_in_flight"]
    moved = record["bytes_per_item"] * record["items_per_step"] / batches
    sizes = sorted(peak["bandwidth"], key=int)
    fitting = [size for size in sizes if int(size) <= moved] or sizes[:1]
    return fitting[-1] if fitting else ""


def raised(record: Record, peak: Mapping[str, Any]) -> Dict[str, Any]:
    """Return a peak that the rates of a verified case do not exceed: what calibrates is one library of several.

    Raises Wrong where no program can have such rates on this device.
    """
    size = _working_set(record, peak)
    bandwidth = peak["bandwidth"].get(size, math.inf)
    rates = {"flops": record["tflops"] * 1e12, "bytes": record["gbytes_per_s"] * 1e9}
    known = {"flops": peak["flops"], "bytes": bandwidth}
    limits = peak["limit"] or {key: UNKNOWN_LIMIT * value for key, value in known.items()}
    for key, name in (("flops", "TFLOP/s"), ("bytes", "TB/s")):
        if rates[key] > max(known[key], limits[key]):
            raise Wrong(
                f"{rates[key] / 1e12:.3g} {name} is more than this device can do ({limits[key] / 1e12:.3g}),"
                f" so the clock or the count of operations is wrong"
            )
    library = peak["library"].split(", ")[0]
    if rates["bytes"] > bandwidth:
        peak = {**peak, "bandwidth": {**peak["bandwidth"], size: rates["bytes"]}}
    return {**peak, "flops": max(peak["flops"], rates["flops"]), "library": f"{library}, {record['id']}"}


def _percentile(ordered: List[float], share: float) -> float:
    """The smallest sample that is not below `share` of the samples (nearest rank)."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]

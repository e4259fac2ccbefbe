"""The fields of a record, a row each: what is said of a field is said in its row, and nowhere else.

From the rows come the record itself, docs/record.md (`python -m scripts.record_page`), what a baseline must have and
match, what a simulation leaves null, the columns of the table, and the properties in JUnit's file.
"""

from __future__ import annotations

import math
import platform
from dataclasses import dataclass
from typing import Any, Callable, Dict, Optional

from bench import workloads
from bench.cases.case import RECORDED, Case, Settings
from bench.cases.precision import PRECISIONS
from bench.clock.sampling import Samples, noise_percent
from bench.graph import Graph
from bench.graph.recording import SOURCES
from bench.program import Step, throughput

# 2: fields have other names than in 1, which `Field.schema_1` gives; what does not apply is null, not zero.
SCHEMA = 2
# A training step: one pass forward, and two of the same cost backward.
PASSES = {"inference": 1, "eval": 1, "training": 3}


@dataclass(frozen=True)
class Measurement:
    """What a record is made of, besides what the worker notes by the name of a field."""

    case: Case
    settings: Settings
    graph: Graph
    step: Step
    samples: Samples

    @property
    def batches(self) -> float:
        """Batches of one replica in a step, over all replicas."""
        return self.step.items / workloads.items(self.case)

    @property
    def computes(self) -> bool:
        """Whether anything is computed: an input pipeline is a graph of inputs alone."""
        return any(node.op not in SOURCES for node in self.graph.nodes)

    @property
    def flops(self) -> Optional[int]:
        """Of one batch; None where nothing is computed."""
        return PASSES[self.case.mode] * self.graph.flops if self.computes else None

    @property
    def bytes_moved(self) -> Optional[int]:
        """Bytes that must cross the memory bus for one batch, at the least; None where nothing is computed."""
        updated = self.graph.parameters if self.case.mode == "training" else 0
        elements = self.graph.elements_moved + updated
        return PRECISIONS[self.case.precision].bytes * elements if self.computes else None

    def per_item(self, count: Optional[int]) -> Optional[float]:
        """What an item has of a batch's count."""
        return None if count is None else count / workloads.items(self.case)

    def per_second(self, count: Optional[int], unit: float) -> Optional[float]:
        """A batch's count as a rate."""
        return None if count is None else count * self.batches / self.samples.median_s / unit

    def percentile(self, share: float) -> float:
        return percentile(sorted(self.samples.seconds), share)

    @property
    def global_batch(self) -> int:
        batch = workloads.items(self.case)
        if self.case.mode != "training":
            return batch
        return self.settings.recipe.global_batch(batch, self.case.replicas if self.settings.all_reduce else 1)


def percentile(ordered: Any, share: float) -> float:
    """The smallest sample that is not below `share` of the samples (nearest rank)."""
    return float(ordered[max(0, math.ceil(share * len(ordered)) - 1)])


@dataclass(frozen=True)
class Field:
    """One field of a record.

    text       what it says
    unit       of its value; the table formats the value by it
    value      its value from a measurement; None: the worker notes it by this name, or it is added later
    rate       null where nothing was measured: in a simulation, and with a stand-in for an SDK
    needed     a stored baseline must have it
    matched    a baseline must match it, by itself or, of settings, as part of their fingerprint
    column     the head of its column in the table of a run; empty: none
    junit      it stands among the properties in JUnit's file
    schema_1   its name in records of schema 1; empty: the same
    """

    name: str
    text: str
    unit: str = ""
    value: Optional[Callable[[Measurement], Any]] = None
    rate: bool = False
    needed: bool = False
    matched: bool = False
    column: str = ""
    junit: bool = False
    schema_1: str = ""


def _axis(name: str, text: str = "axis") -> Field:
    return Field(name, text, value=lambda m: getattr(m.case, name), needed=True)


def _latency(rank: str, text: str, column: str = "") -> Field:
    return Field(f"latency_{rank}_s", text, "s", rate=True, column=column)


def _step(name: str, text: str, value: Callable[[Measurement], float], column: str = "") -> Field:
    return Field(f"step_{name}_s", f"{text} of the samples", "s", value, rate=True, column=column)


_ROWS = (
    Field("schema", "version of this dictionary", value=lambda m: SCHEMA, needed=True),
    Field(
        "id",
        "workload-size-mode-b<batch>-precision-x<replicas>-backend-device",
        value=lambda m: m.case.id,
        needed=True,
        junit=True,
    ),
    _axis("workload"),
    Field(
        "workload_file",
        "the file of a workload that is not one of the suite's; else empty",
        value=lambda m: m.case.own.get("shown", ""),
    ),
    _axis("size", "axis: the dimensions, abbreviated"),
    _axis("mode"),
    _axis("batch_size", "axis: items per replica and batch"),
    _axis("precision"),
    _axis("replicas"),
    _axis("backend"),
    _axis("device"),
    Field(
        "source", "measured; or ipu_model, or fake: what no rate comes of, and no baseline", value=lambda m: "measured"
    ),
    # Rates.
    Field(
        "items_per_s",
        "items_per_step / step_median_s: the rate",
        "items/s",
        lambda m: throughput(m.step.items, m.samples.median_s),
        rate=True,
        needed=True,
        column="items/s",
        junit=True,
    ),
    Field("replica_items_per_s", "each replica's own rate, by rank; null for one replica", "items/s", rate=True),
    Field(
        "protocol_items_per_s",
        "the rate as the program of --protocol has it; null for median, or where it drops all",
        "items/s",
        rate=True,
        column="theirs",
    ),
    Field(
        "protocol_min_items_per_s",
        "the least of the rates behind it; pytorch_cnns only, as are the next two",
        "items/s",
        rate=True,
    ),
    Field("protocol_max_items_per_s", "the largest of them", "items/s", rate=True),
    Field("protocol_std_items_per_s", "their standard deviation, over all of them (not n - 1)", "items/s", rate=True),
    Field(
        "item",
        "what is counted",
        value=lambda m: workloads.load(m.case.workload).ITEM,
        needed=True,
        column="item",
        junit=True,
    ),
    Field("items_per_step", "items in one timed step, over all replicas and batches", "items", lambda m: m.step.items),
    # Times.
    _step("median", "median", lambda m: m.samples.median_s, column="step"),
    _step("mean", "mean", lambda m: math.fsum(sorted(m.samples.seconds)) / len(m.samples.seconds)),
    _step("p90", "90th percentile", lambda m: m.percentile(0.90)),
    _step("p99", "99th percentile", lambda m: m.percentile(0.99)),
    _latency("p50", "median time of a single batch; null where several share a step"),
    _latency("p90", "90th percentile of it"),
    _latency("p99", "99th percentile of it", column="p99"),
    _latency("p999", "99.9th percentile of it"),
    Field("samples", "number of samples", value=lambda m: len(m.samples.seconds)),
    Field(
        "steps_per_sample",
        "steps that share one sample, for steps below 20 us",
        value=lambda m: m.samples.steps_per_sample,
    ),
    Field(
        "noise_percent",
        "half the range of the medians of six blocks of samples, of the median",
        "%",
        lambda m: noise_percent(m.samples.seconds),
        rate=True,
        needed=True,
        column="noise",
        junit=True,
    ),
    Field("cycles", "of one tile in the last call, by the IPU's own counter, where asked for"),
    Field(
        "sdk_latency_s",
        "mean time from host to host by the SDK's stamps of 1 ms, in the last call; IPU",
        "s",
        rate=True,
    ),
    Field("memory_peak_bytes", "the worker's peak resident memory while it was timed, framework and all", "bytes"),
    Field("compile_s", "lowering, compiling, loading and the first step", "s"),
    Field("warmup_steps", "steps before the first sample", value=lambda m: m.samples.warmup_steps),
    Field("warmup_s", "time before the first sample", "s", lambda m: m.samples.warmup_s),
    Field("steady", "whether the warm-up ended because steps stopped getting faster", value=lambda m: m.samples.steady),
    # Costs, and what the machine can do.
    Field("parameters", "trained numbers", value=lambda m: m.graph.parameters if m.computes else None),
    Field(
        "flops_per_item",
        "2 x multiply-accumulate of dense, convolution and gates; three passes in training",
        "FLOP",
        lambda m: m.per_item(m.flops),
    ),
    Field(
        "bytes_per_item",
        "inputs, weights and output, each once; weights once more in training",
        "bytes",
        lambda m: m.per_item(m.bytes_moved),
    ),
    Field("tflops", "achieved", "1e12 FLOP/s", lambda m: m.per_second(m.flops, 1e12), rate=True),
    Field(
        "gbytes_per_s", "achieved on those bytes", "1e9 bytes/s", lambda m: m.per_second(m.bytes_moved, 1e9), rate=True
    ),
    Field(
        "percent_of_peak",
        "roofline time / step_median_s; the roofline is measured on this machine",
        "%",
        rate=True,
        column="of peak",
    ),
    Field(
        "peak_tflops", "the best product or convolution of a library, this precision and thread count", "1e12 FLOP/s"
    ),
    Field("peak_gbytes_per_s", "the best copy or read of a working set of this size", "1e9 bytes/s"),
    Field("peak_library", "what measured the peak, and the case that raised it last"),
    Field("peak_raised", "this case was above the measured peak, which was raised to it"),
    # Replicas.
    Field(
        "scaling_percent",
        "the rate, of replicas times that of one replica in the same run",
        "%",
        rate=True,
        column="scaling",
    ),
    Field(
        "all_reduce_percent",
        "share of a step that the all-reduce of gradients adds",
        "%",
        rate=True,
        column="all-reduce",
        schema_1="communication_percent",
    ),
    # Whether to believe it.
    Field("canary_slowdown_before", "slowdown of a kernel of known time, before the case", schema_1="canary_before"),
    Field("canary_slowdown_after", "the same, after the case", schema_1="canary_after"),
    Field(
        "disturbed",
        "a canary was more than 1.5 times slower than known: no verdict, no baseline",
        needed=True,
        junit=True,
    ),
    Field("attempts", "processes that measured it; more than 1 when it looked slower than its baseline", junit=True),
    Field("load_average_1min", "load average over one minute, before the case", schema_1="load"),
    Field("relative_error", "norm of the output's error against the float64 reference, of its norm", schema_1="error"),
    Field("gradient_error", "error of the update along random directions, of its norm; null without training"),
    Field("tolerance", "what `relative_error` may be"),
    Field("checked_rows", "rows of the batch that were checked"),
    Field("checked_size", "shape of the first input that was checked"),
    Field("weights_note", "how the names in the file of --weights differ from the network's; null: they do not"),
    # Real images.
    Field("data_dir", "folder of the set of images; real images only, as are the next eleven"),
    Field("images_skipped", "bad images left out, over all replicas"),
    Field("pipeline_items_per_s", "rate of the input pipeline alone", "items/s", rate=True),
    Field("transfer_s_per_item", "what moving decoded images to the device adds to a step", "s/item", rate=True),
    Field("compute_s_per_item", "a step on images that are on the device", "s/item", rate=True),
    Field("bound_by", "which of these three is the slowest", rate=True),
    Field("top1_percent", "hits among the validation images", "%"),
    Field("top5_percent", "hits among the likeliest five", "%"),
    Field("images_scored", "images that were scored"),
    Field("epochs", "of training; its losses and hits are those of weights that were trained so long"),
    Field("loss_first", "mean loss of the first ten updates"),
    Field("loss_last", "mean loss of the last ten updates"),
    # What it is, and how it was measured.
    Field("graph", "fingerprint of what is computed", value=lambda m: m.graph.fingerprint, needed=True, matched=True),
    Field("settings", "fingerprint of the settings below and of the backend's facts", needed=True, matched=True),
    *(Field(name, how.text, matched=True) for name, how in RECORDED.items()),
    Field(
        "global_batch",
        "items behind one weight update; in inference, behind one batch",
        "items",
        lambda m: m.global_batch,
    ),
    Field("batches_in_flight", "batches that run at once"),
    Field("host", "name of the machine that the worker was on", value=lambda m: platform.node()),
    Field("framework_version", "of the backend's framework", needed=True, matched=True),
    Field("python_version", "of the worker", value=lambda m: platform.python_version()),
    Field("started_s", "when the timed section began, since 1970", "s"),
    Field("ended_s", "when it ended", "s"),
)
FIELDS: Dict[str, Field] = {field.name: field for field in _ROWS}

"""The fields of a record: one row defines everything about one field.

The rows define the record, docs/record.md (`python -m scripts.record_page`), the fields that a baseline must have and
match, the fields that are null in a simulation, the columns of the table, and the properties in JUnit's file.
"""

from __future__ import annotations

import math
import platform
import sys
from dataclasses import dataclass
from typing import Any, Callable, Dict, Optional, Sequence

from bench import backends, environment, machine, workloads
from bench.cases.case import RECORDED, Case, Settings
from bench.cases.precision import PRECISIONS
from bench.clock.neighbours import MOST_PERCENT
from bench.clock.sampling import FEWEST, Samples, autocorrelation, drift_percent, known_noise_percent
from bench.graph import Graph
from bench.graph.recording import SOURCES
from bench.program import Step, throughput

# Schema 2 renamed fields: `Field.schema_1` is the old name. Fields that do not apply are null in it, zero in schema 1.
SCHEMA = 2
# Passes of the cost of a forward pass. The backward pass of training costs two.
PASSES = {"inference": 1, "eval": 1, "training": 3}


@dataclass(frozen=True)
class Measurement:
    """The data from which a record is computed. The worker adds other fields by name."""

    case: Case
    settings: Settings
    graph: Graph
    step: Step
    samples: Samples

    @property
    def batches(self) -> float:
        """The number of batches in a step, summed over all replicas."""
        return self.step.items / workloads.items(self.case)

    @property
    def computes(self) -> bool:
        """Whether the graph computes something. The graph of an input pipeline has only inputs."""
        return any(node.op not in SOURCES for node in self.graph.nodes)

    @property
    def flops(self) -> Optional[int]:
        """FLOP of one batch; None if nothing is computed."""
        return PASSES[self.case.mode] * self.graph.flops if self.computes else None

    @property
    def bytes_moved(self) -> Optional[int]:
        """The smallest number of bytes that one batch can move to and from memory; None if nothing is computed."""
        updated = self.graph.parameters if self.case.mode == "training" else 0
        elements = self.graph.elements_moved + updated
        return PRECISIONS[self.case.precision].bytes * elements if self.computes else None

    def per_item(self, count: Optional[int]) -> Optional[float]:
        """The count of a batch, for one item."""
        return None if count is None else count / workloads.items(self.case)

    def per_second(self, count: Optional[int], unit: float) -> Optional[float]:
        """The count of a batch as a rate, in `unit` per second."""
        return None if count is None else count * self.batches / self.samples.median_s / unit

    @property
    def section_rate(self) -> Optional[float]:
        steps = len(self.samples.seconds) * self.samples.steps_per_sample
        return throughput(self.step.items * steps, self.samples.section_s) if self.samples.section_s else None

    def percentile(self, share: float) -> Optional[float]:
        return percentile(sorted(self.samples.seconds), share)

    @property
    def global_batch(self) -> int:
        batch = workloads.items(self.case)
        if self.case.mode != "training":
            return batch
        return self.settings.recipe.global_batch(batch, self.case.replicas if self.settings.all_reduce else 1)


def nearest_rank(ordered: Sequence[float], share: float) -> float:
    """The smallest sample that is not below `share` of the samples."""
    return float(ordered[max(0, math.ceil(round(share * len(ordered), 9)) - 1)])


def percentile(ordered: Sequence[float], share: float) -> Optional[float]:
    """The nearest rank; None if there are so few samples that it is the largest of them."""
    return nearest_rank(ordered, share) if math.ceil(round(share * len(ordered), 9)) < len(ordered) else None


@dataclass(frozen=True)
class Field:
    """One field of a record.

    text       its description
    unit       the unit of its value; the table formats the value by it
    value      computes its value from a measurement; None: the worker sets it, or it is added later
    rate       it is null if nothing was measured: in a simulation, with a fake SDK, and in an INVALID case
    needed     a stored baseline must have it
    matched    a baseline must match it, directly or, for settings, through their fingerprint (see fingerprints.py)
    column     the heading of its column in the table of a run; empty: it has no column
    junit      it is a property in JUnit's file
    schema_1   its name in records of schema 1; empty: the same name
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


def _step(name: str, text: str, value: Callable[[Measurement], Optional[float]], column: str = "") -> Field:
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
        "file of a user's workload; empty for the suite's workloads",
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
        "source", "measured, or ipu_model or fake: these have no rate and are no baseline", value=lambda m: "measured"
    ),
    Field(
        "validity",
        "VALID; or INVALID: the time is not what the record would say, so it is no baseline, and all rates, times of"
        " steps and latencies, and the profile, are null",
        junit=True,
    ),
    Field("invalid_reasons", "why it is INVALID, a sentence each; empty: it is VALID"),
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
    Field(
        "section_items_per_s",
        "the rate over the whole timed section, with what lies between two samples; null with --epochs",
        "items/s",
        lambda m: m.section_rate,
        rate=True,
    ),
    Field("replica_items_per_s", "each replica's own rate, by rank; null for one replica", "items/s", rate=True),
    Field(
        "protocol_items_per_s",
        "the rate as the program of --protocol computes it; null for median, or if the program drops all samples",
        "items/s",
        rate=True,
        column="theirs",
    ),
    Field(
        "protocol_min_items_per_s",
        "smallest of the rates of that program; only for pytorch_cnns, like the next two",
        "items/s",
        rate=True,
    ),
    Field("protocol_max_items_per_s", "largest of these rates", "items/s", rate=True),
    Field(
        "protocol_std_items_per_s", "standard deviation of these rates, divided by n (not n - 1)", "items/s", rate=True
    ),
    Field(
        "item",
        "what the rate counts",
        value=lambda m: workloads.load(m.case.workload).item,
        needed=True,
        column="item",
        junit=True,
    ),
    Field("items_per_step", "items in one timed step, over all replicas and batches", "items", lambda m: m.step.items),
    # Times.
    _step("median", "median", lambda m: m.samples.median_s, column="step"),
    _step("mean", "mean", lambda m: math.fsum(sorted(m.samples.seconds)) / len(m.samples.seconds)),
    _step("p90", "90th percentile, null below 10 samples,", lambda m: m.percentile(0.90)),
    _step("p99", "99th percentile, null below 100 samples,", lambda m: m.percentile(0.99)),
    _latency("p50", "median time of one batch; null if a step has several batches"),
    _latency("p90", "90th percentile of this time; null below 10 times"),
    _latency("p99", "99th percentile of this time; null below 100 times", column="p99"),
    _latency("p999", "99.9th percentile of this time; null below 1000 times"),
    Field("samples", "number of samples", value=lambda m: len(m.samples.seconds)),
    Field(
        "steps_per_sample",
        "steps that share one sample, for steps below 20 us",
        value=lambda m: m.samples.steps_per_sample,
    ),
    Field(
        "noise_percent",
        f"half the range of the medians of six blocks of samples; null below {FEWEST} samples",
        "%",
        lambda m: known_noise_percent(m.samples.seconds),
        rate=True,
        needed=True,
        column="noise",
        junit=True,
    ),
    Field(
        "drift_percent",
        f"how much slower the last third of the samples is than the first; null below {FEWEST} samples",
        "%",
        lambda m: drift_percent(m.samples.seconds),
        rate=True,
    ),
    Field(
        "autocorrelation",
        "correlation of the ranks of consecutive samples: 0 if they are independent, 1 if each is as the one before",
        value=lambda m: autocorrelation(m.samples.seconds),
        rate=True,
    ),
    Field("cycles", "cycles of one tile in the last call, with --cycle-count on an IPU"),
    Field(
        "sdk_latency_s",
        "mean time from host to host in the last call, by the SDK's time stamps of 1 ms; IPU only",
        "s",
        rate=True,
    ),
    Field(
        "memory_peak_bytes",
        "peak resident memory of the worker while it was timed, with the framework and what earlier cases left",
        "bytes",
    ),
    Field("memory_case_bytes", "what of that came since before the case was compiled", "bytes"),
    Field(
        "memory_floor_bytes",
        "resident memory before the case was compiled, with the framework loaded and what earlier cases left",
        "bytes",
    ),
    Field("memory_loaded_bytes", "resident memory after the second step", "bytes"),
    Field(
        "process_start_s",
        "from the start of the worker until it is ready: the interpreter and the suite; null if it ran a case before",
        "s",
    ),
    Field("import_s", "time of importing the framework; null if it was imported before", "s"),
    Field("graph_s", "time of recording the graph", "s"),
    Field("weights_s", "time of drawing or reading weights, and of drawing inputs", "s"),
    Field("compile_s", "time of lowering, compiling, loading and the first step", "s"),
    Field("first_step_s", "the first step alone, in which some frameworks compile", "s"),
    Field("second_step_s", "the second step", "s"),
    Field(
        "cold",
        "with --cold: the fields from memory_floor_bytes to second_step_s of each fresh process, by the state of the"
        " framework's caches: cold (empty) or warm",
    ),
    Field("warmup_steps", "steps before the first sample", value=lambda m: m.samples.warmup_steps),
    Field("warmup_s", "time before the first sample", "s", lambda m: m.samples.warmup_s),
    Field("steady", "whether the warm-up ended because steps stopped getting faster", value=lambda m: m.samples.steady),
    # Costs, and the roofline.
    Field("parameters", "number of trained weights", value=lambda m: m.graph.parameters if m.computes else None),
    Field(
        "flops_per_item",
        "2 x multiply-accumulates of dense, convolution and gates; three times that in training",
        "FLOP",
        lambda m: m.per_item(m.flops),
    ),
    Field(
        "bytes_per_item",
        "bytes of inputs, weights and output; weights count twice in training",
        "bytes",
        lambda m: m.per_item(m.bytes_moved),
    ),
    Field("tflops", "achieved arithmetic", "1e12 FLOP/s", lambda m: m.per_second(m.flops, 1e12), rate=True),
    Field(
        "gbytes_per_s",
        "achieved bandwidth of those bytes",
        "1e9 bytes/s",
        lambda m: m.per_second(m.bytes_moved, 1e9),
        rate=True,
    ),
    Field(
        "percent_of_peak",
        "roofline time / step_median_s; the roofline is measured on this machine",
        "%",
        rate=True,
        column="of peak",
    ),
    Field(
        "peak_tflops",
        "fastest matrix product or convolution of any installed library, in this precision, with these threads",
        "1e12 FLOP/s",
    ),
    Field("peak_gbytes_per_s", "fastest copy or read in calibration, of a working set of this size", "1e9 bytes/s"),
    Field(
        "peak_library",
        "what reached the tighter of the two, a library and its kernel or a case that raised it, and the rate",
    ),
    Field("peak_raised", "whether this case was faster than the measured peak and raised it"),
    # The profile, with --profile.
    Field(
        "profile",
        "what each operation of the graph costs: names, kernels, calls of the first kernel, seconds, share of the step,"
        " FLOP, and rates as above; the largest first, and at last what is outside of operations; null: not profiled",
        rate=True,
    ),
    Field("profile_step_s", "the measured time of one run, of which the shares are", "s", rate=True),
    Field(
        "profile_profiled_s",
        "the mean time of the profiled runs from which the seconds are: the third that is nearest to the measured time",
        "s",
        rate=True,
    ),
    Field("profile_trace", "file name of the framework's own trace, in the folder of --profile"),
    Field("profile_note", "why there is no profile, or no trace; null: there is, or none was asked for"),
    Field("core_hz", "clock of a core, measured before and after the case; the higher one", "Hz"),
    # Replicas.
    Field(
        "scaling_percent",
        "rate in percent of `replicas` times the rate of one replica in the same run",
        "%",
        rate=True,
        column="scaling",
    ),
    Field(
        "all_reduce_percent",
        "share of a step that the all-reduce of gradients adds; zero if steps without it were no faster",
        "%",
        rate=True,
        column="all-reduce",
        schema_1="communication_percent",
    ),
    # Checks of the machine and of the result.
    Field(
        "canary_slowdown_before",
        "largest slowdown of the canaries that the case depends on, before the case",
        schema_1="canary_before",
    ),
    Field("canary_slowdown_after", "the same, after the case", schema_1="canary_after"),
    Field(
        "canary_kind", "the kernel that was slowed down most: arithmetic, level2, level3, memory, latency or threads"
    ),
    Field(
        "others_percent",
        "what other processes and a hypervisor took of the cores in the warm-up and the timed section; null: not known",
        "%",
    ),
    Field(
        "disturbed",
        f"others took more than {MOST_PERCENT:g} % of the cores, or a canary was too slow: no verdict, no baseline",
        needed=True,
        junit=True,
    ),
    Field(
        "processes",
        "the processes that were measured: start, rate, noise, `disturbed` and `steady` of each. The other fields are"
        " those of the process with the median rate",
    ),
    Field("load_average_1min", "load average over one minute, before the case", schema_1="load"),
    Field("relative_error", "norm of the output's error / norm of the float64 reference", schema_1="error"),
    Field("gradient_error", "error of the weight update along random directions / its norm; null without training"),
    Field("tolerance", "largest `relative_error` that the check allows"),
    Field("checked_rows", "rows of the batch that were checked"),
    Field("checked_size", "shape of the first input that was checked"),
    Field(
        "rechecked",
        "with what the output was compared after the clock, on inputs that the program had not seen: reference, the"
        " float64 reference; itself, the program's own output before the clock; null: it cannot be compared",
    ),
    Field("rechecked_error", "norm of the output's error in this / norm of what it was compared with"),
    Field("weights_note", "how the names in the file of --weights differ from the network's; null: they do not"),
    # Real images.
    Field("data_dir", "folder of the set of images; only for real images, like the next eleven"),
    Field("images_skipped", "bad images that were skipped, over all replicas"),
    Field("pipeline_items_per_s", "rate of the input pipeline alone", "items/s", rate=True),
    Field("transfer_s_per_item", "time that moving decoded images to the device adds to a step", "s/item", rate=True),
    Field("compute_s_per_item", "time of a step on images that are on the device already", "s/item", rate=True),
    Field("bound_by", "the slowest of these three", rate=True),
    Field("top1_percent", "top-1: validation images whose most likely class is right", "%"),
    Field("top5_percent", "top-5: validation images with the right class among the five most likely", "%"),
    Field("images_scored", "number of these validation images"),
    Field("epochs", "epochs of training before the losses and top-1 and top-5 were computed"),
    Field("loss_first", "mean loss of the first ten updates"),
    Field("loss_last", "mean loss of the last ten updates"),
    # What was measured, and how.
    Field("graph", "fingerprint of the graph", value=lambda m: m.graph.fingerprint, needed=True, matched=True),
    Field("settings", "fingerprint of the settings below and of the backend's facts", needed=True, matched=True),
    *(Field(name, setting.text, matched=True) for name, setting in RECORDED.items()),
    Field(
        "global_batch",
        "items of one weight update; in inference, items of one batch",
        "items",
        lambda m: m.global_batch,
    ),
    Field("not_compiled", "why the tuning's compiler was not used; null where it was, or is not asked for"),
    Field(
        "removed_variables",
        "environment variables that place threads, with their values: removed, as --pin binds workers; or null",
        value=lambda m: environment.removed(),
    ),
    Field("batches_in_flight", "batches that run at once"),
    Field("host", "name of the worker's machine", value=lambda m: platform.node()),
    Field(
        "machine",
        "CPU model, microcode, usable cores, kernel, governor and memory of the worker's machine",
        value=lambda m: machine.facts(),
        matched=True,
    ),
    Field("framework_version", "version of the backend's framework", needed=True, matched=True),
    Field(
        "libraries",
        "versions of numpy and of what else the framework computes with",
        value=lambda m: machine.libraries(backends.load(m.case.backend).libraries),
        matched=True,
    ),
    Field(
        "environment",
        "variables of the environment that change a rate and that the suite did not set; null: none",
        value=lambda m: environment.found(),
        matched=True,
    ),
    Field("python_version", "Python version of the worker", value=lambda m: platform.python_version(), matched=True),
    Field("interpreter", "path of the worker's Python", value=lambda m: sys.executable),
    Field("revision", "git commit of the suite; null: it is not in git"),
    Field("started_s", "start of the timed section, since 1970", "s"),
    Field("ended_s", "end of the timed section, since 1970", "s"),
)
FIELDS: Dict[str, Field] = {field.name: field for field in _ROWS}

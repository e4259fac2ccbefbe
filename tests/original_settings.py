"""What the original programs set for every command of the READMEs, and where our options hold the same.

`docs/original_settings.json` has each program's defaults by its own option names. What a command sets is these, then
what the command's line says, then what follows from both. Nothing here looks at our lines.
"""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Tuple

from bench.backends._ipu import variables
from bench.cases import poplar
from bench.cases.case import Case
from bench.workloads import network
from fixtures import options

ROOT = Path(__file__).resolve().parents[1]
DATA: Dict[str, Any] = json.loads((ROOT / "docs" / "original_settings.json").read_text())
# poprun's own, which stand in front of our line as they are.
LAUNCHER = ("num-instances", "numa-aware", "mpi-global-args", "mpi-local-args")
PRECISIONS = {"16.16": "fp16", "16.32": "fp16m", "32.32": "fp32", "half": "fp16", "full": "fp32"}


def split(original: str) -> Tuple[str, str]:
    """The launcher of a command, and the program with its options."""
    start = re.search(r"\bpython3? ", original)
    assert start is not None, original
    return original[: start.start()].strip(), original[start.start() :]


def given(text: str) -> Dict[str, Any]:
    """The options of a command line: True without a value, a list for several."""
    found: Dict[str, Any] = {}
    values: List[str] = []
    for word in shlex.split(text):
        if word.startswith("--"):
            name, _, value = word[2:].partition("=")
            values = [value] if value else []
            found[name] = values
        else:
            values.append(word)
    return {name: True if not value else value[0] if len(value) == 1 else value for name, value in found.items()}


def effective(command: Mapping[str, Any], original: str) -> Dict[str, Any]:
    """Every setting of a command, by the name that the program has for it."""
    program = DATA["programs"][command["program"]]
    launcher, line = split(original)
    said = {_whole(name, program): value for name, value in given(line).items()}
    also = command.get("also", {})
    found = dict(program["defaults"])
    for rule in program.get("by", []):
        if _holds(rule["if"], {**found, **said, **also}):
            found.update(rule["then"])
    found.update(said)
    found.update(also)
    for name, condition in program.get("only_with", {}).items():
        if not _holds(condition, found):
            del found[name]
    told = {name: value for name, value in given(launcher).items() if name not in LAUNCHER}
    if told:
        del found["replicas"]
    found.pop("program", None)
    return {**found, **told}


def _whole(name: str, program: Mapping[str, Any]) -> str:
    """The option that a name or its beginning stands for, as argparse reads it."""
    known = {"epochs", "pipeline-splits", *program["defaults"]}
    longer = [option for option in known if option.startswith(name)]
    return longer[0] if name not in known and len(longer) == 1 else name


def _holds(condition: Mapping[str, Any], found: Mapping[str, Any]) -> bool:
    return all(found.get(name) == value for name, value in condition.items())


def plain(value: Any) -> Any:
    """A value as it is compared: numbers as numbers, several as a list, nothing given as None."""
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value] or None
    if isinstance(value, bool) or value is None:
        return value
    try:
        return float(value)
    except ValueError:
        return value


def no_equal(name: str, program: str) -> bool:
    """Whether the page says that a setting has no equal here."""
    return any(name in entry["options"] and program in entry.get("programs", [program]) for entry in DATA["no_equal"])


@dataclass(frozen=True)
class Ours:
    """What one of our lines comes to."""

    options: options.Options
    case: Case

    def size(self, name: str) -> Any:
        return self.case.dimensions[name]

    def on(self, name: str) -> bool:
        return self.case.dimensions[name] == "on"

    @property
    def precision(self) -> str:
        return self.case.precision

    @property
    def stages(self) -> int:
        return len(self.options.pipeline_splits) + 1

    @property
    def recipe(self) -> Any:
        return self.options.recipe

    @property
    def poplar(self) -> poplar.Poplar:
        return self.options.poplar

    @property
    def engine(self) -> Dict[str, str]:
        return variables.engine_options(self.options.settings(timed=True))

    @property
    def batch_size(self) -> Any:
        sizes = self.options.batch_sizes or [self.case.batch_size]
        return sizes if len(sizes) > 1 else sizes[0]

    @property
    def normalised_on(self) -> str:
        there = self.on("eight_bit_io") or self.size("normalization_location") == "device"
        return "device" if there else "host"


def case_of(found: options.Options, command: str, line: str) -> Case:
    """The first case of a line, of the workload that `-k`, which the options do not see, would leave."""
    wanted = command.partition(" ")[2] if " -k " in line else ""
    return next(case for case in found.selection().cases() if case.workload == (wanted or case.workload))


def _none(value: Any) -> Any:
    return value or None


# The value of each original setting as our options hold it, in the program's own terms.
EQUAL: Dict[str, Callable[[Ours], Any]] = {
    # layers
    "use-data": lambda it: it.options.data == "generated",
    "use-generated-data": lambda it: it.options.data == "generated",
    "synthetic values": lambda it: "zeros" if it.options.zero_values else "random",
    "use-zero-values": lambda it: it.options.zero_values,
    "train": lambda it: it.case.mode == "training",
    "mode": lambda it: {"inference": "infer", "eval": "eval", "training": "train"}[it.case.mode],
    "save-graph": lambda it: bool(it.options.export_onnx),
    "report": lambda it: bool(it.poplar.profile),
    "convolution-options": lambda it: _none(it.poplar.partials_type_conv or it.poplar.available_memory_proportion),
    "lstm-options": lambda it: _none(it.poplar.partials_type_matmul or it.poplar.available_memory_proportion),
    "simulation": lambda it: it.poplar.ipu_model,
    "report-hw-cycle-count": lambda it: it.poplar.cycle_count,
    "device-id": lambda it: -1 if it.poplar.device_id is None else it.poplar.device_id,
    "popnn": lambda it: it.size("rnn_impl") == "fused",
    "bias": lambda it: it.on("bias"),
    "timesteps": lambda it: it.size("timesteps"),
    "hidden-size": lambda it: it.size("hidden_size"),
    "input-size": lambda it: it.size("input_size"),
    "num-layers": lambda it: it.size("num_layers"),
    "filter-in": lambda it: it.size("filter_in"),
    "filter-out": lambda it: it.size("filter_out"),
    "channel-size": lambda it: it.size("filter_in"),
    "filter-number": lambda it: it.size("filter_out"),
    "kernel-size": lambda it: it.size("kernel_size"),
    "stride": lambda it: it.size("stride"),
    "padding": lambda it: it.size("padding"),
    "input-width": lambda it: it.size("input_width"),
    "input-height": lambda it: it.size("input_height"),
    "block-repeats": lambda it: it.size("block_repeats"),
    "size": lambda it: it.size("units"),
    "include-activation": lambda it: it.size("activation") == "relu",
    "hmc-steps": lambda it: it.size("hmc_steps"),
    "leapfrog-steps": lambda it: it.size("leapfrog_steps"),
    "precision of inputs": lambda it: {"fp16": "16.16", "fp32": "32.32"}[it.precision],
    "autoReport.all": lambda it: it.engine.get("autoReport.all"),
    "autoReport.directory": lambda it: it.engine.get("autoReport.directory"),
    # how much, and where
    "batch-size": lambda it: it.batch_size,
    "batches-per-step": lambda it: it.options.batches_per_step,
    "device-iteration": lambda it: it.options.batches_per_step,
    "device-iterations": lambda it: it.options.batches_per_step,
    "updates of a call": lambda it: it.options.batches_per_step,
    "steps": lambda it: it.options.steps,
    "iterations": lambda it: it.options.steps,
    "repeat": lambda it: it.options.steps,
    "epochs": lambda it: it.recipe.epochs,
    "replicas": lambda it: it.case.replicas,
    "num-replicas": lambda it: it.case.replicas,
    "ipus-per-replica": lambda it: it.stages,
    "shards": lambda it: it.stages,
    "pipeline": lambda it: it.stages > 1,
    "pipeline-splits": lambda it: _one(tuple(it.options.pipeline_splits)),
    # networks
    "model-size": lambda it: re.findall(r"\D(\d+)(?:_|$)", it.case.workload)[0],
    "convolution-groups": lambda it: int(it.case.workload.split("_")[1].split("x")[0]),
    "width of a group": lambda it: int(it.case.workload.split("x")[-1].rstrip("d")),
    "config": lambda it: it.options.preset.name,
    "dataset": lambda it: {1000: "imagenet", 10: "cifar-10"}[it.size("classes")],
    "image-size": lambda it: it.size("image_size"),
    "image size": lambda it: it.size("image_size"),
    "batch-norm": lambda it: it.size("norm_type") == "batch",
    "normlayer": lambda it: it.size("norm_type"),
    "norm-type": lambda it: it.size("norm_type"),
    "groups": lambda it: it.size("norm_num_groups"),
    "groupnorm-group-num": lambda it: it.size("norm_num_groups"),
    "norm-num-groups": lambda it: it.size("norm_num_groups"),
    "enable-fast-groupnorm": lambda it: it.on("enable_fast_groupnorm"),
    "group-dim": lambda it: it.size("group_dim"),
    "expand-ratio": lambda it: it.size("expand_ratio"),
    "efficientnet-group-dim": lambda it: it.size("group_dim"),
    "efficientnet-expand-ratio": lambda it: it.size("expand_ratio"),
    "norm-epsilon": lambda it: _epsilon(it),
    "norm-eps": lambda it: _epsilon(it),
    "input-image-padding": lambda it: it.on("input_image_padding"),
    "padding of convolutions": lambda it: {"same": "SAME"}.get(it.size("padding_rule")),
    "eight-bit-io": lambda it: it.on("eight_bit_io"),
    "hostside-norm": lambda it: it.normalised_on == "host",
    "normalization-location": lambda it: {"device": "ipu", "host": "host"}[it.normalised_on],
    # data
    "data": lambda it: it.options.data,
    "data-dir": lambda it: it.options.data_dir,
    "generated-data": lambda it: it.options.data == "generated",
    "synthetic-data": lambda it: it.options.data == "synthetic",
    # numbers
    "precision": lambda it: it.precision,
    "model": lambda it: it.case.workload,
    "enable-half-partials": lambda it: it.options.half_partial,
    "half-partial": lambda it: it.options.half_partial,
    "no-stochastic-rounding": lambda it: not it.poplar.stochastic_rounding,
    "stochastic rounding": lambda it: {True: "on", False: "off", None: None}[it.poplar.stochastic_rounding],
    "stable-norm": lambda it: it.options.stable_norm,
    "loss-scaling": lambda it: it.recipe.loss_scaling,
    # training
    "gradient-accumulation-count": lambda it: it.recipe.gradient_accumulation,
    "optimiser": lambda it: {"rmsprop_tf": "RMSprop", "sgd": "SGD"}.get(it.recipe.optimiser, it.recipe.optimiser),
    "momentum": lambda it: it.recipe.momentum,
    "rmsprop-decay": lambda it: it.recipe.rmsprop_decay,
    "rmsprop-epsilon": lambda it: it.recipe.epsilon,
    "weight-decay": lambda it: it.recipe.weight_decay,
    "base-learning-rate": lambda it: it.recipe.base_learning_rate_exponent,
    "abs-learning-rate": lambda it: it.recipe.learning_rate,
    "lr-schedule": lambda it: it.recipe.lr_schedule,
    "warmup-epochs": lambda it: it.recipe.warmup_epochs,
    "learning-rate-decay": lambda it: it.recipe.lr_decay,
    "learning-rate-schedule": lambda it: [epoch / it.recipe.epochs for epoch in it.recipe.lr_epoch_decay],
    "lr-decay-rate": lambda it: it.recipe.lr_decay,
    "lr-drops": lambda it: it.recipe.lr_drops,
    "label-smoothing": lambda it: it.recipe.label_smoothing,
    "label-smoothing over": lambda it: _smoothed_over(it),
    "mixup-alpha": lambda it: it.recipe.mixup_alpha,
    "cutmix-lambda": lambda it: it.recipe.cutmix_lambda,
    "weight-avg-exp": lambda it: _none(it.recipe.weight_avg_exp),
    "weight-avg-N": lambda it: _none(it.recipe.weight_avg_n),
    "xla-recompute": lambda it: it.recipe.recompute == "auto",
    "no-validation": lambda it: not it.options.validation,
    # IPUs
    "available-memory-proportion": lambda it: _one(it.poplar.available_memory_proportion),
    "internal-exchange-optimisation-target": lambda it: _none(it.poplar.internal_exchange_target),
    "exchange-memory-target": lambda it: _none(it.poplar.internal_exchange_target),
    "pipeline-schedule": lambda it: it.poplar.pipeline_schedule.capitalize(),
    "disable-variable-offloading": lambda it: it.poplar.variable_offloading is False,
    "enable-conv-dithering": lambda it: it.poplar.conv_dithering,
    "max-cross-replica-buffer-size": lambda it: it.poplar.max_cross_replica_buffer_size,
    "num-io-tiles": lambda it: it.poplar.num_io_tiles,
    "exchange.enablePrefetch": lambda it: it.engine.get("exchange.enablePrefetch"),
    "select-ipu": lambda it: "AUTO" if it.poplar.device_id is None else it.poplar.device_id,
    "gc-profile": lambda it: _none(it.poplar.profile),
    "profile": lambda it: bool(it.poplar.profile),
    "model-cache-path": lambda it: _none(it.poplar.executable_cache),
}


# Where the two sides have other words for one thing.
WORDED: Dict[str, Callable[[Ours, Any], bool]] = {
    "model": lambda it, theirs: it.case.workload.startswith(str(theirs).replace("-", "_")),
    "precision": lambda it, theirs: it.precision == PRECISIONS[theirs],
    "data-dir": lambda it, theirs: bool(it.options.data_dir) and it.options.data == "real",
    "label-smoothing over": lambda it, theirs: not it.recipe.label_smoothing or _smoothed_over(it) == theirs,
}


def _one(values: Tuple[Any, ...]) -> Any:
    return values[0] if len(values) == 1 else _none(values)


def _epsilon(ours: Ours) -> float:
    text = ours.size("norm_eps")
    return float(network.models()[ours.case.workload].family.EPS if text == "family" else text)


def _smoothed_over(ours: Ours) -> str:
    return {"tensorflow": "the other classes", "torch": "all classes"}[ours.recipe.label_smoothing_definition]


def same(name: str, expected: Any, ours: Ours) -> bool:
    """Whether our options hold a setting."""
    if name in WORDED:
        return WORDED[name](ours, expected)
    return bool(plain(EQUAL[name](ours)) == plain(expected))

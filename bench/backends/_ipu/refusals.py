"""Options that one of the IPU backends does not support, and another does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable

from bench.cases.case import Case, Settings
from bench.cases.errors import Unavailable
from bench.cases.ipu_rules import stages
from bench.graph import Graph


@dataclass(frozen=True)
class Refusal:
    """An option, the cases that it applies to, and why a backend does not support it; empty: it does."""

    option: str
    applies: Callable[[Graph, Case, Settings], bool]
    poptorch: str = ""
    popart: str = ""
    tensorflow_ipu: str = ""


def _scheduled(schedule: str) -> Callable[[Graph, Case, Settings], bool]:
    return lambda graph, case, settings: settings.poplar.pipeline_schedule == schedule


def _trained(applies: Callable[[Graph, Case, Settings], bool]) -> Callable[[Graph, Case, Settings], bool]:
    return lambda graph, case, settings: case.mode == "training" and applies(graph, case, settings)


ONE_SCHEDULE = "PopART has its own schedule, and sequential"
NO_BLOCKS = "{workload} has no blocks to be cut between"
REFUSALS = (
    Refusal("--pipeline-schedule grouped", _scheduled("grouped"), popart=ONE_SCHEDULE),
    Refusal(
        "--pipeline-schedule interleaved",
        _scheduled("interleaved"),
        poptorch="PopTorch has grouped and sequential",
        popart=ONE_SCHEDULE,
    ),
    Refusal(
        "--num-io-tiles",
        lambda graph, case, settings: settings.poplar.num_io_tiles > 0,
        popart="PopART supports them for inputs of its builder, not of an ONNX file",
    ),
    Refusal(
        "--num-io-tiles in a pipeline",
        lambda graph, case, settings: (
            settings.poplar.num_io_tiles > 0
            and stages(settings) > 1
            and settings.poplar.pipeline_schedule != "sequential"
        ),
        poptorch="PopTorch supports it with --pipeline-schedule sequential",
    ),
    Refusal(
        "--max-cross-replica-buffer-size",
        lambda graph, case, settings: settings.poplar.max_cross_replica_buffer_size is not None,
        poptorch="PopTorch has no such setting",
        popart="PopART has no such setting",
    ),
    Refusal(
        "--no-all-reduce",
        _trained(lambda graph, case, settings: case.replicas > 1 and not settings.all_reduce),
        poptorch="PopTorch always averages the gradients of replicas",
        popart="PopART always averages the gradients of replicas",
    ),
    Refusal(
        "{workload} in a loop",
        _trained(lambda graph, case, settings: any(node.op == "scan" for node in graph.nodes)),
        popart="PopART has no gradient of ONNX's Scan",
    ),
    Refusal(
        "--optimiser lars",
        _trained(lambda graph, case, settings: settings.recipe.optimiser == "lars"),
        poptorch="PopTorch does not have it",
        popart="PopART does not have it",
    ),
    Refusal(
        "--epochs",
        _trained(lambda graph, case, settings: bool(settings.recipe.epochs) and settings.data == "real"),
        popart="PopART gives no logits of a network in training",
    ),
    Refusal(
        "--pipeline-splits",
        lambda graph, case, settings: stages(settings) > 1 and not graph.blocks,
        poptorch=NO_BLOCKS,
        popart=NO_BLOCKS,
        tensorflow_ipu=NO_BLOCKS,
    ),
    Refusal(
        "several values of --available-memory-proportion without --pipeline-splits",
        lambda graph, case, settings: len(settings.poplar.available_memory_proportion) > 1 and stages(settings) == 1,
        tensorflow_ipu="TensorFlow supports them for pipeline stages only",
    ),
    Refusal(
        "--recompute manual without --pipeline-splits",
        _trained(lambda graph, case, settings: settings.recipe.recompute == "manual" and stages(settings) == 1),
        tensorflow_ipu="TensorFlow has checkpoints in pipelines only",
    ),
    Refusal(
        "--recompute manual in an interleaved pipeline",
        _trained(
            lambda graph, case, settings: (
                settings.recipe.recompute == "manual" and settings.poplar.pipeline_schedule == "interleaved"
            )
        ),
        tensorflow_ipu="TensorFlow has checkpoints in other schedules only",
    ),
    Refusal(
        "--replicated-tensor-sharding without --variable-offloading",
        lambda graph, case, settings: (
            settings.poplar.replicated_tensor_sharding and settings.poplar.variable_offloading is False
        ),
        tensorflow_ipu="TensorFlow shards offloaded state only",
    ),
)


def require(backend: str, graph: Graph, case: Case, settings: Settings) -> None:
    """Raise Unavailable, with the name of the option, if a backend does not support the case. Uses no device."""
    for refusal in REFUSALS:
        reason = getattr(refusal, backend)
        if reason and refusal.applies(graph, case, settings):
            raise Unavailable(f"not supported: {refusal.option}: {reason}".format(workload=case.workload))

"""The rules that Poplar's SDK 3.4 has for an IPU case: how many IPUs it takes, and what is refused. Nothing here needs
the SDK."""

from __future__ import annotations

from typing import Tuple

from bench.cases.case import Case, Settings
from bench.cases.poplar import FEWEST_IO_TILES, MOST_IO_TILES, Poplar, option

# The backends that take a number of batches which is a multiple of their schedule's length; others take any number
# that fills the pipeline.
WHOLE_SCHEDULES = ("tensorflow_ipu",)
# Those whose pipelines take a share of memory for each stage forward, and then for each backward.
SHARES_BACKWARD = ("tensorflow_ipu",)


def stages(settings: Settings) -> int:
    """IPUs of one replica: the stages of its pipeline."""
    return len(settings.pipeline_splits.split(",")) + 1 if settings.pipeline_splits else 1


def ipus(case: Case, settings: Settings) -> int:
    """IPUs that a case takes."""
    return case.replicas * stages(settings)


def pipeline_unit(backend: str, schedule: str, stages: int, training: bool) -> Tuple[int, int]:
    """The fewest batches that fill a pipeline, and what their number must be a multiple of.

    In training these are batches of one weight update, in inference of one call.
    """
    if stages == 1 or schedule == "sequential":
        return 1, 1
    if backend in WHOLE_SCHEDULES:
        length = stages if schedule == "interleaved" or not training else 2 * stages
        return length, length
    return (2 * stages - 1 if training else stages), 1


def require(case: Case, settings: Settings) -> None:
    """Raise ValueError, naming the rule, for a combination that the SDK refuses, before any device is touched."""
    poplar, wanted = settings.poplar, ipus(case, settings)
    if wanted & (wanted - 1):
        raise ValueError(
            f"{case.replicas} replicas x {stages(settings)} IPUs are {wanted} IPUs; devices come in powers of two"
        )
    shares = poplar.available_memory_proportion
    twice = 2 if case.backend in SHARES_BACKWARD and case.mode == "training" else 1
    if len(shares) > 1 and len(shares) not in (stages(settings), twice * stages(settings)):
        raise ValueError(
            f"--available-memory-proportion has {len(shares)} values; give one, or one for each"
            f" of the {stages(settings)} IPUs of a replica"
        )
    if poplar.num_io_tiles and (poplar.num_io_tiles % 2 or not FEWEST_IO_TILES <= poplar.num_io_tiles <= MOST_IO_TILES):
        raise ValueError(
            f"--num-io-tiles {poplar.num_io_tiles}: an even number from {FEWEST_IO_TILES} to {MOST_IO_TILES},"
            f" or 0 for none"
        )
    if poplar.replicated_tensor_sharding and case.replicas == 1:
        raise ValueError("--replicated-tensor-sharding shares state among replicas; --replicas is 1")
    if case.mode != "training":
        for name in ("variable_offloading", "replicated_tensor_sharding"):
            if getattr(poplar, name):
                raise ValueError(f"{option(name)} is about training; --mode is {case.mode}")
    _require_simulable(case, poplar)
    _require_full_pipeline(case, settings)


def refusal(case: Case, settings: Settings) -> str:
    """What `require` says of a case; empty where it says nothing."""
    try:
        require(case, settings)
    except ValueError as error:
        return str(error)
    return ""


def _require_simulable(case: Case, poplar: Poplar) -> None:
    if poplar.ipu_model and case.replicas > 1:
        raise ValueError(f"--ipu-model simulates one replica, not {case.replicas}")
    if poplar.ipu_model and poplar.cycle_count:
        raise ValueError("--cycle-count reads a counter of the hardware; --ipu-model has none")
    if poplar.compile_only and poplar.ipu_model:
        raise ValueError("--compile-only needs no device, and no --ipu-model either")


def _require_full_pipeline(case: Case, settings: Settings) -> None:
    training = case.mode == "training"
    schedule = settings.poplar.pipeline_schedule
    fewest, multiple = pipeline_unit(case.backend, schedule, stages(settings), training)
    option = "--gradient-accumulation" if training else "--batches-per-step"
    batches = settings.recipe.gradient_accumulation if training else settings.batches_per_step
    if batches < fewest or batches % multiple:
        rule = f"a multiple of {multiple}" if multiple > 1 else f"at least {fewest}"
        raise ValueError(
            f"{option} {batches}: a {schedule or 'grouped'} pipeline of {stages(settings)} stages on {case.backend}"
            f" takes {rule}"
        )

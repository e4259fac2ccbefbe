"""The rules of Poplar's SDK 3.4 for an IPU case: how many IPUs it takes, and which cases are refused.

Nothing here needs the SDK.
"""

from __future__ import annotations

from typing import Tuple

from bench.cases.case import Case, Settings
from bench.cases.poplar import FEWEST_IO_TILES, MOST_IO_TILES, Poplar, option

# The backends whose number of batches must be a multiple of the schedule's length. Others need only fill the pipeline.
WHOLE_SCHEDULES = ("tensorflow_ipu",)
# The backends whose pipelines take a share of memory for the forward and for the backward pass of each stage.
SHARES_BACKWARD = ("tensorflow_ipu",)


def stages(settings: Settings) -> int:
    """The number of IPUs of one replica: one for each stage of its pipeline."""
    return len(settings.pipeline_splits.split(",")) + 1 if settings.pipeline_splits else 1


def ipus(case: Case, settings: Settings) -> int:
    """The number of IPUs that a case takes."""
    return case.replicas * stages(settings)


def pipeline_unit(backend: str, schedule: str, stages: int, training: bool) -> Tuple[int, int]:
    """Return the least number of batches that fills a pipeline, and the number of which it must be a multiple.

    In training these are the batches of one weight update, in inference those of one call.
    """
    if stages == 1 or schedule == "sequential":
        return 1, 1
    if backend in WHOLE_SCHEDULES:
        length = stages if schedule == "interleaved" or not training else 2 * stages
        return length, length
    return (2 * stages - 1 if training else stages), 1


def require(case: Case, settings: Settings) -> None:
    """Raise ValueError, with the rule, for a combination that the SDK refuses. No device is used."""
    poplar, count = settings.poplar, ipus(case, settings)
    if count & (count - 1):
        raise ValueError(
            f"{case.replicas} replicas x {stages(settings)} IPUs are {count} IPUs; devices come in powers of two"
        )
    shares = poplar.available_memory_proportion
    passes = 2 if case.backend in SHARES_BACKWARD and case.mode == "training" else 1
    if len(shares) > 1 and len(shares) not in (stages(settings), passes * stages(settings)):
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
    if poplar.combined_momentum and case.mode == "training" and settings.recipe.optimiser != "momentum":
        raise ValueError(f"--combined-momentum is for --optimiser momentum, not {settings.recipe.optimiser}")
    _require_simulable(case, poplar)
    _require_full_pipeline(case, settings)


def refusal(case: Case, settings: Settings) -> str:
    """The error of `require` as a text; empty if the SDK takes the case."""
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
    if poplar.compile_only and poplar.cycle_count:
        raise ValueError("--cycle-count reads a counter of the hardware; --compile-only runs nothing")


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

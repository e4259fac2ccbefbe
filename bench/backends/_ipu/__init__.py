"""What the three IPU backends share: batches of one call, copies that come back, facts, and who computed.

One call to an IPU runs `batches_per_step` batches (in training: weight updates of `gradient_accumulation` batches) on
each replica. Host arrays of a call are `count` batches, one behind the other.
"""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import math
import os
from dataclasses import replace
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

from bench.backends._ipu.variables import environment as poplar_environment
from bench.cases.case import Case, Settings
from bench.cases.errors import Refused, Wrong
from bench.cases.ipu_rules import pipeline_unit, stages
from bench.cases.precision import PRECISIONS, loss_scale
from bench.graph import Graph
from bench.program import Batches
from bench.workloads import blocks

DEVICES = ("ipu",)
MODES = ("inference", "eval", "training")


def unsupported(precision: str, mode: str, device: str) -> Optional[str]:
    types = PRECISIONS[precision]
    return f"an IPU has no bfloat16, which {precision} is" if "bfloat16" in (types.compute, types.weights) else None


def environment(settings: Settings, device: str) -> Dict[str, str]:
    return poplar_environment(settings, os.environ)


def checkable(case: Case, settings: Settings) -> Settings:
    """The settings of the program that is checked: every batch comes from the host and every output goes back, which
    synthetic data does not; and no more batches a call than the pipeline needs, or one weight update."""
    training = case.mode == "training"
    fewest, _ = pipeline_unit(case.backend, settings.poplar.pipeline_schedule, stages(settings), training)
    return replace(
        settings,
        data="generated",
        batches_per_step=1 if training else fewest,
        poplar=replace(settings.poplar, output_mode="all", stochastic_rounding=False),
    )


def output_mode(case: Case, settings: Settings) -> str:
    """What comes back of the batches of a call: all of a pass forward, the last of training, unless an option says
    otherwise."""
    return settings.poplar.output_mode or ("final" if case.mode == "training" else "all")


def partials(settings: Settings) -> Tuple[str, str]:
    """The types of partial sums of matrix products and of convolutions; empty: the SDK's."""
    half = "half" if settings.half_partial else ""
    return settings.poplar.partials_type_matmul or half, settings.poplar.partials_type_conv or half


def scale_of_loss(graph: Graph, case: Case, settings: Settings) -> float:
    """The factor on the loss, which goes out of the gradients again; 1 where nothing is trained."""
    if case.mode != "training":
        return 1.0
    return settings.recipe.loss_scaling or loss_scale(case.precision, max(1, math.prod(graph.output.shape)))


def facts(settings: Settings, output_mode: str, scale: float) -> Dict[str, Any]:
    """How a program was tuned, to be recorded; what is left to the SDK is not in it."""
    matmul, conv = partials(settings)
    known = {"output_mode": output_mode, "partials_matmul": matmul, "partials_conv": conv}
    return {**{name: fact for name, fact in known.items() if fact}, **({"loss_scale": scale} if scale != 1 else {})}


def count(case: Case, settings: Settings) -> int:
    """Batches of one call, over all replicas."""
    return settings.batches_per_step * settings.recipe.batches_per_update(case.mode) * case.replicas


def calls(batches: Batches, count: int) -> Iterator[Dict[str, Any]]:
    """The arrays of one call after another, by name, in shape (count, *shape of the graph). A sequence is taken round
    and round into one set of arrays, which every call gets; an iterator as it comes."""
    import numpy as np

    def stacked(some: Sequence[Mapping[str, Any]]) -> Dict[str, Any]:
        return {name: np.stack([batch[name] for batch in some]) for name in some[0]}

    if isinstance(batches, Sequence):
        return itertools.repeat(stacked([batches[index % len(batches)] for index in range(count)]))
    return (stacked(some) for some in iter(lambda: list(itertools.islice(batches, count)), []))


def last(copies: Any, alike: bool) -> Any:
    """The last of `copies` (count, *shape). Where all of them were fed the same, raise Wrong unless they are the same:
    a replica or an iteration that computes something else would not be seen otherwise."""
    import numpy as np

    copies = np.asarray(copies, np.float64)
    if alike:
        size = max(float(np.linalg.norm(copies[-1])), 1e-30)
        for index, copy in enumerate(copies):
            off = float(np.linalg.norm(copy - copies[-1])) / size
            if not off <= 1e-3:
                raise Wrong(
                    f"batch {index + 1} of {len(copies)} of a call is off by {off:.2g} from the last, fed alike"
                )
    return copies[-1]


def stage_of_block(graph: Graph, case: Case, settings: Settings) -> Dict[str, int]:
    """The stage of the pipeline, and so the IPU, of every block of a network, in order."""
    names = [name for name in settings.pipeline_splits.split(",") if name]
    firsts = blocks.resolve(case.workload, names) if names else []
    found, stage = {}, 0
    for block in graph.blocks:
        stage += block in firsts
        found[block] = stage
    return found


def popdist(part: str, case: Case, settings: Settings) -> Any:
    """A part of popdist where poprun started this process, as one instance of several; else None.

    Raises Refused where poprun was told other numbers than the case has.
    """
    if importlib.util.find_spec("popdist") is None:
        return None
    whole = importlib.import_module("popdist")
    if not whole.isPopdistEnvSet():
        return None
    if not _initialised:
        whole.init()
        _initialised.append(True)
    replicas, ipus = whole.getNumLocalReplicas(), whole.getNumIpusPerReplica()
    if (replicas, ipus) != (case.replicas, stages(settings)):
        raise Refused(
            f"poprun gives an instance {replicas} replicas of {ipus} IPUs, and the case has {case.replicas} of"
            f" {stages(settings)}: --num-replicas is --replicas, --ipus-per-replica the stages of a pipeline"
        )
    return importlib.import_module(f"popdist.{part}")


_initialised: List[bool] = []


def source(sdk: Any, settings: Settings) -> str:
    """Who computes: the hardware, a simulation, or what stands in for the SDK."""
    if getattr(sdk, "__fake__", False):
        return "fake"
    return "ipu_model" if settings.poplar.ipu_model else "measured"

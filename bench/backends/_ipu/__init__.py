"""What the three IPU backends share: the batches of a call, and the copies of its results.

One call to an IPU runs `batches_per_step` batches on each replica, or in training as many weight updates of
`gradient_accumulation` batches. The host arrays of a call have shape (batches of the call, *shape of the graph).
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
from bench.cases.poplar import STATE_STREAMS
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
    """The settings of the program that is checked.

    Every batch comes from the host and every output goes back, which synthetic data does not do. A call has as few
    batches as the pipeline allows, or one weight update. Rounding is not stochastic, and the optimiser's state can be
    reset.
    """
    training = case.mode == "training"
    fewest, _ = pipeline_unit(case.backend, settings.poplar.pipeline_schedule, stages(settings), training)
    session = {key: text for key, text in settings.poplar.session_options.items() if key not in STATE_STREAMS}
    return replace(
        settings,
        data="generated",
        batches_per_step=1 if training else fewest,
        poplar=replace(settings.poplar, output_mode="all", stochastic_rounding=False, session_options=session),
    )


def output_mode(case: Case, settings: Settings) -> str:
    """Which results of a call come back. The default is all in inference and eval, and the last one in training."""
    return settings.poplar.output_mode or ("final" if case.mode == "training" else "all")


def partials(settings: Settings) -> Tuple[str, str]:
    """The types of the partial sums of matrix products and of convolutions. An empty text is the SDK's default."""
    half = "half" if settings.half_partial else ""
    return settings.poplar.partials_type_matmul or half, settings.poplar.partials_type_conv or half


def scale_of_loss(graph: Graph, case: Case, settings: Settings) -> float:
    """The factor on the loss, by which the gradients are divided again; 1 if the case does not train."""
    if case.mode != "training":
        return 1.0
    return settings.recipe.loss_scaling or loss_scale(case.precision, max(1, math.prod(graph.output.shape)))


def call_shape(case: Case, settings: Settings) -> Tuple[int, int, int]:
    """The batches of one call: per step, accumulated in each weight update, and replicas."""
    return settings.batches_per_step, settings.recipe.batches_per_update(case.mode), case.replicas


def calls(batches: Batches, shape: Tuple[int, int, int]) -> Iterator[Dict[str, Any]]:
    """The arrays of one call after another, by name; `shape` is that of `call_shape`.

    A sequence is repeated in a cycle to fill one call, whose arrays are then used for every call. An iterator is
    consumed. Raises Refused where too few batches are left for a call.
    """
    count = math.prod(shape)
    if isinstance(batches, Sequence):
        yield from itertools.repeat(_stacked([batches[index % len(batches)] for index in range(count)]))
    while True:
        call = list(itertools.islice(batches, count))
        if len(call) < count:
            steps, accumulated, replicas = shape
            raise Refused(
                f"a call takes {steps} batches per step x {accumulated} accumulated x {replicas} replicas = {count}"
                f" batches; {len(call)} are left"
            )
        yield _stacked(call)


def _stacked(batches: Sequence[Mapping[str, Any]]) -> Dict[str, Any]:
    import numpy as np

    return {name: np.stack([batch[name] for batch in batches]) for name in batches[0]}


def last(copies: Any, identical: bool) -> Any:
    """The last result of a call, in float64; `copies` has shape (results, *shape of one).

    Raises Wrong if the results should be identical and differ by more than 1e-3, in the norm. Otherwise nobody would
    notice a replica or an iteration that computes something else.
    """
    import numpy as np

    copies = np.asarray(copies, np.float64)
    if identical:
        norm = max(float(np.linalg.norm(copies[-1])), 1e-30)
        for index, copy in enumerate(copies):
            error = float(np.linalg.norm(copy - copies[-1])) / norm
            if not error <= 1e-3:
                raise Wrong(
                    f"batch {index + 1} of {len(copies)} of a call is off by {error:.2g}: all have equal inputs"
                )
    return copies[-1]


def strided_norms(graph: Graph) -> bool:
    """Whether the group norms of a network have strided groups: all of them, or none."""
    return any(node.op == "group_norm" and node.attrs["strided"] for node in graph.nodes)


def stage_of_block(graph: Graph, case: Case, settings: Settings) -> Dict[str, int]:
    """The pipeline stage of every block of a network, which is also the number of its IPU."""
    names = [name for name in settings.pipeline_splits.split(",") if name]
    first_blocks = blocks.resolve(case.workload, names) if names else []
    stage_of: Dict[str, int] = {}
    stage = 0
    for block in graph.blocks:
        stage += block in first_blocks
        stage_of[block] = stage
    return stage_of


def popdist(part: str, case: Case, settings: Settings) -> Any:
    """A submodule of popdist if poprun started this process as one of several instances; otherwise None.

    Raises Refused if poprun's numbers of replicas and IPUs are not those of the case.
    """
    if importlib.util.find_spec("popdist") is None:
        return None
    module = importlib.import_module("popdist")
    if not module.isPopdistEnvSet():
        return None
    if not _initialised:
        module.init()
        _initialised.append(True)
    replicas, ipus = module.getNumLocalReplicas(), module.getNumIpusPerReplica()
    if (replicas, ipus) != (case.replicas, stages(settings)):
        raise Refused(
            f"poprun gives an instance {replicas} replicas of {ipus} IPUs, and the case has {case.replicas} of"
            f" {stages(settings)}: --num-replicas is --replicas, --ipus-per-replica the stages of a pipeline"
        )
    return importlib.import_module(f"popdist.{part}")


_initialised: List[bool] = []


def source(sdk: Any, settings: Settings) -> str:
    """What computes the results: hardware (measured), the simulator (ipu_model), or a fake of the SDK (fake)."""
    if getattr(sdk, "__fake__", False):
        return "fake"
    return "ipu_model" if settings.poplar.ipu_model else "measured"

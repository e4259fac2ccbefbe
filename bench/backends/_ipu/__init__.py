"""What the three IPU backends share: batches of one call, copies that come back, and who computed.

One call to an IPU runs `batches_per_step` batches (in training: weight updates of `gradient_accumulation` batches) on
each replica. Host arrays of a call are `count` batches, one behind the other.
"""

from __future__ import annotations

import importlib
import importlib.util
import itertools
from typing import Any, Dict, Iterator, List, Mapping, Sequence

from bench.cases import poplar
from bench.cases.case import Case, Settings
from bench.cases.errors import Refused, Wrong
from bench.graph import Graph
from bench.program import Batches
from bench.workloads import blocks


def count(case: Case, settings: Settings) -> int:
    """Batches of one call, over all replicas."""
    accumulated = settings.recipe.gradient_accumulation if case.mode == "training" else 1
    return settings.batches_per_step * accumulated * case.replicas


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
    told = (whole.getNumLocalReplicas(), whole.getNumIpusPerReplica())
    if told != (case.replicas, poplar.stages(settings)):
        raise Refused(
            f"poprun gives an instance {told[0]} replicas of {told[1]} IPUs, and the case has {case.replicas} of"
            f" {poplar.stages(settings)}: --num-replicas is --replicas, --ipus-per-replica the stages of a pipeline"
        )
    return importlib.import_module(f"popdist.{part}")


_initialised: List[bool] = []


def source(sdk: Any, settings: Settings) -> str:
    """Who computes: the hardware, a simulation, or what stands in for the SDK."""
    if getattr(sdk, "__fake__", False):
        return "fake"
    return "ipu_model" if settings.poplar.ipu_model else "measured"

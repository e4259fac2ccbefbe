"""How the programs that the suite re-creates timed: a row for each, by its name for --protocol.

All of them time each call by itself, and print the mean of the calls' rates. They differ in what they leave out:

    tensorflow_layers   one call before the clock starts; nothing of what is timed
    popart_layers       nothing, not even the first call: compiling is timed apart
    tensorflow_cnns     the first value, which includes compiling there
    pytorch_cnns        the first two calls; it prints the least and the largest rate and the standard deviation too

Source   Graphcore's TensorFlow and PopART kernel benchmarks (SDK 1.2 and 2.5), TensorFlow CNNs in training and in
         validation (SDK 2.0; its README says to drop the first value), PyTorch CNN inference (October 2020, SDK 2.4)
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import Dict, Optional, Sequence

from bench import workloads
from bench.cases.case import Case

FIELDS = tuple(f"protocol_{name}items_per_s" for name in ("", "min_", "max_", "std_"))


@dataclass(frozen=True)
class Protocol:
    """warmup_calls: before the first sample. dropped: of the samples, the first so many. spread: whether least, largest
    and standard deviation are printed. of_layers: whether layers count items, and average, as their programs did."""

    warmup_calls: int
    dropped: int
    spread: bool = False
    of_layers: bool = False


PROGRAMS = {
    "tensorflow_layers": Protocol(warmup_calls=1, dropped=0, of_layers=True),
    "popart_layers": Protocol(warmup_calls=0, dropped=0),
    "tensorflow_cnns": Protocol(warmup_calls=0, dropped=1),
    "pytorch_cnns": Protocol(warmup_calls=0, dropped=2, spread=True),
}
NAMES = ("median", *PROGRAMS)


def rates(name: str, case: Case, batches: float, seconds: Sequence[float]) -> Dict[str, Optional[float]]:
    """The rates that the program would print, by field; None where it has no such figure, and all of them where it
    drops every sample. `batches`: of all replicas, in each of the samples `seconds`."""
    none: Dict[str, Optional[float]] = dict.fromkeys(FIELDS)
    program = PROGRAMS.get(name)
    timed = seconds[program.dropped :] if program else []
    if not program or not timed:
        return none
    workload = workloads.load(case.workload)
    per_batch = workloads.items(case)
    if program.of_layers and workload.program_items:
        per_batch = workload.program_items(batch_size=case.batch_size, **case.dimensions)
    items = per_batch * batches
    every = [items / call_s for call_s in timed]
    mean = math.fsum(every) / len(every)
    if program.of_layers and workload.averages_seconds:
        mean = items * len(timed) / math.fsum(timed)
    spread = (min(every), max(every), statistics.pstdev(every)) if program.spread else (None, None, None)
    return dict(zip(FIELDS, (mean, *spread)))

"""Protocols: how the programs that the suite re-creates timed, by the names of --protocol.

All of them time each call, and print the mean of the calls' rates. They differ in the calls that they leave out:

    tensorflow_layers   one call before the first timed one
    popart_layers       none, not even the first call; compilation is separate
    tensorflow_cnns     the first timed call, which included compilation there
    pytorch_cnns        the first two timed calls; it also prints the least and largest rate and the standard deviation

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
    """How a program timed.

    warmup_calls   the number of calls before the first sample
    dropped        the number of first samples that it leaves out
    spread         it prints the least and largest rate, and the standard deviation
    of_layers      items are counted, and rates averaged, as the programs of the layers did
    """

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
    """The rates that the program would print, by field, in items per second. A rate that it does not print is None; all
    are None if it drops every sample.

    batches   the number of batches of all replicas in one sample
    seconds   the samples
    """
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
    per_call = [items / call_s for call_s in timed]
    mean = math.fsum(per_call) / len(per_call)
    if program.of_layers and workload.averages_seconds:
        mean = items * len(timed) / math.fsum(timed)
    spread = (min(per_call), max(per_call), statistics.pstdev(per_call)) if program.spread else (None, None, None)
    return dict(zip(FIELDS, (mean, *spread)))

"""One point of the matrix, and how it is to be measured. Plain data: it crosses to the worker."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Dict, List, Optional

from bench.cases.dimension import Value
from bench.cases.poplar import DEFAULT_POPLAR, Poplar
from bench.cases.recipe import PLAIN, Recipe

MODES = ("inference", "eval", "training")
DATA = ("synthetic", "generated", "real")
TUNINGS = ("best", "default")
AXES = ("workload", "size", "mode", "batch_size", "precision", "replicas", "backend", "device")


@dataclass(frozen=True)
class Case:
    """What is measured. `dimensions` are the values behind the name `size`; `batch_size` is per replica.

    own   where the workload comes from that is not one of the suite's: what `bench/workloads/own.py` tells of it
    """

    workload: str
    size: str
    dimensions: Dict[str, Value] = field(hash=False)
    mode: str
    batch_size: int
    precision: str
    replicas: int
    backend: str
    device: str
    own: Dict[str, str] = field(default_factory=dict, hash=False)

    @property
    def id(self) -> str:
        """`workload-size-mode-b<batch>-precision-x<replicas>-backend-device`, a public contract."""
        return (
            f"{self.workload}-{self.size}-{self.mode}-b{self.batch_size}-{self.precision}"
            f"-x{self.replicas}-{self.backend}-{self.device}"
        )

    def plain(self) -> Dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Settings:
    """How cases are measured. The first group is part of what a baseline must match.

    data               synthetic: resident on the device; generated: host arrays, transfer counted;
                       real: image files, decoding counted as well
    recipe             how a network is trained
    min_latency        one batch in flight, whatever that costs in throughput
    half_partial       16-bit sums in 16-bit products, where the device has a choice
    protocol           median; or the program whose rate stands beside ours (`bench/clock/protocol.py`)
    zero_values        inputs of zeros when timed
    batches_per_step   batches behind one blocking call
    tuning             best: the fastest honest settings known; default: the framework's own
    threads            threads of the framework's pools
    cores              the cores a worker is bound to; empty: not bound
    compile_cores      where to compile, beside others who do on cores of their own; empty: on `cores`
    steps              exactly so many timed steps; None: until the noise or the time budget says stop
    max_time_s, min_rounds   that budget, and the fewest samples
    min_warmup_s       warm up at least so long
    timed              False: compile and check only
    data_dir, data_workers, data_errors   real images: where, how many processes decode, stop or skip
    weights            a file of weights; empty: drawn
    pipeline_splits    where an IPU's pipeline is cut; recorded, and of no effect elsewhere
    poplar             what only an IPU can be told
    all_reduce         replicas average their gradients; False: each trains by itself
    validation         count hits behind --epochs
    export_onnx        a folder for the ONNX models; empty: none
    parallel_timing    others may be timed beside, on other cores
    ipus_held          IPUs that the process that runs pytest holds for this case already
    """

    data: str = "synthetic"
    zero_values: bool = False
    batches_per_step: int = 1
    tuning: str = "best"
    threads: int = 1
    cores: List[int] = field(default_factory=list)
    compile_cores: List[int] = field(default_factory=list)
    recipe: Recipe = PLAIN
    min_latency: bool = False
    half_partial: bool = False
    protocol: str = "median"
    steps: Optional[int] = None
    max_time_s: float = 1.0
    min_rounds: int = 5
    min_warmup_s: float = 0.0
    timed: bool = True
    data_dir: str = ""
    data_workers: Optional[int] = None
    data_errors: str = "stop"
    weights: str = ""
    pipeline_splits: str = ""
    poplar: Poplar = DEFAULT_POPLAR
    all_reduce: bool = True
    validation: bool = True
    export_onnx: str = ""
    parallel_timing: bool = False
    ipus_held: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.recipe, dict):  # it crossed to a worker
            object.__setattr__(self, "recipe", Recipe(**self.recipe))
        if isinstance(self.poplar, dict):
            object.__setattr__(self, "poplar", Poplar(**self.poplar))

    def plain(self) -> Dict[str, Any]:
        return asdict(self)

    @property
    def matched(self) -> Dict[str, Any]:
        """The settings that two results must share to be compared."""
        keys = ["data", "zero_values", "batches_per_step", "tuning", "threads", "cores"]
        keys += ["recipe", "min_latency", "half_partial", "protocol", "all_reduce"]
        found = {key: value for key, value in self.plain().items() if key in keys}
        # Not in the fingerprint of all that came before it. Which cores a case has is then a matter of chance.
        return {**found, "parallel_timing": True, "cores": len(self.cores)} if self.parallel_timing else found

"""One point of the matrix, and how it is to be measured. Plain data: it crosses to the worker."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Dict, List, Optional

from bench.size import Value

MODES = ("inference", "eval", "training")
DATA = ("synthetic", "generated")
TUNINGS = ("best", "default")
AXES = ("workload", "size", "mode", "batch_size", "precision", "replicas", "backend", "device")


@dataclass(frozen=True)
class Case:
    """What is measured. `dimensions` are the values behind the name `size`; `batch_size` is per replica."""

    workload: str
    size: str
    dimensions: Dict[str, Value] = field(hash=False)
    mode: str
    batch_size: int
    precision: str
    replicas: int
    backend: str
    device: str

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

    data               synthetic: resident on the device; generated: host arrays, transfer counted
    zero_values        inputs of zeros when timed
    batches_per_step   batches behind one blocking call
    tuning             best: the fastest honest settings known; default: the framework's own
    threads            threads of the framework's pools
    cores              the cores a worker is bound to; empty: not bound
    steps              exactly so many timed steps; None: until the noise or the time budget says stop
    max_time_s, min_rounds   that budget, and the fewest samples
    min_warmup_s       warm up at least so long
    timed              False: compile and check only
    """

    data: str = "synthetic"
    zero_values: bool = False
    batches_per_step: int = 1
    tuning: str = "best"
    threads: int = 1
    cores: List[int] = field(default_factory=list)
    steps: Optional[int] = None
    max_time_s: float = 1.0
    min_rounds: int = 5
    min_warmup_s: float = 0.0
    timed: bool = True

    def plain(self) -> Dict[str, Any]:
        return asdict(self)

    @property
    def matched(self) -> Dict[str, Any]:
        """The settings that two results must share to be compared."""
        keys = ("data", "zero_values", "batches_per_step", "tuning", "threads", "cores")
        return {key: value for key, value in self.plain().items() if key in keys}


class Unavailable(Exception):
    """A case cannot run here. The text starts with one of three reasons: not installed, not present,
    not supported."""


class Broken(Exception):
    """A framework is installed and does not load."""


class Wrong(Exception):
    """A case ran and its numbers are not to be trusted: it fails, and nothing of it is recorded."""

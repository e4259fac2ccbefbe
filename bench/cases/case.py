"""One point of the matrix, and how it is to be measured. Plain data: it crosses to the worker."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any, Callable, Dict, List, Mapping, Optional

from bench.cases.dimension import Value
from bench.cases.poplar import DEFAULT_POPLAR, Poplar
from bench.cases.recipe import DEFAULT_RECIPE, Recipe

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


def _everywhere(axes: Mapping[str, Any]) -> bool:
    return True


def _in_training(axes: Mapping[str, Any]) -> bool:
    return bool(axes["mode"] == "training")


def _on_ipus(axes: Mapping[str, Any]) -> bool:
    return bool(axes["device"] == "ipu")


def _as_it_is(value: Any) -> Any:
    return value


@dataclass(frozen=True)
class Recorded:
    """How a setting stands in a record. A baseline must match it.

    text      what it says, for docs/record.md
    matters   whether it has an effect on a case of these axes: without one it is recorded as empty, and not matched
    stored    what of its value stands in the record
    """

    text: str
    matters: Callable[[Mapping[str, Any]], bool] = _everywhere
    stored: Callable[[Any], Any] = _as_it_is


def _recorded(text: str, **how: Any) -> Dict[str, Recorded]:
    """The metadata of a setting that is recorded, and that a baseline must match."""
    return {"recorded": Recorded(text, **how)}


@dataclass(frozen=True)
class Settings:
    """How cases are measured. What is recorded says so itself; the others are

    compile_cores      where to compile, beside others who do on cores of their own; empty: on `cores`
    steps              exactly so many timed steps; None: until the noise or the time budget says stop
    max_time_s, min_rounds   that budget, and the fewest samples
    min_warmup_s       warm up at least so long
    timed              False: compile and check only
    data_dir, data_workers, data_errors   real images: where, how many processes decode, stop or skip
    first_label        the label of the first class in TFRecords and tars; None: as usual in the format
    weights            a file of weights; empty: drawn
    validation         count hits behind --epochs
    export_onnx        a folder for the ONNX models; empty: none
    ipus_held          IPUs that the process that runs pytest holds for this case already
    """

    data: str = field(
        default="synthetic",
        metadata=_recorded(
            "synthetic: resident on the device; generated: host arrays, transfer counted; real: image files, decoded"
        ),
    )
    zero_values: bool = field(default=False, metadata=_recorded("inputs of zeros when timed"))
    batches_per_step: int = field(default=1, metadata=_recorded("batches behind one blocking call"))
    tuning: str = field(
        default="best", metadata=_recorded("best: the fastest honest settings known; default: the framework's own")
    )
    threads: int = field(default=1, metadata=_recorded("threads of the framework's pools"))
    cores: List[int] = field(
        default_factory=list,
        metadata=_recorded(
            "cores that the worker was bound to; empty: not bound", stored=lambda cores: ",".join(map(str, cores))
        ),
    )
    recipe: Recipe = field(
        default=DEFAULT_RECIPE,
        metadata=_recorded(
            "how it is trained: what differs from the default recipe",
            matters=_in_training,
            stored=lambda recipe: recipe.non_defaults,
        ),
    )
    min_latency: bool = field(
        default=False, metadata=_recorded("one batch in flight, whatever that costs in throughput")
    )
    half_partial: bool = field(
        default=False, metadata=_recorded("16-bit sums in 16-bit products, where the device has a choice")
    )
    protocol: str = field(
        default="median", metadata=_recorded("median, or the program that was timed as: what is warmed up and dropped")
    )
    all_reduce: bool = field(
        default=True, metadata=_recorded("replicas average their gradients; false: each trains by itself")
    )
    pipeline_splits: str = field(
        default="", metadata=_recorded("where an IPU's pipeline is cut; empty elsewhere", matters=_on_ipus)
    )
    poplar: Poplar = field(
        default=DEFAULT_POPLAR,
        metadata=_recorded(
            "what an IPU is told: what differs from the defaults",
            matters=_on_ipus,
            stored=lambda poplar: poplar.non_defaults,
        ),
    )
    parallel_timing: bool = field(
        default=False, metadata=_recorded("others were timed beside, on other cores (--parallel-timing)")
    )

    compile_cores: List[int] = field(default_factory=list)
    steps: Optional[int] = None
    max_time_s: float = 1.0
    min_rounds: int = 5
    min_warmup_s: float = 0.0
    timed: bool = True
    data_dir: str = ""
    data_workers: Optional[int] = None
    data_errors: str = "stop"
    first_label: Optional[int] = None
    weights: str = ""
    validation: bool = True
    export_onnx: str = ""
    ipus_held: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.recipe, dict):  # it crossed to a worker
            object.__setattr__(self, "recipe", Recipe(**self.recipe))
        if isinstance(self.poplar, dict):
            object.__setattr__(self, "poplar", Poplar(**self.poplar))

    def plain(self) -> Dict[str, Any]:
        return asdict(self)

    def recorded(self, axes: Mapping[str, Any]) -> Dict[str, Any]:
        """The settings of a case of these axes as they stand in its record."""
        return {name: how.stored(getattr(self, name)) if how.matters(axes) else "" for name, how in RECORDED.items()}

    def matched(self, axes: Mapping[str, Any]) -> Dict[str, Any]:
        """What two results of these axes must share of the settings to be compared; its fingerprint is stored, so
        that the value of a setting that nobody has set must stay as it is."""
        plain = self.plain()
        values = {name: plain[name] for name, how in RECORDED.items() if how.matters(axes)}
        if "poplar" in values:
            values["poplar"] = self.poplar.non_defaults
        if self.parallel_timing:
            # Which cores a case has is then a matter of chance.
            return {**values, "cores": len(self.cores)}
        # Left out where it is off, as in the fingerprints that are older than this option.
        del values["parallel_timing"]
        return values


# How the settings that are recorded, and that a baseline must match, stand in a record.
RECORDED: Dict[str, Recorded] = {
    each.name: each.metadata["recorded"] for each in fields(Settings) if "recorded" in each.metadata
}

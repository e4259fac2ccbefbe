"""One point of the matrix, and the settings with which it is measured. Plain data, which is sent to the worker."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

from bench.cases.dimension import Value
from bench.cases.poplar import DEFAULT_POPLAR, Poplar
from bench.cases.recipe import DEFAULT_RECIPE, Recipe

MODES = ("inference", "eval", "training")
DATA = ("synthetic", "generated", "real")
TUNINGS = ("best", "default")
# The devices on which the settings of IPUs have an effect.
IPU = ("ipu",)
AXES = ("workload", "size", "mode", "batch_size", "precision", "replicas", "backend", "device")


@dataclass(frozen=True)
class Case:
    """What is measured. `size` is the name of `dimensions`; `batch_size` is per replica.

    own   the file of a user's workload, as `bench/workloads/own.py` sends it; empty for the suite's workloads
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
class Recorded:
    """How a setting is recorded. A baseline must match it.

    text            the explanation in docs/record.md
    training_only   it has an effect in training only
    devices         the devices on which it has an effect; empty: all
    stored          makes the value in the record from that of the setting
    """

    text: str
    training_only: bool = False
    devices: Tuple[str, ...] = ()
    stored: Callable[[Any], Any] = lambda value: value

    def matters(self, axes: Mapping[str, Any]) -> bool:
        """Whether it has an effect on a case of these axes. If not, it is recorded as empty and not matched."""
        if self.training_only and axes["mode"] != "training":
            return False
        return not self.devices or axes["device"] in self.devices


def _recorded(text: str, **options: Any) -> Dict[str, Recorded]:
    """The metadata of a setting that is recorded, and that a baseline must match."""
    return {"recorded": Recorded(text, **options)}


@dataclass(frozen=True)
class Settings:
    """How cases are measured. The texts of the recorded settings explain these; the others are

    compile_cores      the cores on which to compile while other cases compile on other cores; empty: `cores`
    steps              the exact number of timed steps; None: until the noise is low or the time budget is spent
    max_time_s, min_rounds   that budget in seconds, and the least number of samples
    min_warmup_s       the least time of the warm-up in seconds
    timed              False: compile and check only
    data_dir, data_workers, data_errors   real images: the folder, the number of processes that decode, stop or skip
    first_label        the label of the first class in TFRecords and tars; None: the format's usual one
    weights            a file of weights; empty: random weights
    validation         compute the accuracy after --epochs
    export_onnx        a folder for the ONNX models; empty: none
    profile            a folder for the traces of a profile after the timed section; empty: none
    caches             a folder for the framework's caches of compiled programs; empty: where the framework keeps them
    ipus_held          the number of IPUs that the harness already holds for this case
    """

    data: str = field(
        default="synthetic",
        metadata=_recorded(
            "synthetic: resident on the device; generated: host arrays, transfer counted; real: image files, decoded"
        ),
    )
    zero_values: bool = field(default=False, metadata=_recorded("inputs of zeros when timed"))
    batches_per_step: int = field(default=1, metadata=_recorded("batches of one blocking call"))
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
            "the non-default values of the recipe of training",
            training_only=True,
            stored=lambda recipe: recipe.non_defaults,
        ),
    )
    min_latency: bool = field(
        default=False, metadata=_recorded("one batch in flight, for the lowest latency at the cost of throughput")
    )
    half_partial: bool = field(
        default=False, metadata=_recorded("16-bit sums in 16-bit products, where the device has a choice")
    )
    protocol: str = field(
        default="median",
        metadata=_recorded("median, or the original program whose warm-up and dropped samples are imitated"),
    )
    all_reduce: bool = field(
        default=True, metadata=_recorded("replicas average their gradients; false: each trains by itself")
    )
    pipeline_splits: str = field(
        default="", metadata=_recorded("where an IPU's pipeline is cut; empty elsewhere", devices=IPU)
    )
    poplar: Poplar = field(
        default=DEFAULT_POPLAR,
        metadata=_recorded(
            "the non-default options of an IPU",
            devices=IPU,
            stored=lambda poplar: poplar.non_defaults,
        ),
    )
    parallel_timing: bool = field(
        default=False, metadata=_recorded("other cases were timed at the same time, on other cores (--parallel-timing)")
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
    profile: str = ""
    caches: str = ""
    ipus_held: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.recipe, dict):  # it was sent to a worker
            object.__setattr__(self, "recipe", Recipe(**self.recipe))
        if isinstance(self.poplar, dict):
            object.__setattr__(self, "poplar", Poplar(**self.poplar))

    def plain(self) -> Dict[str, Any]:
        return asdict(self)

    def recorded(self, axes: Mapping[str, Any]) -> Dict[str, Any]:
        """The settings of a case of these axes, as they are recorded."""
        return {
            name: setting.stored(getattr(self, name)) if setting.matters(axes) else ""
            for name, setting in RECORDED.items()
        }

    def matched(self, axes: Mapping[str, Any]) -> Dict[str, Any]:
        """The settings in which two comparable results of these axes agree.

        Their fingerprint is stored, so the default of a setting must not change.
        """
        plain = self.plain()
        values = {name: plain[name] for name, setting in RECORDED.items() if setting.matters(axes)}
        if "poplar" in values:
            values["poplar"] = self.poplar.non_defaults
        if self.parallel_timing:
            # A case then gets any free cores, so only their number is matched.
            return {**values, "cores": len(self.cores)}
        # Left out if it is off, as in fingerprints from before this option.
        del values["parallel_timing"]
        return values


# The recorded settings by name.
RECORDED: Dict[str, Recorded] = {
    setting.name: setting.metadata["recorded"] for setting in fields(Settings) if "recorded" in setting.metadata
}

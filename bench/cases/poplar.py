"""What only an IPU can be told: one set of options for all frameworks, and the rules that Poplar's SDK has for them.

Each backend translates `Poplar` into the settings of its framework; what it leaves unsaid stays the SDK's default.
Names, values and rules are those of SDK 3.4. Plain data: it crosses to the worker. Nothing here needs the SDK.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, Optional, Sequence, Tuple

from bench.registry import unknown

if TYPE_CHECKING:
    from bench.cases.case import Case, Settings

PARTIALS = ("half", "float")
EXCHANGE_TARGETS = ("cycles", "balanced", "memory")
SCHEDULES = ("grouped", "interleaved", "sequential")
OUTPUT_MODES = ("all", "final", "sum")
ARCHITECTURES = ("ipu1", "ipu2", "ipu21")
FEWEST_IO_TILES, MOST_IO_TILES = 32, 192

ENGINE_OPTIONS = tuple(
    """
    autoReport.all autoReport.directory autoReport.outputGraphProfile autoReport.outputExecutionProfile
    autoReport.outputDebugInfo autoReport.outputSerializedGraph autoReport.executionProfileProgramRunCount
    debug.allowOutOfMemory debug.retainDebugInformation debug.floatPointOpException
    exchange.enablePrefetch exchange.streamBufferOverlap profiler.format profiler.blocks.filter
    target.deterministicWorkers target.saveOutputVertexGraph target.syncReplicasIndependently
    opt.internalExchangeOptimisationTarget opt.maxCompilationThreads
    """.split()
)
RUNTIME_OPTIONS = tuple(
    """
    target.syncMethod target.syncPollPeriodUs target.exceptionPollPeriodUs target.hostSyncTimeout
    streamCallbacks.multiThreadMode streamCallbacks.numaAware streamCallbacks.numWorkerThreads
    """.split()
)
# TensorFlow for IPU ends the process at a flag that it does not know.
TF_FLAGS = tuple(
    """
    help use_synthetic_data synthetic_data_categories synthetic_data_initializer use_ipu_model ipu_model_tiles
    log_cycle_count while_loop_brute_force_max_trip_count max_compilation_threads max_infeed_threads
    executable_cache_path dump_schedule_as_dot tensor_map_file_path fallback_scheduler allow_nans null_data_feed
    show_progress_bar use_on_demand on_demand_device_poll_time on_demand_device_timeout sync_replica_start
    enable_hlo_verifier disable_poplar_version_check
    """.split()
)


@dataclass(frozen=True)
class Poplar:
    """Options of an IPU case. The second group says how and where it is run, and is not part of what a baseline
    must match.

    available_memory_proportion   share of a tile's memory that products may use for temporaries: one for all
                               IPUs of a replica, or one for each; TensorFlow's pipelines in training take
                               one for each stage forward and then backward as well
    partials_type_matmul, partials_type_conv   half or float: the type of partial sums
    internal_exchange_target   cycles, balanced or memory: what the exchange between tiles is optimised for
    prefetch                   False: no batch is fetched ahead, for the least latency
    num_io_tiles               tiles that only move data, while the others compute; 0: none
    stochastic_rounding        of 16-bit results; None: the SDK's default
    stable_norm                variance in two passes
    conv_dithering             spread convolutions over tiles that the others leave free
    variable_offloading        optimiser state in remote memory; None: the SDK's default
    replicated_tensor_sharding each replica keeps a share of what all hold
    pipeline_schedule          grouped, interleaved or sequential; empty: the framework's default
    output_mode                all, final or sum: what comes back of the batches of a call; empty: as the mode needs
    max_cross_replica_buffer_size   bytes of gradients that are summed over replicas at once
    engine_options, runtime_options   of Poplar, key to text
    cycle_count                read the device's own cycle counter

    ipu_model                  simulate: checked, never a rate
    compile_only               the architecture to compile for, without a device; empty: run
    executable_cache           a folder of compiled programs; empty: none
    device_id                  the device, as `gc-info -l` numbers it; None: any of the right size
    wait_s                     how long to wait for a free one, seconds
    profile                    a folder for PopVision's report; nothing is timed then
    """

    available_memory_proportion: Tuple[float, ...] = ()
    partials_type_matmul: str = ""
    partials_type_conv: str = ""
    internal_exchange_target: str = ""
    prefetch: bool = True
    num_io_tiles: int = 0
    stochastic_rounding: Optional[bool] = None
    stable_norm: bool = False
    conv_dithering: bool = False
    variable_offloading: Optional[bool] = None
    replicated_tensor_sharding: bool = False
    pipeline_schedule: str = ""
    output_mode: str = ""
    max_cross_replica_buffer_size: Optional[int] = None
    engine_options: Mapping[str, str] = field(default_factory=dict, hash=False)
    runtime_options: Mapping[str, str] = field(default_factory=dict, hash=False)
    cycle_count: bool = False

    ipu_model: bool = False
    compile_only: str = ""
    executable_cache: str = ""
    device_id: Optional[int] = None
    wait_s: float = 0.0
    profile: str = ""

    @property
    def told(self) -> str:
        """What differs from the defaults among what a baseline must match, as `name=value`."""
        plain = asdict(Poplar())
        own = {name: value for name, value in asdict(self).items() if name not in UNMATCHED and value != plain[name]}
        return ", ".join(f"{name}={value}" for name, value in own.items())


UNMATCHED = ("ipu_model", "compile_only", "executable_cache", "device_id", "wait_s", "profile")
PLAIN = Poplar()


def given(poplar: Poplar) -> List[str]:
    """The names of the options that are not at their defaults."""
    return [each.name for each in fields(Poplar) if getattr(poplar, each.name) != getattr(PLAIN, each.name)]


def stages(settings: Settings) -> int:
    """IPUs of one replica: the stages of its pipeline."""
    return len(settings.pipeline_splits.split(",")) + 1 if settings.pipeline_splits else 1


def ipus(case: Case, settings: Settings) -> int:
    """IPUs that a case takes."""
    return case.replicas * stages(settings)


def partials(settings: Settings) -> Tuple[str, str]:
    """The types of partial sums of matrix products and of convolutions; empty: the SDK's."""
    half = "half" if settings.half_partial else ""
    return settings.poplar.partials_type_matmul or half, settings.poplar.partials_type_conv or half


def pipeline_unit(framework: str, schedule: str, stages: int, training: bool) -> Tuple[int, int]:
    """The fewest batches that fill a pipeline, and what their number must be a multiple of.

    In training these are batches of one weight update, in inference of one call. PopTorch and PopART take any number
    that fills it; TensorFlow's number is a multiple of its schedule's length.
    """
    if stages == 1 or schedule == "sequential":
        return 1, 1
    if framework == "tensorflow_ipu":
        length = stages if schedule == "interleaved" or not training else 2 * stages
        return length, length
    return (2 * stages - 1 if training else stages), 1


def require(case: Case, settings: Settings) -> None:
    """Raise ValueError, naming the rule, for a combination that the SDK refuses, before any device is touched."""
    poplar, wanted = settings.poplar, ipus(case, settings)
    if wanted & (wanted - 1):
        raise ValueError(
            f"{case.replicas} replicas x {stages(settings)} IPUs are {wanted} IPUs; devices come in powers of two"
        )
    shares = poplar.available_memory_proportion
    twice = 2 if case.backend == "tensorflow_ipu" and case.mode == "training" else 1
    if len(shares) > 1 and len(shares) not in (stages(settings), twice * stages(settings)):
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
    _require_simulable(case, poplar)
    _require_full_pipeline(case, settings)


def refusal(case: Case, settings: Settings) -> str:
    """What `require` says of a case; empty where it says nothing."""
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


def engine_options(settings: Settings) -> Dict[str, str]:
    """What the options mean for Poplar's engine."""
    poplar = settings.poplar
    found: Dict[str, str] = {}
    if poplar.internal_exchange_target:
        found["opt.internalExchangeOptimisationTarget"] = poplar.internal_exchange_target
    if not poplar.prefetch or settings.min_latency:
        found["exchange.enablePrefetch"] = "false"
    if poplar.profile:
        found.update({"autoReport.all": "true", "autoReport.directory": poplar.profile})
    return {**found, **poplar.engine_options}


def option(name: str) -> str:
    """A field of Poplar as the command line has it, without its unit."""
    return "--" + (name[:-2] if name.endswith("_s") else name).replace("_", "-")


def environment(settings: Settings, environ: Mapping[str, str]) -> Dict[str, str]:
    """The variables that Poplar reads, with what is in `environ` already: it stays, and what contradicts is refused.

    Raises ValueError for text that is no JSON object, and for a key that is set to two values.
    """
    found = {}
    wanted = {"ENGINE": engine_options(settings), "RUNTIME": dict(settings.poplar.runtime_options)}
    for kind, own in wanted.items():
        name = f"POPLAR_{kind}_OPTIONS"
        there = _object(name, environ.get(name, "") or "{}")
        for key in sorted(set(own) & set(there)):
            if own[key] != there[key]:
                raise ValueError(f"{name} says {key}={there[key]}, the command line {own[key]}; leave one out")
        if own or there:
            found[name] = json.dumps({**there, **own}, sort_keys=True)
    return found


def tf_flags(own: Sequence[str], environ: Mapping[str, str]) -> str:
    """TF_POPLAR_FLAGS with `own` flags behind those that are there. Raises ValueError for a flag that TensorFlow
    does not know, at which it would end the process, and for one that is set to two values."""
    found: Dict[str, str] = {}
    for flag in [*environ.get("TF_POPLAR_FLAGS", "").split(), *own]:
        name = flag.lstrip("-").split("=")[0]
        if not flag.startswith("--") or name not in TF_FLAGS:
            raise ValueError(f"TF_POPLAR_FLAGS: flag {unknown(name, TF_FLAGS)}")
        if found.get(name, flag) != flag:
            raise ValueError(f"TF_POPLAR_FLAGS: {found[name]} and {flag} contradict each other")
        found[name] = flag
    return " ".join(found.values())


def options_of(text: str, known: Sequence[str], variable: str) -> Dict[str, str]:
    """A JSON object of options, every value as the text that Poplar takes. Raises ValueError for a key that is not
    `known`; one that is missing there can go through the environment."""
    found = _object("the value", text)
    for key in found:
        if key not in known:
            raise ValueError(f"option {unknown(key, known)}; others can be set in {variable}")
    return found


def _object(what: str, text: str) -> Dict[str, str]:
    try:
        found: Any = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict) or any(isinstance(value, (dict, list)) for value in found.values()):
        raise ValueError(f"{what} {text!r} is not a JSON object of texts")
    return {key: json.dumps(value) if isinstance(value, bool) else str(value) for key, value in found.items()}

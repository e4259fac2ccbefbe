"""The options of IPUs: one set for all frameworks, with the names and values of SDK 3.4.

Plain data, which is sent to the worker. `bench/cases/ipu_rules.py` has the SDK's rules for them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from bench.registry import unknown

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
    opt.internalExchangeOptimisationTarget opt.maxCompilationThreads opt.enableMultiAccessCopies opt.useAutoloader
    opt.maxComputeSetsPerLoweredCopy target.gatewayMode target.hostSyncTimeout streamCallbacks.maxLookahead
    """.split()
)
RUNTIME_OPTIONS = tuple(
    """
    target.syncMethod target.syncPollPeriodUs target.exceptionPollPeriodUs target.hostSyncTimeout
    streamCallbacks.multiThreadMode streamCallbacks.numaAware streamCallbacks.numWorkerThreads
    streamCallbacks.maxLookahead
    """.split()
)
# PopART's options of a session that Graphcore's training programs set: switches, and one with named values.
SCHEDULE_OF_ACCUMULATION = "accumulateOuterFragmentSettings.schedule"
ACCUMULATION_SCHEDULES = ("Scheduler", "Serial", "OverlapCycleOptimized", "OverlapMemoryOptimized")
SESSION_OPTIONS = (
    *("explicitRecomputation", "scheduleNonWeightUpdateGradientConsumersEarly"),
    *("disableGradAccumulationTensorStreams", "disableOptimizerStateTensorStreams"),
    "replicatedCollectivesSettings.prepareScheduleForMergingCollectives",
    "replicatedCollectivesSettings.mergeAllReduceCollectives",
    SCHEDULE_OF_ACCUMULATION,
)
# Those that leave the optimiser's state on the device, so that a program cannot be checked.
STATE_STREAMS = ("disableGradAccumulationTensorStreams", "disableOptimizerStateTensorStreams")
# TensorFlow for IPU ends the process if a flag is unknown.
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
    """Options of an IPU case. Those of the second group say how and where it runs; a baseline need not match them.

    available_memory_proportion   the share of a tile's memory for temporaries of products: one for all IPUs of a
                               replica, or one for each. TensorFlow's pipelines in training also take one for each
                               stage forward, and then one for each backward
    partials_type_matmul, partials_type_conv   half or float: the type of partial sums
    internal_exchange_target   cycles, balanced or memory: what the exchange between tiles is optimised for
    prefetch                   False: no batch is fetched ahead, for the lowest latency
    num_io_tiles               tiles that only move data, while the others compute; 0: none
    stochastic_rounding        of 16-bit results; None: the SDK's default
    stable_norm                compute variances in two passes
    conv_dithering             start convolutions on different tiles, to spread their memory
    variable_offloading        optimiser state in remote memory; None: the SDK's default
    replicated_tensor_sharding each replica holds a shard of the state that replicas share
    pipeline_schedule          grouped, interleaved or sequential; empty: the framework's default
    output_mode                all, final or sum: the outputs that a call of several batches returns; empty: depends on
                               the mode
    combined_momentum          momentum and accumulated gradients share a buffer; None: the framework's default
    max_cross_replica_buffer_size   bytes of gradients that are summed over replicas at once
    engine_options, runtime_options   Poplar's options, texts by key
    session_options            PopART's options of a session in training (SESSION_OPTIONS), texts by key
    cycle_count                read the cycle counter of the device

    ipu_model                  simulate: the case is checked but not timed
    compile_only               the architecture to compile for, without a device; empty: run
    executable_cache           a folder of compiled programs; empty: none
    device_id                  the number of the device in `gc-info -l`; None: any of the right size
    wait_s                     seconds to wait for a free device
    profile                    a folder for PopVision's report; the case is then not timed
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
    combined_momentum: Optional[bool] = None
    pipeline_schedule: str = ""
    output_mode: str = ""
    max_cross_replica_buffer_size: Optional[int] = None
    engine_options: Mapping[str, str] = field(default_factory=dict, hash=False)
    runtime_options: Mapping[str, str] = field(default_factory=dict, hash=False)
    session_options: Mapping[str, str] = field(default_factory=dict, hash=False)
    cycle_count: bool = False

    ipu_model: bool = False
    compile_only: str = ""
    executable_cache: str = ""
    device_id: Optional[int] = None
    wait_s: float = 0.0
    profile: str = ""

    @property
    def non_default_names(self) -> List[str]:
        names = [field.name for field in fields(self)]
        return [name for name in names if getattr(self, name) != getattr(DEFAULT_POPLAR, name)]

    @property
    def non_defaults(self) -> str:
        """The non-default options that a baseline must match, as `name=value`."""
        names = [name for name in self.non_default_names if name not in UNMATCHED]
        return ", ".join(f"{name}={getattr(self, name)}" for name in names)


UNMATCHED = ("ipu_model", "compile_only", "executable_cache", "device_id", "wait_s", "profile")
DEFAULT_POPLAR = Poplar()


def option(name: str) -> str:
    """The option of the command line for a field of Poplar: without the unit."""
    return "--" + (name[:-2] if name.endswith("_s") else name).replace("_", "-")


def options_of(text: str, known: Sequence[str], variable: str) -> Dict[str, str]:
    """Parse a JSON object of options; each value becomes the text that Poplar takes.

    Raises ValueError for a key that is not `known`. The error names the environment variable for other options, if
    there is one.
    """
    options = json_texts("the value", text)
    for key in options:
        if key not in known:
            others = f"; others can be set in {variable}" if variable else ""
            raise ValueError(f"option {unknown(key, known)}{others}")
    return options


def session_options_of(text: str) -> Dict[str, str]:
    """Parse a JSON object of PopART's options of a session. Raises ValueError for an unknown key or value."""
    options = options_of(text, SESSION_OPTIONS, "")
    for key, value in options.items():
        allowed = ACCUMULATION_SCHEDULES if key == SCHEDULE_OF_ACCUMULATION else ("true", "false")
        if value not in allowed:
            raise ValueError(f"{key} is {' or '.join(allowed)}, not {value!r}")
    return options


def json_texts(what: str, text: str) -> Dict[str, str]:
    """The values of a JSON object as texts. Raises ValueError, with `what`, for any other JSON."""
    try:
        options: Any = json.loads(text)
    except ValueError:
        options = None
    if not isinstance(options, dict) or any(isinstance(value, (dict, list)) for value in options.values()):
        raise ValueError(f"{what} {text!r} is not a JSON object of texts")
    return {key: json.dumps(value) if isinstance(value, bool) else str(value) for key, value in options.items()}

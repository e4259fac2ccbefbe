"""The options that only an IPU has: one set for all frameworks, with the names and values of SDK 3.4.

Plain data: it crosses to the worker. `bench/cases/ipu_rules.py` has the SDK's rules for them.
"""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass, field, fields
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

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
    def non_default_names(self) -> List[str]:
        return [each.name for each in fields(self) if getattr(self, each.name) != getattr(DEFAULT_POPLAR, each.name)]

    @property
    def non_defaults(self) -> str:
        """What differs from the defaults among what a baseline must match, as `name=value`."""
        names = [name for name in self.non_default_names if name not in UNMATCHED]
        return ", ".join(f"{name}={getattr(self, name)}" for name in names)


UNMATCHED = ("ipu_model", "compile_only", "executable_cache", "device_id", "wait_s", "profile")
DEFAULT_POPLAR = Poplar()


def option(name: str) -> str:
    """A field of Poplar as the command line has it, without its unit."""
    return "--" + (name[:-2] if name.endswith("_s") else name).replace("_", "-")


def options_of(text: str, known: Sequence[str], variable: str) -> Dict[str, str]:
    """A JSON object of options, every value as the text that Poplar takes. Raises ValueError for a key that is not
    `known`; one that is missing there can go through the environment."""
    options = json_texts("the value", text)
    for key in options:
        if key not in known:
            raise ValueError(f"no option {unknown(key, known)}; others can be set in {variable}")
    return options


def unknown(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, 1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    return f"{name!r}{hint}; there are {', '.join(known)}"


def json_texts(what: str, text: str) -> Dict[str, str]:
    """The texts of a JSON object. Raises ValueError, naming `what`, for anything else."""
    try:
        read: Any = json.loads(text)
    except ValueError:
        read = None
    if not isinstance(read, dict) or any(isinstance(value, (dict, list)) for value in read.values()):
        raise ValueError(f"{what} {text!r} is not a JSON object of texts")
    return {key: json.dumps(value) if isinstance(value, bool) else str(value) for key, value in read.items()}

"""The options of an IPU case for PopTorch."""

from __future__ import annotations

import functools
from typing import Any, Callable, Dict, Iterator, Tuple

from bench.backends import _ipu
from bench.backends._ipu.variables import engine_options
from bench.cases.case import Case, Settings
from bench.cases.errors import Broken, Refused
from bench.cases.ipu_rules import stages
from bench.cases.poplar import ACCUMULATION_SCHEDULES, SCHEDULE_OF_ACCUMULATION
from bench.graph import Graph

Steps = Iterator[Tuple[str, Callable[[], Any]]]

OUTPUT_MODES = {"all": "All", "final": "Final", "sum": "Sum"}
ARCHITECTURES = {"ipu1": 1, "ipu2": 2, "ipu21": 21}
# Values of PopART's RecomputationType. `_Popart.set` takes numbers of enums, not names.
KEEP_ALL, BY_SIZE, BY_STAGE, ALL_BUT_CHECKPOINTS = 0, 1, 3, 4
# The number of batches that I/O tiles buffer while other tiles compute.
BUFFERED = 3
# A value of PopART's SyntheticDataMode: `enableSyntheticData` always draws normal numbers.
ZEROS = 1


def sharded(settings: Settings) -> bool:
    """Whether the stages run one after another, without a pipeline. I/O tiles require it, on one IPU as well."""
    return settings.poplar.pipeline_schedule == "sequential" or bool(settings.poplar.num_io_tiles)


def make(sdk: Any, graph: Graph, case: Case, settings: Settings, synthetic: bool) -> Any:
    """The SDK's Options, complete: a model freezes them.

    Raises Refused, with the name of the option, for a value that PopTorch refuses.
    """
    popdist = _ipu.popdist("poptorch", case, settings)
    # Under poprun, popdist sets replicas and devices.
    options = popdist.Options(ipus_per_replica=stages(settings)) if popdist else sdk.Options()
    steps = (_loop, _numbers, _engine, _training, _placing, *(() if popdist else (_replicas, _device)))
    for part in steps:
        for name, apply in part(sdk, options, case, settings):
            try:
                apply()
            except AttributeError as error:
                raise Broken(f"PopTorch's options were changed after their first use ({name}): {error}") from error
            except (AssertionError, ValueError) as error:
                raise Refused(f"{name}: PopTorch refuses the value: {error}") from error
    if _ipu.strided_norms(graph):
        options._Popart.set("groupNormStridedChannelGrouping", True)
    options.enableSyntheticData(synthetic)
    if synthetic and settings.zero_values:
        options._Popart.set("syntheticDataMode", ZEROS)
    options.showCompilationProgressBar(False)
    return options


def _loop(sdk: Any, options: Any, case: Case, settings: Settings) -> Steps:
    poplar = settings.poplar
    yield "--batches-per-step", lambda: options.deviceIterations(settings.batches_per_step)
    mode = getattr(sdk.OutputMode, OUTPUT_MODES[_ipu.output_mode(case, settings)])
    yield "--output-mode", lambda: options.outputMode(mode)
    if not poplar.prefetch or settings.min_latency:
        yield "--prefetch", lambda: options._Popart.set("enablePrefetchDatastreams", False)
    if poplar.cycle_count:
        yield "--cycle-count", lambda: options.logCycleCount(True)


def _replicas(sdk: Any, options: Any, case: Case, settings: Settings) -> Steps:
    yield "--replicas", lambda: options.replicationFactor(case.replicas)


def _numbers(sdk: Any, options: Any, case: Case, settings: Settings) -> Steps:
    """The options of convolutions are set once, as a whole: setPartialsType and setConvolutionDithering would each
    replace them. A fused LSTM reads its own options only, and no memory proportion of an IPU: PopTorch sets that for
    operations of one output (`Compiler.cpp`), and an LSTM has two."""
    poplar = settings.poplar
    matmul, conv = _ipu.partials(settings)
    if matmul:
        yield "--partials-type-matmul", lambda: options._Popart.set("partialsTypeMatMuls", matmul)
    convolutions: Dict[str, str] = {}
    if conv:
        convolutions["partialsType"] = conv
    if poplar.conv_dithering:
        # PopART reads it as a number.
        convolutions["enableConvDithering"] = "1"
    if convolutions:
        name = "--partials-type-conv" if conv else "--conv-dithering"
        yield name, lambda: options._Popart.set("convolutionOptions", convolutions)
    recurrent = {"partialsType": matmul} if matmul else {}
    if poplar.available_memory_proportion:
        # Recurrent layers are in no pipeline: they have no blocks.
        recurrent["availableMemoryProportion"] = f"{poplar.available_memory_proportion[0]:g}"
    if recurrent:
        name = "--partials-type-matmul" if matmul else "--available-memory-proportion"
        yield name, lambda: options._Popart.set("lstmOptions", recurrent)
    if poplar.stochastic_rounding is not None:
        rounding = poplar.stochastic_rounding
        yield "--stochastic-rounding", lambda: options.Precision.enableStochasticRounding(rounding)
    if poplar.stable_norm:
        yield "--stable-norm", lambda: options.enableStableNorm(True)


def _engine(sdk: Any, options: Any, case: Case, settings: Settings) -> Steps:
    engine = engine_options(settings)
    if engine:
        yield "--engine-options", lambda: options._Popart.set("engineOptions", engine)
    if settings.poplar.executable_cache:
        yield "--executable-cache", lambda: options.enableExecutableCaching(settings.poplar.executable_cache)


def _training(sdk: Any, options: Any, case: Case, settings: Settings) -> Steps:
    if case.mode != "training":
        return
    poplar, recipe = settings.poplar, settings.recipe
    yield "--gradient-accumulation", lambda: options.Training.gradientAccumulation(recipe.gradient_accumulation)
    # It is always set, because the default of a pipeline is to recompute.
    kind = {"none": KEEP_ALL, "auto": BY_SIZE, "manual": ALL_BUT_CHECKPOINTS}[recipe.recompute]
    if kind != KEEP_ALL and stages(settings) > 1 and not sharded(settings):
        kind = BY_STAGE
    yield "--recompute", lambda: options._Popart.set("autoRecomputation", kind)
    for key, text in poplar.session_options.items():
        value = ACCUMULATION_SCHEDULES.index(text) if key == SCHEDULE_OF_ACCUMULATION else text == "true"
        yield "--session-options", functools.partial(options._Popart.set, key, value)
    if poplar.variable_offloading is not None or poplar.replicated_tensor_sharding:
        location = sdk.TensorLocationSettings()
        if poplar.variable_offloading is not None:
            location.useOnChipStorage(not poplar.variable_offloading)
        if poplar.replicated_tensor_sharding:
            location.useReplicatedTensorSharding(True)
        name = "--replicated-tensor-sharding" if poplar.replicated_tensor_sharding else "--variable-offloading"
        yield name, lambda: options.TensorLocations.setOptimizerLocation(location)


def _placing(sdk: Any, options: Any, case: Case, settings: Settings) -> Steps:
    poplar, count = settings.poplar, stages(settings)
    if poplar.available_memory_proportion:
        shares = poplar.available_memory_proportion * (count if len(poplar.available_memory_proportion) == 1 else 1)
        named = {f"IPU{index}": share for index, share in enumerate(shares)}
        yield "--available-memory-proportion", lambda: options.setAvailableMemoryProportion(named)
    if poplar.num_io_tiles:
        yield "--num-io-tiles", lambda: options.TensorLocations.numIOTiles(poplar.num_io_tiles)
        yield "--num-io-tiles", lambda: options._Popart.set("defaultBufferingDepth", BUFFERED)
    if sharded(settings):
        yield "--pipeline-schedule", lambda: options.setExecutionStrategy(sdk.ShardedExecution())
    elif count > 1:
        strategy = sdk.PipelinedExecution(sdk.AutoStage.SameAsIpu)
        yield "--pipeline-schedule", lambda: options.setExecutionStrategy(strategy)


def _device(sdk: Any, options: Any, case: Case, settings: Settings) -> Steps:
    poplar = settings.poplar
    if poplar.compile_only:
        yield "--compile-only", lambda: options.useOfflineIpuTarget(ARCHITECTURES[poplar.compile_only])
    elif poplar.ipu_model:
        yield "--ipu-model", lambda: options.useIpuModel(True)
    elif poplar.device_id is not None:
        device_id = poplar.device_id
        yield "--device-id", lambda: options.useIpuId(device_id)

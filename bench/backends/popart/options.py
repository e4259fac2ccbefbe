"""What the options of an IPU mean for PopART: its SessionOptions, and marks on a model's nodes."""

from __future__ import annotations

from typing import Any, Callable, Dict

from bench.backends import _ipu
from bench.backends._ipu.variables import engine_options
from bench.cases.case import Case, Settings
from bench.cases.ipu_rules import stages
from bench.cases.precision import PRECISIONS
from bench.graph import Graph

# The names of attributes that PopART reads from the nodes of a model.
IPU, STAGE, MEMORY, RECOMPUTED = (
    *("__ipu_number", "__pipeline_stage"),
    *("__available_memory", "__recompute_output_in_backward_pass"),
)
RECOMPUTE = 2


def pipelined(settings: Settings) -> bool:
    """Whether the stages work side by side; a sequential schedule puts one behind the other."""
    return stages(settings) > 1 and settings.poplar.pipeline_schedule != "sequential"


def streamed(graph: Graph, settings: Settings) -> bool:
    """Whether anything crosses between host and device. A graph without inputs has nothing that could be made up, and
    what it drew is to be judged."""
    return settings.data != "synthetic" or not graph.inputs


def made(popart: Any, graph: Graph, case: Case, settings: Settings) -> Any:
    """The SessionOptions of a case."""
    given, recipe = settings.poplar, settings.recipe
    options = popart.SessionOptions()
    popdist = _ipu.popdist("popart", case, settings)
    if popdist:
        # Under poprun it knows the replicas of all instances.
        popdist.configureSessionOptions(options)
    elif case.replicas > 1:
        options.enableReplicatedGraphs = True
        options.replicatedGraphCount = case.replicas
    if stages(settings) > 1:
        options.virtualGraphMode = popart.VirtualGraphMode.Manual
        options.enablePipelining = pipelined(settings)
    if not streamed(graph, settings):
        kinds = popart.SyntheticDataMode
        options.syntheticDataMode = kinds.Zeros if settings.zero_values else kinds.RandomNormal
    if case.mode == "training":
        _train(popart, options, case, settings)
    elif PRECISIONS[case.precision].weights != PRECISIONS[case.precision].compute:
        # As constants they would be cast once and held in 16 bits.
        options.constantWeights = False
    if recipe.recompute == "auto":
        kinds = popart.RecomputationType
        options.autoRecomputation = kinds.Pipeline if pipelined(settings) else kinds.Standard
    if not given.prefetch or settings.min_latency:
        options.enablePrefetchDatastreams = False
    if given.stochastic_rounding is not None:
        options.enableStochasticRounding = given.stochastic_rounding
    if given.stable_norm:
        options.enableStableNorm = True
    if given.cycle_count:
        options.instrumentWithHardwareCycleCounter = True
    if given.executable_cache:
        options.enableEngineCaching = True
        options.cachePath = given.executable_cache
    if engine_options(settings):
        options.engineOptions = engine_options(settings)
    _products(options, settings)
    return options


def _train(popart: Any, options: Any, case: Case, settings: Settings) -> None:
    given = settings.poplar
    # The default is the sum.
    options.accumulationAndReplicationReductionType = popart.ReductionType.Mean
    if settings.recipe.gradient_accumulation > 1:
        options.enableGradientAccumulation = True
        options.accumulationFactor = settings.recipe.gradient_accumulation
    if given.variable_offloading is not None or given.replicated_tensor_sharding:
        storage = popart.TensorStorage.OffChip if given.variable_offloading else popart.TensorStorage.OnChip
        switch = popart.ReplicatedTensorSharding
        sharding = switch.On if given.replicated_tensor_sharding else switch.Off
        location = popart.TensorLocation(storage, sharding)
        options.optimizerStateTensorLocationSettings = popart.TensorLocationSettings(location)


def _products(options: Any, settings: Settings) -> None:
    """What convolutions, matrix products and recurrent layers are told."""
    given = settings.poplar
    matmul, conv = _ipu.partials(settings)
    told: Dict[str, Dict[str, str]] = {"convolutionOptions": {}, "matmulOptions": {}, "lstmOptions": {}}
    if len(given.available_memory_proportion) == 1:
        for name in told:
            told[name]["availableMemoryProportion"] = f"{given.available_memory_proportion[0]:g}"
    if conv:
        told["convolutionOptions"]["partialsType"] = conv
    if matmul:
        options.partialsTypeMatMuls = matmul
        told["lstmOptions"]["partialsType"] = matmul
    if given.conv_dithering:
        told["convolutionOptions"]["enableConvDithering"] = "true"
    for name, values in told.items():
        if values:
            setattr(options, name, values)


def marks(graph: Graph, case: Case, settings: Settings) -> Callable[[int], Dict[str, Any]]:
    """What the nodes of the model are marked with, by the index of their node of the graph: the IPU and the stage of
    the pipeline, memory of products where each IPU has its own, and what is recomputed."""
    placed = _stages(graph, case, settings)
    recipe, shares = settings.recipe, settings.poplar.available_memory_proportion

    def mark(index: int) -> Dict[str, Any]:
        node = graph.nodes[index]
        found: Dict[str, Any] = {}
        if stages(settings) > 1:
            found[IPU] = placed[index]
            if pipelined(settings):
                found[STAGE] = placed[index]
        if len(shares) > 1 and node.flops:
            found[MEMORY] = shares[placed[index]]
        if case.mode == "training" and recipe.recompute == "manual" and recipe.recomputes(node.block):
            found[RECOMPUTED] = RECOMPUTE
        return found

    return mark


def _stages(graph: Graph, case: Case, settings: Settings) -> Dict[int, int]:
    """The stage of every node: its block's, and outside of any the last of those that it reads from."""
    of_block = _ipu.stage_of_block(graph, case, settings)
    found: Dict[int, int] = {}
    for index, node in enumerate(graph.nodes):
        own = max([found[tensor.node] for tensor in node.inputs], default=0)
        found[index] = of_block.get(node.block, own)
    return found

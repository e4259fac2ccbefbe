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


def session_options(popart: Any, graph: Graph, case: Case, settings: Settings) -> Any:
    """The SessionOptions of a case."""
    poplar, recipe = settings.poplar, settings.recipe
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
    if settings.data == "synthetic" and graph.inputs:
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
    if not poplar.prefetch or settings.min_latency:
        options.enablePrefetchDatastreams = False
    if poplar.stochastic_rounding is not None:
        options.enableStochasticRounding = poplar.stochastic_rounding
    if poplar.stable_norm:
        options.enableStableNorm = True
    if poplar.cycle_count:
        options.instrumentWithHardwareCycleCounter = True
    if poplar.executable_cache:
        options.enableEngineCaching = True
        options.cachePath = poplar.executable_cache
    if engine_options(settings):
        options.engineOptions = engine_options(settings)
    _products(options, settings)
    return options


def _train(popart: Any, options: Any, case: Case, settings: Settings) -> None:
    poplar = settings.poplar
    # The default is the sum.
    options.accumulationAndReplicationReductionType = popart.ReductionType.Mean
    if settings.recipe.gradient_accumulation > 1:
        options.enableGradientAccumulation = True
        options.accumulationFactor = settings.recipe.gradient_accumulation
    if poplar.variable_offloading is not None or poplar.replicated_tensor_sharding:
        storage = popart.TensorStorage.OffChip if poplar.variable_offloading else popart.TensorStorage.OnChip
        switch = popart.ReplicatedTensorSharding
        sharding = switch.On if poplar.replicated_tensor_sharding else switch.Off
        location = popart.TensorLocation(storage, sharding)
        options.optimizerStateTensorLocationSettings = popart.TensorLocationSettings(location)


def _products(options: Any, settings: Settings) -> None:
    """The options of convolutions, matrix products and recurrent layers."""
    poplar = settings.poplar
    matmul, conv = _ipu.partials(settings)
    products: Dict[str, Dict[str, str]] = {"convolutionOptions": {}, "matmulOptions": {}, "lstmOptions": {}}
    if len(poplar.available_memory_proportion) == 1:
        for name in products:
            products[name]["availableMemoryProportion"] = f"{poplar.available_memory_proportion[0]:g}"
    if conv:
        products["convolutionOptions"]["partialsType"] = conv
    if matmul:
        options.partialsTypeMatMuls = matmul
        products["lstmOptions"]["partialsType"] = matmul
    if poplar.conv_dithering:
        products["convolutionOptions"]["enableConvDithering"] = "true"
    for name, values in products.items():
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

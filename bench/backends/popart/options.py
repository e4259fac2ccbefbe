"""The options of an IPU case for PopART: its SessionOptions, and attributes of the model's nodes."""

from __future__ import annotations

import functools
from typing import Any, Callable, Dict

from bench.backends import _ipu
from bench.backends._ipu.variables import engine_options
from bench.cases.case import Case, Settings
from bench.cases.ipu_rules import stages
from bench.cases.poplar import SCHEDULE_OF_ACCUMULATION
from bench.cases.precision import PRECISIONS
from bench.graph import Graph

# Attributes that PopART reads from the nodes of a model.
IPU, STAGE, MEMORY, RECOMPUTED = (
    *("__ipu_number", "__pipeline_stage"),
    *("__available_memory", "__recompute_output_in_backward_pass"),
)
RECOMPUTE = 2


def pipelined(settings: Settings) -> bool:
    """Whether the stages run at the same time. In a sequential schedule they run one after another."""
    return stages(settings) > 1 and settings.poplar.pipeline_schedule != "sequential"


def session_options(popart: Any, graph: Graph, case: Case, settings: Settings) -> Any:
    """The SessionOptions of a case."""
    poplar, recipe = settings.poplar, settings.recipe
    options = popart.SessionOptions()
    popdist = _ipu.popdist("popart", case, settings)
    if popdist:
        # popdist knows the replicas of all instances.
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
        # Constant weights would be cast once and stored in 16 bits.
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
    if _ipu.strided_norms(graph):
        options.groupNormStridedChannelGrouping = True
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
    # PopART's default is the sum.
    options.accumulationAndReplicationReductionType = popart.ReductionType.Mean
    for key, text in poplar.session_options.items():
        *path, last = key.split(".")
        parent = functools.reduce(getattr, path, options)
        kinds = popart.AccumulateOuterFragmentSchedule
        setattr(parent, last, getattr(kinds, text) if key == SCHEDULE_OF_ACCUMULATION else text == "true")
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
    """Set the options of convolutions, matrix products and recurrent layers."""
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
        # PopART reads it as a number.
        products["convolutionOptions"]["enableConvDithering"] = "1"
    for name, values in products.items():
        if values:
            setattr(options, name, values)


def marks(graph: Graph, case: Case, settings: Settings) -> Callable[[int], Dict[str, Any]]:
    """A function of a node's index in the graph: the attributes of its nodes in the model.

    They are the IPU, the pipeline stage, the memory proportion if each IPU has its own, and recomputation.
    """
    placed = _stages(graph, case, settings)
    recipe, shares = settings.recipe, settings.poplar.available_memory_proportion

    def mark(index: int) -> Dict[str, Any]:
        node = graph.nodes[index]
        attributes: Dict[str, Any] = {}
        if stages(settings) > 1:
            attributes[IPU] = placed[index]
            if pipelined(settings):
                attributes[STAGE] = placed[index]
        if len(shares) > 1 and node.flops:
            attributes[MEMORY] = shares[placed[index]]
        if case.mode == "training" and recipe.recompute == "manual" and recipe.recomputes(node.block):
            attributes[RECOMPUTED] = RECOMPUTE
        return attributes

    return mark


def _stages(graph: Graph, case: Case, settings: Settings) -> Dict[int, int]:
    """The stage of every node: that of its block, or without a block the last stage among its inputs."""
    of_block = _ipu.stage_of_block(graph, case, settings)
    stage_of: Dict[int, int] = {}
    for index, node in enumerate(graph.nodes):
        latest_input = max([stage_of[tensor.node] for tensor in node.inputs], default=0)
        stage_of[index] = of_block.get(node.block, latest_input)
    return stage_of

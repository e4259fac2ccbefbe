"""Which options PopART gives each kind of operation of a model.

Sources, SDK 3.4: `matmul.cpp` and `irlowering.cpp` (products), `convbase.cpp`, `lstmx.cpp` and `grux.cpp`
(`lstmOptions`), `rnnx.cpp` (none), `batchnormx.cpp` and `groupnormx.cpp`.
"""

from __future__ import annotations

KINDS = {
    "MatMul": "matmul",
    "Gemm": "matmul",
    "Conv": "conv",
    "LSTM": "lstm",
    "GRU": "gru",
    "RNN": "rnn",
    "BatchNormalization": "norm",
    "GroupNormalization": "norm",
}


def operations(model, options):
    """The options of each kind of operation, without repeats."""
    import popart_models as models

    found = {}
    for node in models.nodes(model.graph):
        kind = KINDS.get(node.op_type, "")
        if not kind or (node.op_type == "BatchNormalization" and len(node.output) == 1):
            continue
        read = _options(kind, options)
        if node.op_type == "GroupNormalization":
            read["strided"] = options.groupNormStridedChannelGrouping
        shares = [attribute.f for attribute in node.attribute if attribute.name == "__available_memory"]
        if shares and kind != "rnn":
            read["availableMemoryProportion"] = shares[0]
        if read not in found.setdefault(kind, []):
            found[kind].append(read)
    return found


def located(numbers, off_chip, sharded, replicas):
    """Where PopART puts a state of that many numbers (`streamingmemoryopinserter.cpp`, `sessionoptions.hpp`)."""
    return {"offChip": bool(off_chip) and numbers >= 2, "sharded": bool(sharded) and numbers >= 8192 and replicas > 1}


def session(model, options, optimiser):
    """Where the state of an optimiser is, and what rounds numbers of 16 bits and streams inputs."""
    import popart_models as models
    import popart_optimisers as optimisers

    found = {}
    kinds = {one.type.tensor_type.elem_type for one in model.graph.input}
    if 10 in kinds | {one.data_type for one in model.graph.initializer}:
        found["rounding"] = [{"stochastic": options.enableStochasticRounding}]
    if model.graph.input and options.syntheticDataMode.name == "Off":
        found["stream"] = [{"prefetch": options.enablePrefetchDatastreams}]
    if optimiser is not None and optimisers.has_place(optimiser, options):
        held = options.optimizerStateTensorLocationSettings.location
        numbers = max(models.array(one).size for one in model.graph.initializer)
        replicas = options.replicatedGraphCount if options.enableReplicatedGraphs else 1
        off, sharded = (held.storage, held.replicatedTensorSharding) if held else (None, None)
        found["state"] = [
            located(numbers, getattr(off, "name", "") == "OffChip", getattr(sharded, "name", "") == "On", replicas)
        ]
    return found


def convolution(given):
    """The options of a convolution. Dithering is read as a number: `convbase.cpp` calls std::stoll."""
    read = dict(given)
    if "enableConvDithering" in read:
        read["enableConvDithering"] = "true" if int(read["enableConvDithering"]) else "false"
    return read


def _options(kind, options):
    if kind == "matmul":
        return {"partialsType": options.partialsTypeMatMuls or "float", **options.matmulOptions}
    if kind == "conv":
        return convolution(options.convolutionOptions)
    if kind == "norm":
        return {"stable": options.enableStableNorm}
    return {} if kind == "rnn" else dict(options.lstmOptions)

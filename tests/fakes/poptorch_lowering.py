"""Which options PopTorch's compiler and PopART give each kind of operation of a model.

Sources, SDK 3.4: poptorch `Compiler.cpp` (a memory proportion is an attribute of operations with one output),
`RegisterOptionalAtenOps.cpp.inc` (of recurrent layers only `lstm.input` stays whole: others become the products of each
time step) and `NormalizationOps.cpp`; PopART `matmul.cpp`, `convbase.cpp`, `lstmx.cpp`, `popartlstmx.cpp`,
`groupnormx.cpp`, `batchnormx.cpp`.
"""

from __future__ import annotations

import contract
import torch
from popart_lowering import convolution, located

PRODUCTS = (torch.nn.Linear, torch.nn.GRU, torch.nn.RNN, torch.nn.RNNCell, torch.nn.GRUCell, torch.nn.LSTMCell)
NORMS = (torch.nn.BatchNorm2d, torch.nn.GroupNorm)


def operations(model, told):
    """The options of each kind of operation, without repeats."""
    popart = told.get("_Popart.set", {})
    shares = told.get("setAvailableMemoryProportion", {})
    found, ipu = {}, 0
    for module in model.modules():
        ipu = getattr(module, "_begun", ipu)
        share = {"availableMemoryProportion": shares[f"IPU{ipu}"]} if f"IPU{ipu}" in shares else {}
        kind, options = _operation(module, popart, share)
        if kind == "norm":
            options = {"stable": told.get("enableStableNorm", False), **options}
        if kind and options not in found.setdefault(kind, []):
            found[kind].append(options)
    return found


def session(model, optimiser, inputs, told, replicas):
    """Where the state of an optimiser is, and what rounds numbers of 16 bits and streams inputs."""
    popart, found = told.get("_Popart.set", {}), {}
    tensors = [*inputs, *model.parameters(), *model.buffers()]
    if any(tensor.dtype == torch.float16 for tensor in tensors):
        found["rounding"] = [{"stochastic": told.get("Precision.enableStochasticRounding", False)}]
    if inputs and not told.get("enableSyntheticData"):
        found["stream"] = [{"prefetch": popart.get("enablePrefetchDatastreams", True)}]
    sizes = [p.numel() for group in optimiser.param_groups for p in group["params"]] if optimiser else []
    shared = optimiser is not None and _shares_a_buffer(optimiser, told)
    location = told.get("TensorLocations.setOptimizerLocation")
    if sizes and _has_state(optimiser) and not shared:
        where = vars(contract.state(location)) if location else {}
        off_chip, sharded = not where.get("useOnChipStorage", True), where.get("useReplicatedTensorSharding")
        found["state"] = [located(max(sizes), off_chip, sharded, replicas)]
    return found


def _has_state(optimiser):
    arguments = contract.state(optimiser).arguments
    return type(optimiser).__name__ != "SGD" or bool(arguments.get("momentum"))


def _shares_a_buffer(optimiser, told):
    """SGD1's velocity is an accumulator too, whose place is that of accumulators."""
    combined = contract.state(optimiser).arguments.get("use_combined_accum")
    return bool(combined) and told.get("Training.gradientAccumulation", 1) > 1


def _operation(module, popart, share):
    if isinstance(module, torch.nn.LSTM):
        return "lstm", dict(popart.get("lstmOptions", {}))
    if isinstance(module, torch.nn.Conv2d):
        return "conv", {**convolution(popart.get("convolutionOptions", {})), **share}
    if isinstance(module, PRODUCTS):
        return "matmul", {"partialsType": popart.get("partialsTypeMatMuls", "float"), **share}
    if isinstance(module, NORMS) and (module.training or isinstance(module, torch.nn.GroupNorm)):
        grouped = isinstance(module, torch.nn.GroupNorm)
        return "norm", {"strided": popart.get("groupNormStridedChannelGrouping", False)} if grouped else {}
    return "", {}

"""Which options PopTorch's compiler and PopART give each kind of operation of a model.

Sources, SDK 3.4: poptorch `Compiler.cpp` (a memory proportion is an attribute of operations with one output),
`RegisterOptionalAtenOps.cpp.inc` (of recurrent layers only `lstm.input` stays whole: others become the products of each
time step) and `NormalizationOps.cpp`; PopART `matmul.cpp`, `convbase.cpp`, `lstmx.cpp`, `popartlstmx.cpp`,
`groupnormx.cpp`, `batchnormx.cpp`.
"""

from __future__ import annotations

import torch
from popart_lowering import convolution

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

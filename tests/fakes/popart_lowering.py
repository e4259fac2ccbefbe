"""Which options PopART gives each kind of operation of a model.

Sources, SDK 3.4: `matmul.cpp` and `irlowering.cpp` (products), `convbase.cpp`, `lstmx.cpp` and `grux.cpp`
(`lstmOptions`), `rnnx.cpp` (none), `batchnormx.cpp` and `instancenormx.cpp`.
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
    "InstanceNormalization": "norm",
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
        shares = [attribute.f for attribute in node.attribute if attribute.name == "__available_memory"]
        if shares and kind != "rnn":
            read["availableMemoryProportion"] = shares[0]
        if read not in found.setdefault(kind, []):
            found[kind].append(read)
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

"""What frameworks make of the layers by themselves, in float64: the judges of the reference.

Nothing of bench/ is in here. `python oracles.py FRAMEWORK FILE` answers every question that the framework
can and stores the answers; a process holds one framework.
"""

from __future__ import annotations

import sys
import zlib

import numpy as np

BATCH, STEPS, FEATURES, HIDDEN = 3, 4, 5, 6
GATES = {"rnn": 1, "lstm": 4, "gru": 3}
# name: channels, filters, height, width, kernel, stride, padding, groups, bias
CONVS = {
    "plain": (3, 4, 7, 9, 3, 1, 0, 1, True),
    "padded": (4, 6, 7, 9, 4, 2, 3, 1, True),
    "grouped": (6, 4, 8, 5, 3, 1, 1, 2, False),
    "depthwise": (4, 4, 6, 6, 3, 2, 1, 4, True),
    "multiplied": (3, 6, 5, 8, 2, 3, 2, 3, True),
}
# name: channels, filters, height, width, kernel, stride; TensorFlow's SAME, whose odd pixel goes to the end
SAME = {"same_even": (2, 3, 8, 8, 3, 2), "same_odd": (2, 3, 7, 10, 4, 3), "same_wide": (1, 2, 2, 3, 5, 2)}


def draw(name, *shape):
    """Normal numbers that depend on their name and shape alone."""
    return np.random.default_rng(zlib.crc32(f"{name}{shape}".encode())).standard_normal(shape)


def labels(name, *shape):
    return (draw(name, *shape) > 0).astype(np.int64)


def distribution(name, *shape):
    values = np.exp(draw(name, *shape))
    return values / values.sum(axis=-1, keepdims=True)


def recurrent(kind):
    """x, W, R and two biases, gates i f g o and r z n."""
    rows = GATES[kind] * HIDDEN
    shapes = [(BATCH, STEPS, FEATURES), (rows, FEATURES), (rows, HIDDEN), (rows,), (rows,)]
    x, w, r, first, second = (draw(kind, *shape) for shape in shapes)
    # Only a GRU's two biases differ in what they do.
    return x, w, r, first, -0.7 * second if kind == "gru" else np.zeros_like(second)


def convolution(name):
    """An image, a kernel and a bias."""
    if name in CONVS:
        channels, filters, height, width, kernel, _, _, groups, bias = CONVS[name]
    else:
        (channels, filters, height, width, kernel, _), groups, bias = SAME[name], 1, False
    bias = draw(name, filters) if bias else np.zeros(filters)
    return draw(name, 2, channels, height, width), draw(name, filters, channels // groups, kernel, kernel), bias


def with_torch():
    import torch
    from torch.nn import functional

    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    found = {}
    with torch.no_grad():
        for kind, layer in (("rnn", torch.nn.RNN), ("lstm", torch.nn.LSTM), ("gru", torch.nn.GRU)):
            x, w, r, first, second = map(torch.from_numpy, recurrent(kind))
            made = layer(FEATURES, HIDDEN, batch_first=True)
            made.load_state_dict({"weight_ih_l0": w, "weight_hh_l0": r, "bias_ih_l0": first, "bias_hh_l0": second})
            found[kind] = made(x)[0]
        for name, (_, _, _, _, _, stride, padding, groups, _) in CONVS.items():
            x, kernel, bias = map(torch.from_numpy, convolution(name))
            found[name] = functional.conv2d(x, kernel, bias, stride, padding, 1, groups)
        x, w, b = (torch.from_numpy(draw("dense", *shape)) for shape in ((3, 5), (7, 5), (7,)))
        found["dense"] = functional.linear(x, w, b)
        x = torch.from_numpy(draw("logits", 3, 4, 5))
        target = torch.from_numpy(distribution("target", 3, 4, 5))
        found["softmax_cross_entropy"] = functional.cross_entropy(x.reshape(12, 5), target.reshape(12, 5))
        found["squared_error"] = functional.mse_loss(x, target)
        # Time by time, over batch and features together.
        classes = torch.from_numpy(labels("classes", 3, 4))
        flat = functional.log_softmax(x.permute(1, 0, 2).reshape(4, 15), 1)
        picked = torch.stack([functional.nll_loss(flat, classes[b] + 5 * b, reduction="sum") for b in range(3)])
        found["flat_softmax_nll"] = picked.sum()
        image, bits = torch.from_numpy(draw("image", 2, 3, 4, 5)), torch.from_numpy(labels("bits", 2, 3, 4, 5))
        off = functional.softmax(image.reshape(2, 60), 1) - bits.reshape(2, 60)
        found["flat_softmax_squared_error"] = (off**2).sum()
    return {name: np.asarray(value) for name, value in found.items()}


def with_keras():
    import tensorflow as tf

    layers, found = tf.keras.layers, {}
    options = {"return_sequences": True, "dtype": "float64"}
    for kind, layer in (
        ("rnn", layers.SimpleRNN(HIDDEN, **options)),
        ("lstm", layers.LSTM(HIDDEN, **options)),
        ("gru", layers.GRU(HIDDEN, reset_after=True, **options)),
    ):
        x, *given = recurrent(kind)
        if kind == "gru":
            # Keras has z r h.
            given = [np.concatenate([a[HIDDEN : 2 * HIDDEN], a[:HIDDEN], a[2 * HIDDEN :]]) for a in given]
        w, r, first, second = given
        layer.build(x.shape)
        layer.set_weights([w.T, r.T, np.stack([first, second]) if kind == "gru" else first])
        found[kind] = layer(x).numpy()
    for name, (_, filters, _, _, size, stride) in SAME.items():
        x, kernel, _ = convolution(name)
        layer = layers.Conv2D(filters, size, stride, "same", use_bias=False, dtype="float64")
        turned = x.transpose(0, 2, 3, 1)
        layer.build(turned.shape)
        layer.set_weights([kernel.transpose(2, 3, 1, 0)])
        found[name] = layer(turned).numpy().transpose(0, 3, 1, 2)
    losses = tf.keras.losses
    x, target = draw("logits", 3, 4, 5), distribution("target", 3, 4, 5)
    found["softmax_cross_entropy"] = losses.CategoricalCrossentropy(from_logits=True, dtype="float64")(target, x)
    found["squared_error"] = losses.MeanSquaredError(dtype="float64")(target, x)
    return {name: np.asarray(value) for name, value in found.items()}


def with_onnx():
    from onnx import TensorProto, helper
    from onnx.reference import ReferenceEvaluator

    def evaluate(kind, arrays, **attrs):
        names = [f"in{i}" for i in range(len(arrays))]
        node = helper.make_node(kind, names, ["out"], **attrs)
        infos = [helper.make_tensor_value_info(name, TensorProto.DOUBLE, None) for name in names]
        body = helper.make_graph([node], "one", infos, [helper.make_tensor_value_info("out", TensorProto.DOUBLE, None)])
        model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)
        return ReferenceEvaluator(model).run(None, dict(zip(names, arrays)))[0]

    found = {}
    # ONNX has i o f c and z r h.
    orders = {"rnn": [0], "lstm": [0, 3, 1, 2], "gru": [1, 0, 2]}
    for kind, order in orders.items():
        x, *given = recurrent(kind)
        w, r, first, second = (np.concatenate([a[g * HIDDEN : (g + 1) * HIDDEN] for g in order]) for a in given)
        attrs = {"linear_before_reset": 1} if kind == "gru" else {}
        arrays = [x.swapaxes(0, 1), w[None], r[None], np.concatenate([first, second])[None]]
        found[kind] = evaluate(kind.upper(), arrays, hidden_size=HIDDEN, **attrs)[:, 0].swapaxes(0, 1)
    for name, (_, _, _, _, size, stride, padding, groups, _) in CONVS.items():
        attrs = {"kernel_shape": [size, size], "strides": [stride, stride], "pads": 4 * [padding], "group": groups}
        found[name] = evaluate("Conv", convolution(name), **attrs)
    arrays = [draw("dense", *shape) for shape in ((3, 5), (7, 5), (7,))]
    found["dense"] = evaluate("Gemm", arrays, transB=1)
    # Opset 11 flattens what follows the axis; onnx's own evaluator does not, so it gets it flat.
    image, bits = draw("image", 2, 3, 4, 5).reshape(2, 60), labels("bits", 2, 3, 4, 5).reshape(2, 60)
    found["flat_softmax_squared_error"] = ((evaluate("Softmax", [image], axis=1) - bits) ** 2).sum()
    return {name: np.asarray(value, np.float64) for name, value in found.items()}


FRAMEWORKS = {"torch": with_torch, "tensorflow": with_keras, "onnx": with_onnx}

if __name__ == "__main__":
    np.savez(sys.argv[2], **FRAMEWORKS[sys.argv[1]]())

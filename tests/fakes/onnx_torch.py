"""ONNX models of opset 11 in torch, operator by operator: what ONNX Runtime lacks, gradients and 16-bit numbers."""

from __future__ import annotations

import torch
from onnx import helper, numpy_helper
from torch.nn import functional

TYPES = {1: torch.float32, 10: torch.float16, 6: torch.int32, 7: torch.int64, 2: torch.uint8, 9: torch.bool}


def tensor(proto):
    """A tensor of a TensorProto."""
    return torch.from_numpy(numpy_helper.to_array(proto).copy())


def run(graph, given, training=False, strided=False):
    """Every tensor of a graph by name, from those that are `given`. `strided`: the groups of group norms are."""
    values = dict(given)
    for node in graph.node:
        attrs = {one.name: helper.get_attribute_value(one) for one in node.attribute if not one.name.startswith("__")}
        args = [values[name] for name in node.input]
        if node.op_type == "Scan":
            made = _scan(values, args, **attrs)
        elif node.op_type == "Dropout":
            made = functional.dropout(args[0], attrs["ratio"], training)
        elif node.op_type == "BatchNormalization":
            made = _batch_norm(len(node.output), *args, **attrs)
        elif node.op_type == "GroupNormalization":
            made = group_norm(*args, strided=strided, **attrs)
        else:
            made = OPS[node.op_type](*args, **attrs)
        made = made if isinstance(made, (list, tuple)) else [made]
        values.update(zip(node.output, made))
    return values


def _scan(outer, args, body, num_scan_inputs):
    count = len(args) - num_scan_inputs
    states, rows, names = args[:count], args[count:], [one.name for one in body.input]
    trace = []
    for step in range(len(rows[0])):
        found = run(body, {**outer, **dict(zip(names, [*states, *(row[step] for row in rows)]))})
        ends = [found[one.name] for one in body.output]
        states = ends[:count]
        trace.append(ends[count:])
    return [*states, *(torch.stack(column) for column in zip(*trace))]


def _batch_norm(count, x, scale, bias, mean, variance, epsilon, momentum=0.9):
    own_mean, own_variance = mean, variance
    if count > 1:
        own_mean, own_variance = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
    column = (slice(None), None, None)
    factor = (scale.to(x) / (own_variance + epsilon).sqrt())[column].to(x)
    y = (x - own_mean[column].to(x)) * factor + bias.to(x)[column]
    if count == 1:
        return y
    moved = [
        old * momentum + new.detach().to(old) * (1 - momentum)
        for old, new in ((mean, own_mean), (variance, own_variance))
    ]
    return [y, *moved, own_mean, own_variance]


def _conv(x, weight, bias=None, group=1, kernel_shape=None, strides=(1, 1), pads=(0, 0, 0, 0)):
    top, left, bottom, right = pads
    return functional.conv2d(functional.pad(x, (left, right, top, bottom)), weight, bias, tuple(strides), groups=group)


def _max_pool(x, kernel_shape, strides, pads):
    top, left, bottom, right = pads
    x = functional.pad(x, (left, right, top, bottom), value=float("-inf"))
    return functional.max_pool2d(x, tuple(kernel_shape), tuple(strides))


def _instance_norm(x, scale, bias, epsilon):
    axes = tuple(range(2, x.dim()))
    centred = x - x.mean(axes, keepdim=True)
    normed = centred / (centred.square().mean(axes, keepdim=True) + epsilon).sqrt()
    shape = (-1,) + (1,) * len(axes)
    return normed * scale.reshape(shape) + bias.reshape(shape)


def group_norm(x, scale, bias, num_groups, epsilon=1e-5, strided=False):
    """PopART's operator: the result, and the mean and 1 / deviation of each row and group.

    strided   channel c is in group c % groups
    """
    parts = x.float().reshape(len(x), num_groups, -1, *x.shape[2:])
    if strided:
        parts = x.float().reshape(len(x), -1, num_groups, *x.shape[2:]).transpose(1, 2)
    axes = tuple(range(2, parts.dim()))
    mean = parts.mean(axes, keepdim=True)
    root = (parts.var(axes, unbiased=False, keepdim=True) + epsilon).rsqrt()
    normed = (parts - mean) * root
    normed = (normed.transpose(1, 2) if strided else normed).reshape(x.shape).to(x.dtype)
    shape = (-1,) + (1,) * (x.dim() - 2)
    return normed * scale.reshape(shape) + bias.reshape(shape), mean.flatten(), root.flatten()


def _gemm(a, b, c=None, transB=0):
    product = a @ (b.T if transB else b)
    return product if c is None else product + c


def _over_time(cell, states):
    """A recurrent operator (time, batch, features) from its cell, which gets W x + b, R, the recurrent bias."""

    def recurrent(x, w, r, b=None, hidden_size=0, linear_before_reset=0):
        rows = w.shape[1]
        b = torch.zeros(1, 2 * rows).to(w) if b is None else b
        carried = [x.new_zeros(x.shape[1], hidden_size)] * states
        trace = []
        for step in x:
            carried = cell(step @ w[0].T + b[0, :rows], r[0], b[0, rows:], *carried)
            trace.append(carried[0])
        return torch.stack(trace)[:, None]

    return recurrent


def _rnn(x, r, bias, h):
    return [torch.tanh(x + h @ r.T + bias)]


def _lstm(x, r, bias, h, c):
    i, o, f, g = (x + h @ r.T + bias).chunk(4, 1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return [o.sigmoid() * c.tanh(), c]


def _gru(x, r, bias, h):
    (xz, xr, xn), (hz, hr, hn) = x.chunk(3, 1), (h @ r.T + bias).chunk(3, 1)
    z = (xz + hz).sigmoid()
    n = (xn + (xr + hr).sigmoid() * hn).tanh()
    return [(1 - z) * n + z * h]


def _log_softmax(x, axis):
    rows = 1
    for size in x.shape[:axis]:
        rows *= size
    return functional.log_softmax(x.reshape(rows, -1), 1).reshape(x.shape)


def _one_hot(x, depth, values, axis):
    hot = functional.one_hot(x.long(), int(depth)).movedim(-1, axis)
    return values[0] + (values[1] - values[0]) * hot.to(values.dtype)


def _reduce(name):
    def reduce(x, axes=None, keepdims=1):
        axes = tuple(range(x.dim())) if axes is None else tuple(axes)
        return getattr(x, name)(axes, keepdim=bool(keepdims)) if axes else x

    return reduce


def _split(x, axis=0, split=None):
    return x.split(list(split), axis) if split else None


def _pad(x, pads):
    half = len(pads) // 2
    pairs = [(int(pads[axis]), int(pads[axis + half])) for axis in reversed(range(half))]
    return functional.pad(x, [number for pair in pairs for number in pair])


# Operators that torch has by the same name.
NAMED = ("Add", "Sub", "Mul", "Div", "Pow", "Sqrt", "Neg", "Abs", "Exp", "Log", "Tanh", "Sigmoid")
OPS = {
    "Constant": lambda value: tensor(value),
    "Identity": lambda x: x,
    "Cast": lambda x, to: x.to(TYPES[to]),
    "Conv": _conv,
    "MaxPool": _max_pool,
    "InstanceNormalization": _instance_norm,
    "GlobalAveragePool": lambda x: x.mean((2, 3), keepdim=True),
    "Gemm": _gemm,
    "RNN": _over_time(_rnn, 1),
    "LSTM": _over_time(_lstm, 2),
    "GRU": _over_time(_gru, 1),
    "Squeeze": lambda x, axes: x.squeeze(axes[0]),
    "Flatten": lambda x, axis: x.reshape(*x.shape[:axis], -1),
    "Reshape": lambda x, shape: x.reshape([int(one) for one in shape]),
    "Transpose": lambda x, perm: x.permute(*perm),
    "Concat": lambda *xs, axis: torch.cat(xs, axis),
    "Split": _split,
    "Gather": lambda x, index, axis=0: x.select(axis, int(index)),
    "Pad": _pad,
    "OneHot": _one_hot,
    "LogSoftmax": _log_softmax,
    "ReduceMean": _reduce("mean"),
    "ReduceSum": _reduce("sum"),
    "Clip": lambda x, low, high: x.clamp(float(low), float(high)),
    "HardSigmoid": lambda x, alpha, beta: (x * alpha + beta).clamp(0, 1),
    "Where": torch.where,
    "Less": torch.less,
    "RandomNormal": lambda shape, dtype: torch.randn(*shape).to(TYPES[dtype]),
    "RandomUniform": lambda shape, dtype: torch.rand(*shape).to(TYPES[dtype]),
    **{name: getattr(torch, name.lower()) for name in NAMED},
    "Relu": torch.relu,
}

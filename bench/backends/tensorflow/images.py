"""The primitives of image networks as TensorFlow operations on (batch, height, width, channels).

Each takes a `Lowered` of `lowering.py`, which has the variables and their values, collects new running statistics
(so that a recomputed block updates them only once), and makes the seeds of dropout.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Union

import tensorflow as tf
from tensorflow.python.util import _pywrap_util_port

from bench.graph import Node

Call = Callable[..., Any]
Padding = Union[str, List[List[int]]]
# With fewer channels than this, calling a convolution costs more than computing it, so groups are joined.
JOINED_CHANNELS = 16
# Without oneDNN (TensorFlow 2.6, and 2.21 on a processor without AVX-512), TensorFlow fuses a grouped convolution of a
# network with the norm or bias behind it, and its fused kernel fails: it "does not support grouped convolutions".
FUSES_GROUPS = not _pywrap_util_port.IsMklEnabled()


def conv(to: Any, node: Node) -> Call:
    filters, groups, stride = node.shape[1], node.attrs["groups"], node.attrs["stride"]
    channels, size = node.inputs[0].shape[1], node.weights[0].shape[2]
    depthwise = groups == channels
    shape = (size, size, channels, filters // groups) if depthwise else (size, size, channels // groups, filters)

    def native(array: Any) -> Any:
        return array.transpose(2, 3, 1, 0).reshape(shape)

    def back(array: Any) -> Any:
        return array.reshape(size, size, channels // groups, filters).transpose(3, 2, 0, 1)

    kernel = to.variable(node.weights[0], shape, native, back)
    bias = to.variable(node.weights[1], (filters,)) if len(node.weights) > 1 else None
    pads = _padding(node, size)
    if depthwise and to.compute == tf.float16:
        # With explicit padding the backward pass of the fp16 kernel is 25 times faster than with SAME (28x28x192);
        # in fp32 and bf16 it is 2 to 5 times slower, and nowhere does it change the forward pass.
        pads = _explicit(node)
    # TensorFlow 2.21 ends the process when it fuses a depthwise convolution that has explicit padding with its bias
    # and activation ("Invalid index from the dimension"). With a bias, the image is padded first.
    pad_first = depthwise and bias is not None and pads != "SAME"

    def convolve(x: Any) -> Any:
        weight = to.value(kernel)
        if pad_first:
            out = tf.nn.depthwise_conv2d(tf.pad(x, pads), weight, [1, stride, stride, 1], "VALID")
        elif depthwise:
            out = tf.nn.depthwise_conv2d(x, weight, [1, stride, stride, 1], pads)
        elif groups == 1 or to.grouped:
            out = tf.nn.conv2d(x, weight, stride, pads)
        elif FUSES_GROUPS and to.graph.blocks and (bias is not None or not to.training):
            out = _joined(x, weight, groups, stride, pads)
        else:
            out = _grouped(x, weight, groups, stride, pads)
        return out if bias is None else tf.nn.bias_add(out, to.value(bias))

    return convolve


def _grouped(x: Any, weight: Any, groups: int, stride: int, pads: Padding) -> Any:
    """A grouped convolution: forward by TensorFlow's kernel, backward by one convolution for every few groups.

    TensorFlow's CPU kernel for grouped convolution has no gradient. Milliseconds, one thread, batch 8, 3x3, fp32
    (bf16), forward and backward apart, TensorFlow 2.21:
                                         56x56x128 in 32 groups    14x14x512 in 32 groups
        the kernel                        7.5 (6.4)    -            2.8 (1.3)    -
        a convolution a group            31 (16)      46 (33)       5.7 (2.8)    9.3 (6.1)
        a convolution a 16 channels      15 (5.9)     26 (9.8)      5.7 (2.8)    9.3 (6.1)
        a convolution a 32 channels      19 (4.4)     36 (8.7)      5.5 (2.2)   12 (5.0)
        one convolution                  57 (5.6)    114 (20)      62 (9.7)    119 (39)
        patches and a batched product    99 (60)     721 (601)     11 (6.9)    153 (139)
        depthwise, then a sum            41 (38)     122 (128)     27 (14)      71 (36)
    XLA: 178 for the kernel and 129 for a convolution a group, forward on the first.
    """

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def convolve(x: Any, weight: Any) -> Any:
        def gradient(up: Any) -> Any:
            # The result is not used, so only its gradient stays in the graph.
            with tf.GradientTape() as tape:
                tape.watch([x, weight])
                out = _joined(x, weight, groups, stride, pads)
            return tape.gradient(out, [x, weight], up)

        return tf.nn.conv2d(x, weight, stride, pads), gradient

    return convolve(x, weight)


def _joined(x: Any, weight: Any, groups: int, stride: int, pads: Padding) -> Any:
    """A grouped convolution as fewer convolutions: several groups share one, whose kernel is zero between groups."""
    depth, width = weight.shape[2], weight.shape[3] // groups
    joined = min(k for k in range(1, groups + 1) if groups % k == 0 and (k * depth >= JOINED_CHANNELS or k == groups))
    if joined > 1:
        mask = tf.repeat(tf.repeat(tf.eye(joined, dtype=weight.dtype), depth, axis=0), width, axis=1)
        weight = tf.tile(weight, [1, 1, joined, 1]) * tf.tile(mask, [1, groups // joined])
    parts = zip(tf.split(x, groups // joined, axis=3), tf.split(weight, groups // joined, axis=3))
    return tf.concat([tf.nn.conv2d(part, w, stride, pads) for part, w in parts], axis=3)


def _explicit(node: Node) -> List[List[int]]:
    return [[0, 0], *map(list, node.attrs["pads"]), [0, 0]]


def _padding(node: Node, size: int) -> Padding:
    """SAME where it equals the padding of the node, because kernels are faster with it; else the explicit padding."""
    stride = node.attrs["stride"]
    for pixels, out, pads in zip(node.inputs[0].shape[2:], node.shape[2:], node.attrs["pads"]):
        total = max((-(-pixels // stride) - 1) * stride + size - pixels, 0)
        if (total // 2, total - total // 2) != tuple(pads) or out != -(-pixels // stride):
            return _explicit(node)
    return "SAME"


def _batch_norm(to: Any, node: Node) -> Call:
    """The fused kernel. Its parameters and statistics are fp32 in every precision. The running variance averages
    unbiased variances, as in torch.

    In training it is 3 to 6 times as fast as Keras 3, which computes moments (14x14x1024, batch 8, fp32: 5 ms instead
    of 15), and it makes no fp32 copy of 16-bit images.
    """
    scale, shift, mean, variance = (to.variable(weight, weight.shape) for weight in node.weights)
    eps, momentum = node.attrs["eps"], node.attrs["momentum"]

    def norm(x: Any) -> Any:
        factors = [to.value(v, tf.float32) for v in (scale, shift, mean, variance)]
        if not to.training:
            return tf.compat.v1.nn.fused_batch_norm(x, *factors, epsilon=eps, is_training=False)[0]
        out, new_mean, new_variance = tf.compat.v1.nn.fused_batch_norm(
            x, *factors, epsilon=eps, is_training=True, exponential_avg_factor=momentum
        )
        return to.moves(out, [(mean, new_mean), (variance, new_variance)])

    return norm


def _group_norm(to: Any, node: Node) -> Call:
    """One factor and one shift for each row and channel, which allows strided groups."""
    scale, shift = (to.variable(weight, weight.shape) for weight in node.weights)
    rows, channels, height, width = node.shape
    groups, eps = node.attrs["groups"], node.attrs["eps"]
    strided = node.attrs["strided"]
    parts = [rows, channels // groups, groups] if strided else [rows, groups, channels // groups]
    axis = 1 if strided else 2

    def shared(x: Any) -> Any:
        """The mean over each group, for each of its channels: (rows, channels) to (rows, 1, 1, channels)."""
        mean = tf.reduce_mean(tf.reshape(x, parts), axis=axis, keepdims=True)
        return tf.reshape(tf.broadcast_to(mean, parts), [rows, 1, 1, channels])

    def factors(x: Any) -> Any:
        """The mean and 1 / standard deviation, (rows, 1, 1, channels), in fp32."""
        exact = tf.cast(x, tf.float32)
        mean = shared(tf.reduce_mean(exact, axis=[1, 2]))
        square = tf.reduce_mean(tf.math.squared_difference(exact, mean), axis=[1, 2])
        return mean, tf.math.rsqrt(shared(square) + eps)

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def normed(x: Any, scale: Any, shift: Any) -> Any:
        mean, root = factors(x)
        slope = root * scale
        out = x * tf.cast(slope, x.dtype) + tf.cast(shift - mean * slope, x.dtype)

        def gradient(up: Any) -> Any:
            """Two sums over the pixels and one more pass; the tape would make a dozen passes."""
            wide = tf.cast(up, tf.float32)
            total = tf.reduce_sum(wide, axis=[1, 2], keepdims=True)
            along = tf.reduce_sum(wide * tf.cast(x, tf.float32), axis=[1, 2], keepdims=True)
            along = (along - mean * total) * root
            to_scale, to_shift = (tf.reduce_sum(part, axis=[0, 1, 2]) for part in (along, total))
            pixels = float(height * width)
            both = shared(tf.reshape(along * scale, [rows, channels])) * root * root / pixels
            alone = shared(tf.reshape(total * scale, [rows, channels])) * root / pixels
            to_x = up * tf.cast(slope, x.dtype) - x * tf.cast(both, x.dtype)
            return to_x + tf.cast(mean * both - alone, x.dtype), to_scale, to_shift

        return out, gradient

    return lambda x: normed(x, to.value(scale, tf.float32), to.value(shift, tf.float32))


def _max_pool(to: Any, node: Node) -> Call:
    size, stride = node.attrs["kernel"], node.attrs["stride"]
    pads = _padding(node, size)

    def pool(x: Any) -> Any:
        if pads == "SAME":
            return tf.nn.max_pool2d(x, size, stride, "SAME")
        return tf.nn.max_pool2d(tf.pad(x, pads, constant_values=x.dtype.min), size, stride, "VALID")

    return pool


def _normalise(to: Any, node: Node) -> Call:
    scale, shift = (tf.constant(node.attrs[key], to.compute) for key in ("scale", "shift"))
    return lambda x: tf.cast(x, to.compute) * scale + shift


def _dropout(to: Any, node: Node) -> Call:
    rate = node.attrs["rate"]
    shape = (node.shape[0],) + (1,) * (len(node.shape) - 1) if node.attrs["rows"] else None

    def drop(x: Any) -> Any:
        if not to.training:
            return x
        # The seed makes a recomputed block draw the same numbers again.
        mask = tf.random.stateless_uniform(shape or x.shape, to.seed()) >= rate
        return x * (tf.cast(mask, x.dtype) / (1 - rate))

    return drop


def _pad_channels(to: Any, node: Node) -> Call:
    added = node.shape[1] - node.inputs[0].shape[1]
    return lambda x: tf.pad(x, [[0, 0], [0, 0], [0, 0], [0, added]])


def _blend(to: Any, node: Node) -> Call:
    return lambda x, share: share * x + (1 - share) * tf.roll(x, node.attrs["shift"], axis=0) if to.training else x


def _parameterless(function: Call) -> Callable[[Any, Node], Call]:
    return lambda to, node: function


def _hard_sigmoid(x: Any) -> Any:
    return tf.nn.relu6(x + 3) * (1 / 6)


def cross_entropy(attrs: Dict[str, Any], output: Any, labels: Any, *shares: Any) -> Any:
    """The mean cross entropy with smoothed labels. With `shares`, (batch, targets), the labels are mixed."""
    on, off = attrs["on"], attrs["off"]
    if not shares and (on, off) == (1.0, 0.0):
        return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, output))
    logs = tf.nn.log_softmax(output)
    columns = [tf.gather(logs, tf.roll(labels, roll, axis=0), axis=1, batch_dims=1) for roll in attrs["rolls"]]
    own = tf.reduce_sum(tf.stack(columns, axis=1) * shares[0], axis=1) if shares else columns[0]
    return -tf.reduce_mean((on - off) * own + off * tf.reduce_sum(logs, axis=1))


def _mean(x: Any, keepdims: bool = False) -> Any:
    """The mean over the pixels. The sum is in fp32, as in Keras's pooling: the largest number of fp16 is 65,504."""
    return tf.cast(tf.reduce_mean(tf.cast(x, tf.float32), axis=[1, 2], keepdims=keepdims), x.dtype)


LAYERS: Dict[str, Callable[[Any, Node], Call]] = {
    "conv": conv,
    "batch_norm": _batch_norm,
    "group_norm": _group_norm,
    "max_pool": _max_pool,
    "normalise": _normalise,
    "dropout": _dropout,
    "pad_channels": _pad_channels,
    "blend": _blend,
    "gate": _parameterless(tf.multiply),
    "global_mean": _parameterless(_mean),
    "pooled": _parameterless(lambda x: _mean(x, keepdims=True)),
    "relu6": _parameterless(tf.nn.relu6),
    "sigmoid": _parameterless(tf.sigmoid),
    "silu": _parameterless(tf.nn.silu),
    "hardsigmoid": _parameterless(_hard_sigmoid),
    "hardswish": _parameterless(lambda x: x * _hard_sigmoid(x)),
}

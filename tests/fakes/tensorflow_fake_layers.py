"""PopLibs's recurrent layers on the CPU, with the variables and the refusals of the true ones."""

from __future__ import annotations

from typing import Any, List

import contract
import tensorflow as tf
from tensorflow.python.ops import gen_math_ops, gen_nn_ops
from tensorflow_fake_run import System

# TensorFlow's CPU kernel for a convolution of groups has no gradient; an IPU's has.
_true_conv2d = tf.nn.conv2d


def _conv2d(input: Any, filters: Any, strides: Any, padding: Any, **more: Any) -> Any:
    lowered("conv", **System.convolutions)
    rounded(input)
    groups = input.shape[-1] // filters.shape[2]
    if groups == 1:
        return _true_conv2d(input, filters, strides, padding, **more)
    parts = zip(tf.split(input, groups, axis=3), tf.split(filters, groups, axis=3))
    return tf.concat([_true_conv2d(x, w, strides, padding, **more) for x, w in parts], axis=3)


def lowered(kind: str, **options: Any) -> None:
    """Record the options of an operation of a call. Sources, SDK 3.4: `poplar_util.cc`, `rnn_util.cc`."""
    if System.run is not None and not _WITHIN:
        contract.record("tensorflow.lowered", {kind: [options]})


def rounded(x: Any) -> None:
    """Record how the results of an operation are rounded, if they have 16 bits."""
    if getattr(x, "dtype", None) == tf.float16:
        lowered("rounding", stochastic=System.rounds)


# Fake layers that are being computed: the operations in them are no operations of an IPU.
_WITHIN: List[Any] = []


def _recording(true: Any, kind: str, options: Any) -> Any:
    def call(*args: Any, **kwargs: Any) -> Any:
        lowered(kind, **options(kwargs))
        rounded(args[0] if args else next(iter(kwargs.values())))
        return true(*args, **kwargs)

    return call


def _product_options(kwargs: Any) -> Any:
    return System.products


def _norm_options(kwargs: Any) -> Any:
    return {"stable": System.stable and kwargs.get("is_training", True)}


tf.nn.conv2d = _conv2d
tf.nn.depthwise_conv2d = _recording(tf.nn.depthwise_conv2d, "conv", lambda kwargs: System.convolutions)
# Keras 2.6 calls the operations themselves.
for _module in (gen_math_ops, tf.raw_ops, tf.compat.v2.raw_ops):
    for _name in ("mat_mul", "MatMul", "batch_mat_mul", "batch_mat_mul_v2", "batch_mat_mul_v3", "BatchMatMulV2"):
        if hasattr(_module, _name):
            setattr(_module, _name, _recording(getattr(_module, _name), "matmul", _product_options))
gen_nn_ops.fused_batch_norm_v3 = _recording(gen_nn_ops.fused_batch_norm_v3, "norm", _norm_options)


class GroupNorm:
    """PopLibs's group norm of (rows, height, width, channels), as addons' `normalization.py` has it."""

    def __init__(self, groups: int = 2, channels_axis: int = -1, epsilon: float = 1e-3, **told: Any) -> None:
        assert channels_axis in (-1, 3)
        self.groups, self.epsilon, self.strided = groups, epsilon, told.get("strided_channel_grouping", True)
        self.kind = tf.as_dtype(told.get("dtype") or "float32")

    def build(self, input_shape: Any) -> None:
        if input_shape[-1] % self.groups:
            raise ValueError(f"{input_shape[-1]} channels is not commensurate with {self.groups} groups.")
        self.gamma, self.beta = (tf.Variable(one(input_shape[-1:], self.kind)) for one in (tf.ones, tf.zeros))

    def __call__(self, inputs: Any, training: Any = None) -> Any:
        assert isinstance(training, bool), "Keras's own learning phase"
        assert inputs.dtype == self.kind, f"inputs of {inputs.dtype} in a layer of {self.kind}"
        lowered("norm", stable=System.stable, strided=self.strided)
        rounded(inputs)
        rows, height, width, channels = inputs.shape
        parts = [channels // self.groups, self.groups] if self.strided else [self.groups, channels // self.groups]
        split = tf.reshape(tf.cast(inputs, tf.float32), [rows, height, width, *parts])
        mean, variance = tf.nn.moments(split, [1, 2, 3 if self.strided else 4], keepdims=True)
        normed = tf.reshape((split - mean) * tf.math.rsqrt(variance + self.epsilon), inputs.shape)
        return tf.cast(normed, self.kind) * tf.convert_to_tensor(self.gamma) + tf.convert_to_tensor(self.beta)


class _Recurrent:
    GATES = 0

    def __init__(self, units: int, use_bias: bool = True, return_sequences: bool = False, **told: Any) -> None:
        if not use_bias:
            raise ValueError("IPU custom layers do not support use_bias = False.")
        self.units, self.whole = units, return_sequences
        self.kind = tf.as_dtype(told.get("dtype") or "float32")
        if self.kind not in (tf.float16, tf.float32):
            raise ValueError(f"Only support float16, float32, provided {self.kind}")
        partials = "half" if told.get("partials_dtype") == tf.float16 else "float"
        self.options = {**System.products, "partialsType": partials, **(told.get("options") or {})}
        if told.get("partials_dtype", tf.float32) not in (tf.float16, tf.float32):
            raise ValueError("partials_dtype must be float16 or float32")

    def _weight(self, *shape: int) -> Any:
        return tf.Variable(tf.zeros(shape, self.kind))

    def build(self, input_shape: Any) -> None:
        wide = self.GATES * self.units
        self.kernel = self._weight(input_shape[-1], wide)
        self.recurrent_kernel = self._weight(self.units, wide)
        self.biases = self._weight(*self.bias_shape(wide))

    def bias_shape(self, wide: int) -> Any:
        return (wide,)

    def __call__(self, inputs: Any, **more: Any) -> Any:
        return self.call(inputs, **more)

    def call(self, inputs: Any, mask: Any = None, training: Any = None, initial_state: Any = None) -> Any:
        assert inputs.dtype == self.kind, f"inputs of {inputs.dtype} in a layer of {self.kind}"
        # As addons `rnn.py`: Keras's learning phase is a number, and what is no bool is taken for training.
        training = training if isinstance(training, bool) else True
        lowered(type(self).__name__.lower(), training=training, **self.options)
        weights = [tf.convert_to_tensor(one) for one in (self.kernel, self.recurrent_kernel, self.biases)]
        state = [tf.zeros((inputs.shape[0], self.units), self.kind)] * 2
        found = []
        _WITHIN.append(self)
        for time in range(inputs.shape[1]):
            state = self.step(inputs[:, time], state, *weights)
            found.append(state[0])
        _WITHIN.pop()
        return tf.stack(found, axis=1) if self.whole else state[0]

    def step(self, x: Any, state: Any, kernel: Any, recurrent: Any, biases: Any) -> Any:
        raise NotImplementedError


class LSTM(_Recurrent):
    """Gates i f c o, as in Keras."""

    GATES = 4

    def step(self, x: Any, state: Any, kernel: Any, recurrent: Any, biases: Any) -> Any:
        h, c = state
        i, f, g, o = tf.split(x @ kernel + h @ recurrent + biases, 4, axis=1)
        c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(g)
        return [tf.sigmoid(o) * tf.tanh(c), c]


class GRU(_Recurrent):
    """Gates z r h, reset after the product, as in Keras."""

    GATES = 3

    def bias_shape(self, wide: int) -> Any:
        return (2, wide)

    def step(self, x: Any, state: Any, kernel: Any, recurrent: Any, biases: Any) -> Any:
        h = state[0]
        xz, xr, xh = tf.split(x @ kernel + biases[0], 3, axis=1)
        hz, hr, hh = tf.split(h @ recurrent + biases[1], 3, axis=1)
        z, r = tf.sigmoid(xz + hz), tf.sigmoid(xr + hr)
        return [z * h + (1 - z) * tf.tanh(xh + r * hh), h]

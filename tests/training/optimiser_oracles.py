"""Optimisers as float64 formulas, one tensor at a time: the judges of what frameworks do in an update.

    weights, state = step("momentum", weights, gradient, state, rate, momentum=0.9)

The state is a dictionary of arrays, empty before the first update. Nothing that is given is written to. `decay` is
the weight decay, 0 unless given; everywhere but in adamw and lars it is added to the gradient: g <- g + decay * w.
Nothing of bench/ is in here.
"""

from __future__ import annotations

import numpy as np


def step(kind, weights, gradient, state, rate, **settings):
    """Return the weights and the state after an update of `kind`, one of KINDS, at the learning rate `rate`."""
    weights, gradient = np.asarray(weights, np.float64), np.asarray(gradient, np.float64)
    return KINDS[kind](weights, gradient, state, rate, **settings)


def sgd(weights, gradient, state, rate, decay=0.0):
    """w <- w - rate * g"""
    return weights - rate * (gradient + decay * weights), {}


def momentum(weights, gradient, state, rate, momentum=0.9, nesterov=False, decay=0.0):
    """v <- momentum * v + g;  w <- w - rate * v, or with nesterov w - rate * (g + momentum * v)

    The rate is outside of v, as in torch and TensorFlow: a rate that falls takes the old gradients with it.
    """
    gradient = gradient + decay * weights
    velocity = momentum * state.get("velocity", 0.0) + gradient
    direction = gradient + momentum * velocity if nesterov else velocity
    return weights - rate * direction, {"velocity": velocity}


def rmsprop(weights, gradient, state, rate, smoothing=0.99, epsilon=1e-8, momentum=0.0, decay=0.0):
    """s <- smoothing * s + (1 - smoothing) * g^2, from 0;  v <- momentum * v + g / (sqrt(s) + epsilon)
    w <- w - rate * v

    Source   torch.optim.RMSprop: epsilon outside of the root, the rate outside of v
    """
    gradient = gradient + decay * weights
    square = smoothing * state.get("square", 0.0) + (1 - smoothing) * gradient**2
    velocity = momentum * state.get("velocity", 0.0) + gradient / (np.sqrt(square) + epsilon)
    return weights - rate * velocity, {"square": square, "velocity": velocity}


def rmsprop_tf(weights, gradient, state, rate, smoothing=0.9, epsilon=1e-3, momentum=0.0, decay=0.0):
    """s <- smoothing * s + (1 - smoothing) * g^2, from 1;  v <- momentum * v + rate * g / sqrt(s + epsilon)
    w <- w - v

    Source   tf.compat.v1.train.RMSPropOptimizer: epsilon inside of the root, the rate inside of v, s from ones.
             Keras starts s from zeros. epsilon=1e-3 is Graphcore's TensorFlow CNN harness, SDK 2.0; TensorFlow's
             own is 1e-10.
    """
    gradient = gradient + decay * weights
    square = smoothing * state.get("square", 1.0) + (1 - smoothing) * gradient**2
    velocity = momentum * state.get("velocity", 0.0) + rate * gradient / np.sqrt(square + epsilon)
    return weights - velocity, {"square": square, "velocity": velocity}


def adam(weights, gradient, state, rate, first=0.9, second=0.999, epsilon=1e-8, decay=0.0):
    """m <- first * m + (1 - first) * g;  s <- second * s + (1 - second) * g^2
    w <- w - rate * (m / (1 - first^t)) / (sqrt(s / (1 - second^t)) + epsilon), t = 1, 2, ...

    Source   Kingma and Ba 2015, algorithm 1
    """
    gradient = gradient + decay * weights
    count = state.get("count", 0) + 1
    mean = first * state.get("mean", 0.0) + (1 - first) * gradient
    square = second * state.get("square", 0.0) + (1 - second) * gradient**2
    direction = mean / (1 - first**count) / (np.sqrt(square / (1 - second**count)) + epsilon)
    return weights - rate * direction, {"count": count, "mean": mean, "square": square}


def adamw(weights, gradient, state, rate, decay=0.0, **settings):
    """Adam of weights that shrink by themselves: w <- (1 - rate * decay) * w before the update.

    Source   Loshchilov and Hutter 2019, as in torch.optim.AdamW, whose decay is 0.01 unless given
    """
    return adam(weights * (1 - rate * decay), gradient, state, rate, **settings)


def lars(weights, gradient, state, rate, coefficient=0.001, momentum=0.9, epsilon=0.0, decay=0.0):
    """trust = coefficient * |w| / (|g| + decay * |w| + epsilon), norms over the tensor; 1 if |w| or |g| is 0
    v <- momentum * v + rate * trust * (g + decay * w);  w <- w - v

    Source   You et al. 2017, algorithm 1: the decay inside, the rate inside of v. coefficient=0.001 and epsilon=0
             are --lars-eeta and --lars-epsilon of Graphcore's TensorFlow CNN harness, SDK 2.0. That harness used
             tf.contrib.opt.LARSOptimizer, which differs: its decay is in the trust alone, and its v has no rate
             and no trust, w <- w - rate * trust * v. The trust of zeros is from there; the paper has none.
    """
    of_weights, of_gradient = np.linalg.norm(weights), np.linalg.norm(gradient)
    trust = 1.0
    if of_weights > 0 and of_gradient > 0:
        trust = coefficient * of_weights / (of_gradient + decay * of_weights + epsilon)
    velocity = momentum * state.get("velocity", 0.0) + rate * trust * (gradient + decay * weights)
    return weights - velocity, {"velocity": velocity}


KINDS = {
    "sgd": sgd,
    "momentum": momentum,
    "rmsprop": rmsprop,
    "rmsprop_tf": rmsprop_tf,
    "adam": adam,
    "adamw": adamw,
    "lars": lars,
}

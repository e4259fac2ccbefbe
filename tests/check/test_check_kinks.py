"""The check of updates where slopes jump: relus, pools and choices, whose gradients are worked out by hand here.

The derivative of each operation is written out below, so that no central difference stands behind these programs.
"""

from __future__ import annotations

import numpy as np
import pytest
from test_check import case_of

from bench import check, workloads
from bench.cases.case import Case, Settings
from bench.cases.errors import Wrong
from bench.cases.precision import PRECISIONS
from bench.graph import Graph, draws
from bench.graph.reference import evaluate
from bench.program import Program

SIZES = ((128, 4), (256, 128), (1024, 32), (2048, 4))
ROWS, UNITS = 128, 256


class Trained(Program):
    """The reference, trained by `factor` times the gradients of `slopes_of(weights, inputs)`."""

    def __init__(self, graph, weights, case, slopes_of, factor):
        super().__init__(graph, case, Settings())
        self.slopes_of, self.factor = slopes_of, factor
        self.types = PRECISIONS[case.precision]
        self.compute_dtype, self.weight_dtype = self.types.compute, self.types.weights
        self.load(weights)

    def convert(self, batch):
        return batch

    def keep(self, batches):
        (self.inputs,) = batches

    def run_resident(self):
        computed = {name: draws.rounded(array, self.types.compute) for name, array in self.values.items()}
        output, terms = evaluate(self.graph, computed, self.inputs, "float64")
        self.output, self.loss = draws.rounded(output, self.types.compute), terms.sum()
        for name, slope in self.slopes_of(computed, self.inputs).items():
            moved = np.float64(self.values[name]) - self.factor * self.rate * slope
            self.values[name] = draws.rounded(moved, self.types.weights)

    def outputs(self):
        return {"output": np.float64(self.output), "loss": np.float64(self.loss)}

    def weights(self):
        return {name: np.float64(array) for name, array in self.values.items()}

    def load(self, weights):
        self.values = dict(weights)

    def set_learning_rate(self, rate):
        self.rate = rate


def dense_slopes(derivative):
    """The gradients of the mean of f(x W' + b), where `derivative` is that of f."""

    def slopes(weights, inputs):
        (weight_name, weight), (bias_name, bias) = sorted(weights.items(), key=lambda item: -item[1].ndim)
        x = np.float64(inputs["input0"]).reshape(-1, weight.shape[1])
        y = x @ np.float64(weight).T + bias
        share = derivative(y) / y.size
        return {weight_name: share.T @ x, bias_name: share.sum(axis=0)}

    return slopes


def checked(graph, slopes_of, precision="fp32", scale=1.0, factor=1.0):
    weights = draws.weights(graph, PRECISIONS[precision].weights)
    weights = {name: np.float32(scale) * array for name, array in weights.items()}
    case = Case("tiny", "tiny", {}, "training", graph.batch_size, precision, 1, "numpy", "cpu")
    return check.require(Trained(graph, weights, case, slopes_of, factor), graph, case, weights)


def relu_layer(units, batch_size):
    return workloads.checked(case_of("dense", "training", batch_size=batch_size, units=units, activation="relu"))


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("units, batch_size", SIZES)
def test_a_right_update_of_a_relu_layer_passes(units, batch_size, precision):
    found = checked(relu_layer(units, batch_size), dense_slopes(lambda y: y > 0), precision)

    assert found["gradient_error"] < PRECISIONS[precision].gradient_tolerance / 10


@pytest.mark.parametrize("factor", [-1, 0, 0.5, 2])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_wrong_factor_of_a_relu_layer_is_found(precision, factor):
    with pytest.raises(Wrong, match="update of one training step is off by"):
        checked(relu_layer(256, 128), dense_slopes(lambda y: y > 0), precision, factor=factor)


@pytest.mark.parametrize("units, batch_size", SIZES)
def test_an_update_of_a_relu_layer_that_is_one_per_cent_long_is_found_in_fp32(units, batch_size):
    with pytest.raises(Wrong, match=r"update of one training step is off by .* of its norm .*, 0\.002 is allowed"):
        checked(relu_layer(units, batch_size), dense_slopes(lambda y: y > 0), factor=1.01)


def test_a_gradient_that_passes_below_zero_is_found():
    """As of a relu that was left out of the backward pass: half of the gradient is too much."""
    with pytest.raises(Wrong, match="update of one training step is off by"):
        checked(relu_layer(256, 128), dense_slopes(np.ones_like), "bf16")


def dense_then(act):
    net = Graph(ROWS, random_as_inputs=True, training=True)
    net.output = act(net, net.dense(net.input(UNITS), UNITS))
    net.loss = net.mean(net.output)
    return net


def looped():
    """A relu in the body of a loop of one step."""
    net = Graph(ROWS, random_as_inputs=True, training=True)
    x = net.input(1, UNITS)

    def body(inner, states, slices):
        return [inner.relu(inner.dense(slices[0], UNITS))]

    net.output = net.scan(body, [net.fill(0.0, UNITS)], [x])
    net.loss = net.mean(net.output)
    return net


def chosen(net, y):
    """3 y where y < 0, else y."""
    return net.where_less(y, net.fill(0.0, UNITS), net.affine(y, 3.0), y)


# Each operation, the derivative of what is made of it, and the scale of weights at which many values are near a jump.
KINKS = {
    "relu": (lambda: dense_then(Graph.relu), lambda y: y > 0, 1),
    "relu6": (lambda: dense_then(lambda net, y: net.activation(y, "relu6")), lambda y: (y > 0) & (y < 6), 6),
    "hardsigmoid": (
        lambda: dense_then(lambda net, y: net.activation(y, "hardsigmoid")),
        lambda y: (abs(y) < 3) / 6,
        6,
    ),
    "hardswish": (
        lambda: dense_then(lambda net, y: net.activation(y, "hardswish")),
        lambda y: (y >= 3) + (abs(y) < 3) * (2 * y + 3) / 6,
        6,
    ),
    "where_less": (lambda: dense_then(chosen), lambda y: 1 + 2 * (y < 0), 1),
    "scan": (looped, lambda y: y > 0, 1),
}


@pytest.mark.parametrize("kind", KINKS)
def test_a_right_update_passes_beside_a_kink(kind):
    graph, derivative, scale = KINKS[kind]

    assert checked(graph(), dense_slopes(derivative), scale=scale)["gradient_error"] < 2e-4


@pytest.mark.parametrize("kind", KINKS)
def test_a_wrong_factor_is_found_beside_a_kink(kind):
    graph, derivative, scale = KINKS[kind]

    with pytest.raises(Wrong, match="update of one training step is off by"):
        checked(graph(), dense_slopes(derivative), scale=scale, factor=1.01)


def pooled():
    """The largest of each 2 x 2 pixels behind a convolution of one pixel."""
    net = Graph(8, random_as_inputs=True, training=True)
    y = net.conv(net.image(3, 32), 16, 1, padding=0)
    net.output = net.max_pool(y, 2, stride=2, padding=0)
    net.loss = net.mean(net.output)
    return net


def pooled_slopes(weights, inputs):
    (weight_name, weight), (bias_name, _) = sorted(weights.items(), key=lambda item: -item[1].ndim)
    x = np.float64(inputs["input0"])
    y = np.einsum("bchw,oc->bohw", x, np.float64(weight[:, :, 0, 0]))
    # Windows last: (batch, channels, rows, columns, 4).
    cut = [array.reshape(*array.shape[:2], 16, 2, 16, 2).swapaxes(3, 4).reshape(8, -1, 16, 16, 4) for array in (x, y)]
    largest = np.eye(4)[cut[1].argmax(axis=-1)] / (y.size / 4)
    slope = np.einsum("bohwk,bchwk->oc", largest, cut[0])
    return {weight_name: slope[:, :, None, None], bias_name: largest.sum(axis=(0, 2, 3, 4))}


def test_a_right_update_passes_behind_a_max_pool():
    assert checked(pooled(), pooled_slopes)["gradient_error"] < 2e-4


def test_a_wrong_factor_is_found_behind_a_max_pool():
    with pytest.raises(Wrong, match="update of one training step is off by"):
        checked(pooled(), pooled_slopes, factor=1.01)


def many_terms(relu):
    """As `conv` in training: two million terms near 1, and kinks among them."""
    net = Graph(1, random_as_inputs=True, training=True)
    y = net.conv(net.image(4, 320), 64, 4, stride=2, padding=3)
    net.output = net.relu(y) if relu else y
    net.loss = net.flat_softmax_squared_error(net.output, net.labels(*y.shape[1:], values="bits"))
    return net


@pytest.mark.parametrize("relu", [False, True])
def test_the_slope_of_many_terms_near_one_is_known_beside_kinks(relu):
    graph = many_terms(relu)
    weights = draws.weights(graph, "float32")
    inputs = draws.inputs(graph, "float32", 1)
    case = Case("tiny", "tiny", {}, "training", 1, "fp32", 1, "numpy", "cpu")

    found = check._Update(graph, case, weights, inputs)

    for direction, slope, error in found.directions:
        expected = slope_of_softmax(weights, *inputs.values(), direction, relu)
        assert abs(slope - expected) <= 2e-4 * found.largest_slope
        assert error <= 2e-4 * found.largest_slope


def slope_of_softmax(weights, image, labels, direction, relu):
    """d/dt of sum (softmax(f(y + t y')) - l)^2 at 0, in which y' is the convolution with the direction."""
    plain = many_terms(False)
    given = dict(zip(plain.inputs, (image, labels)))
    y, along = (evaluate(plain, each, given, "float64")[0] for each in (weights, direction))
    along = along * (y > 0) if relu else along
    p = np.exp(np.maximum(y, 0) if relu else y)
    p /= p.sum()
    return float((2 * (p - labels) * p * (along - (p * along).sum())).sum())


def test_a_larger_step_is_taken_where_rounding_spoils_the_smallest():
    """1 + y / 10,000: at the smallest step, rounding may be a tenth of what changes."""
    graph = dense_then(lambda net, y: net.affine(net.relu(y), 1e-4, 1.0))
    weights, inputs = draws.weights(graph, "float32"), draws.inputs(graph, "float32", 1)
    case = Case("tiny", "tiny", {}, "training", ROWS, "fp32", 1, "numpy", "cpu")

    found = check._Update(graph, case, weights, inputs)

    gradient = dense_slopes(lambda y: 1e-4 * (y > 0))(weights, inputs)
    for direction, slope, error in found.directions:
        expected = sum((gradient[name] * along).sum() for name, along in direction.items())
        assert abs(slope - expected) <= error <= 1e-3 * found.largest_slope

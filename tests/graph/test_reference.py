"""The float64 reference against frameworks' own layers and against numbers worked out by hand."""

from __future__ import annotations

import importlib.util
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import oracles
import pytest

from bench.graph import Graph
from bench.graph.reference import evaluate

pytestmark = pytest.mark.floor
KINDS = ["rnn", "lstm", "gru"]
LOSSES = ["softmax_cross_entropy", "squared_error", "flat_softmax_nll", "flat_softmax_squared_error"]
ANSWERS = {
    "torch": [*KINDS, *oracles.CONVS, "dense", *LOSSES],
    "tensorflow": [*KINDS, *oracles.SAME, *LOSSES[:2]],
    "onnx": [*KINDS, *oracles.CONVS, "dense", LOSSES[3]],
}


@pytest.fixture(scope="session")
def answers(tmp_path_factory):
    """Return a function from a framework to its answers, by name; a process a framework, once."""
    known = {}

    def ask(framework):
        if importlib.util.find_spec(framework) is None:
            pytest.skip(f"{framework} is not installed")
        if framework not in known:
            path = tmp_path_factory.mktemp("oracles") / f"{framework}.npz"
            command = [sys.executable, oracles.__file__, framework, str(path)]
            environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
            done = subprocess.run(command, env=environment, stderr=subprocess.PIPE, timeout=300)
            known[framework] = np.load(str(path)) if done.returncode == 0 else done.stderr.decode()
        assert not isinstance(known[framework], str), known[framework]
        return known[framework]

    return ask


def run(net, given, arrays):
    """Output and loss of `net` in float64; `given` are its weights in order, `arrays` its inputs in order."""
    weights = dict(zip([weight.name for weight in net.weights], given))
    output, terms = evaluate(net, weights, dict(zip(net.inputs, arrays)), "float64")
    return output, None if terms is None else np.sum(terms)


def recurrent(kind, cell=False):
    x, w, r, first, second = oracles.recurrent(kind)
    net = Graph(oracles.BATCH)
    sequence = net.input(oracles.STEPS, oracles.FEATURES)
    if cell:
        states = [net.fill(0.0, oracles.HIDDEN)] * (2 if kind == "lstm" else 1)
        net.output = net.scan(lambda net, states, x: net.cell(kind, x[0], states), states, [sequence])
    else:
        net.output = getattr(net, kind)(sequence, oracles.HIDDEN)
    return run(net, [w, r, first, second][: len(net.weights)], [x])[0]


def convolution(name):
    x, kernel, bias = oracles.convolution(name)
    if name in oracles.CONVS:
        _, filters, _, _, size, stride, padding, groups, biased = oracles.CONVS[name]
    else:
        (_, filters, _, _, size, stride), padding, groups, biased = oracles.SAME[name], "same", 1, False
    net = Graph(2)
    net.output = net.conv(
        net.input(*x.shape[1:]), filters, size, stride=stride, padding=padding, groups=groups, bias=biased
    )
    return run(net, [kernel, bias][: len(net.weights)], [x])[0]


def dense():
    net = Graph(3)
    net.output = net.dense(net.input(5), 7)
    return run(net, [oracles.draw("dense", 7, 5), oracles.draw("dense", 7)], [oracles.draw("dense", 3, 5)])[0]


def loss(name, x, target):
    net = Graph(len(x))
    net.output = net.input(*x.shape[1:])
    values = "classes" if target.dtype.kind == "i" else "bits"
    net.loss = getattr(net, name)(net.output, net.labels(*target.shape[1:], values=values))
    return run(net, [], [x, target])[1]


def loss_of_oracle(name):
    x = oracles.draw("logits", 3, 4, 5)
    if name == "flat_softmax_nll":
        return loss(name, x, oracles.labels("classes", 3, 4))
    if name == "flat_softmax_squared_error":
        return loss(name, oracles.draw("image", 2, 3, 4, 5), oracles.labels("bits", 2, 3, 4, 5).astype("float64"))
    return loss(name, x, oracles.distribution("target", 3, 4, 5))


def ours(name):
    if name in KINDS:
        return recurrent(name)
    if name == "dense":
        return dense()
    return loss_of_oracle(name) if name in LOSSES else convolution(name)


@pytest.mark.parametrize("framework, name", [(key, name) for key, names in ANSWERS.items() for name in names])
def test_the_reference_says_what_a_framework_says(answers, framework, name):
    expected = answers(framework)[name]

    got = ours(name)

    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=1e-6 if framework == "onnx" else 1e-10, atol=1e-12)


def test_every_question_is_answered_by_somebody():
    asked = {name for names in ANSWERS.values() for name in names}

    assert asked == {*KINDS, *LOSSES, *oracles.CONVS, *oracles.SAME, "dense"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_cell_in_a_loop_is_the_layer(kind):
    np.testing.assert_allclose(recurrent(kind, cell=True), recurrent(kind), rtol=1e-12)


def naive(x, kernel, bias, stride, pads, groups):
    """A convolution by its definition, one product at a time."""
    (top, bottom), (left, right) = pads
    padded = np.zeros((*x.shape[:2], x.shape[2] + top + bottom, x.shape[3] + left + right))
    padded[:, :, top : top + x.shape[2], left : left + x.shape[3]] = x
    filters, depth, size, _ = kernel.shape
    height, width = ((side - size) // stride + 1 for side in padded.shape[2:])
    out = np.zeros((len(x), filters, height, width))
    for n, f, i, j in np.ndindex(*out.shape):
        first = f // (filters // groups) * depth
        window = padded[n, first : first + depth, i * stride : i * stride + size, j * stride : j * stride + size]
        out[n, f, i, j] = (window * kernel[f]).sum() + bias[f]
    return out


@pytest.mark.parametrize("name", [*oracles.CONVS, *oracles.SAME])
def test_a_convolution_is_its_definition(name):
    x, kernel, bias = oracles.convolution(name)
    _, _, height, width, size, stride = (oracles.CONVS.get(name) or oracles.SAME[name])[:6]
    if name in oracles.CONVS:
        padding, groups = oracles.CONVS[name][6:8]
        pads = 2 * [(padding, padding)]
    else:
        totals = [max((math.ceil(side / stride) - 1) * stride + size - side, 0) for side in (height, width)]
        pads, groups = [(total // 2, total - total // 2) for total in totals], 1

    np.testing.assert_allclose(convolution(name), naive(x, kernel, bias, stride, pads, groups), rtol=1e-12, atol=1e-12)


def test_losses_of_zeros_are_logarithms():
    zeros = np.zeros((2, 3, 4))

    assert loss("softmax_cross_entropy", zeros, np.full((2, 3, 4), 0.25)) == pytest.approx(math.log(4))
    assert loss("flat_softmax_nll", zeros, np.zeros((2, 3), "int64")) == pytest.approx(6 * math.log(8))


def test_a_squared_error_is_a_mean():
    assert loss("squared_error", np.array([[1.0], [4.0]]), np.array([[0.0], [1.0]])) == pytest.approx(5.0)


def test_a_flat_softmax_of_zeros_is_even_over_an_image():
    bits = np.zeros((2, 1, 2, 2))
    bits[0, 0, 0, 0] = 1

    # (1/4 - 1)^2 once, (1/4)^2 for the other seven.
    assert loss("flat_softmax_squared_error", np.zeros((2, 1, 2, 2)), bits) == pytest.approx(9 / 16 + 7 / 16)


def test_softmax_survives_large_logits():
    logits = np.array([[[1000.0, 0.0]]])

    assert loss("softmax_cross_entropy", logits, np.array([[[0.0, 1.0]]])) == pytest.approx(1000)


def test_a_mean_is_over_all_elements():
    net = Graph(2)
    net.output = net.input(2)
    net.loss = net.mean(net.output)

    assert run(net, [], [np.array([[1.0, 2.0], [3.0, 6.0]])])[1] == pytest.approx(3.0)


def test_elementwise_operations_are_arithmetic():
    net = Graph(1)
    a, b = net.input(2), net.input(2)
    picked = net.where_less(a, b, net.sub(a, b), net.log(a))
    net.output = net.affine(net.add(net.mul(picked, b), net.relu(net.sub(b, a))), 2.0, -1.0)

    got, _ = run(net, [], [np.array([[1.0, math.e]]), np.array([[4.0, 2.0]])])

    # (1 - 4) 4 + 3 = -9, and log(e) 2 + 0 = 2; both doubled, less one.
    np.testing.assert_allclose(got, [[-19.0, 3.0]])


def test_last_is_the_last_time_step_of_each_row():
    net = Graph(2)
    net.output = net.last(net.input(3, 1))

    got, _ = run(net, [], [np.arange(6.0).reshape(2, 3, 1)])

    assert got.tolist() == [[2.0], [5.0]]


def test_a_loop_carries_its_states_in_order():
    net = Graph(1)
    a, b = net.fill(1.0, 1), net.fill(1.0, 1)
    net.output = net.scan(lambda net, s, x: [net.add(net.add(s[0], s[1]), x[0]), s[0]], [a, b], [net.input(5, 1)])

    got, _ = run(net, [], [np.zeros((1, 5, 1))])

    assert got.ravel().tolist() == [2.0, 3.0, 5.0, 8.0, 13.0]


@pytest.mark.parametrize("rows", [1, 2])
def test_fewer_rows_give_the_first_rows(rows):
    net = Graph(oracles.BATCH)
    net.output = net.lstm(net.input(oracles.STEPS, oracles.FEATURES), oracles.HIDDEN)
    x, *given = oracles.recurrent("lstm")

    some, _ = run(net, given[: len(net.weights)], [x[:rows]])

    np.testing.assert_allclose(some, recurrent("lstm")[:rows], rtol=1e-12)


def test_the_oracles_know_nothing_of_the_suite():
    text = Path(oracles.__file__).read_text()

    assert "import bench" not in text
    assert "from bench" not in text

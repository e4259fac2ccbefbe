"""The check of deep networks can fail: one of two blocks, small enough for gradients by central differences."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from test_check import Reference, at

from bench import check
from bench.cases.case import Case
from bench.cases.errors import Wrong
from bench.graph import Graph, draws

DEEP = ("fp32", "fp16", "bf16", "fp16m", "bf16m")
SIXTEEN = DEEP[1:]
TYPES = {
    "fp32": ("float32", "float32"),
    "fp16": ("float16", "float16"),
    "bf16": ("bfloat16", "bfloat16"),
    "fp16m": ("float16", "float32"),
    "bf16m": ("bfloat16", "float32"),
}
# What the update of the head may be off in 16 bits: a factor of two is off by half, and must show.
ALLOWED = {"fp16": 0.2, "bf16": 0.4, "fp16m": 0.2, "bf16m": 0.4}


def network(mode="training"):
    """Convolution, norm and relu in a body; mean and a dense layer in a head."""
    net = Graph(4, random_as_inputs=True, training=mode == "training")
    x = net.image(2, 4)
    with net.in_block("body"):
        x = net.conv(x, 3, 3, padding=1, bias=False, name="conv")
        x = net.relu(net.batch_norm(x, eps=1e-5, momentum=0.1, name="norm"))
    with net.in_block("head"):
        net.output = net.dense(net.global_mean(x), 5, name="fc")
    if mode != "inference":
        net.loss = net.cross_entropy(net.output, net.labels(values="classes", count=5))
    return net


def checked(mode="training", precision="fp32", scale=None, **spoiled):
    """What the check finds in a program that is right but for what `spoiled` does to it."""
    graph = network(mode)
    # In mixed precision too: what the program computes with has no rounding of its own.
    weights = draws.weights(graph, TYPES[precision][0])
    weights.update({name: factor * weights[name] for name, factor in (scale or {}).items()})
    case = Case("tiny", "tiny", {}, mode, 4, precision, 1, "numpy", "cpu")
    program = Reference(graph, weights, **{"dtypes": TYPES[precision], **spoiled})
    return check.require(program, graph, case, weights)


def times(factor, *prefixes):
    """Gradients of some weights, multiplied; no prefix: of all."""
    return lambda found: {n: g * (factor if n.startswith(prefixes or "") else 1) for n, g in found.items()}


@pytest.mark.parametrize("precision", DEEP)
def test_a_right_update_passes(precision):
    assert 0 <= checked(precision=precision)["gradient_error"] < 1e-5


@pytest.mark.parametrize("mode, factor", [("inference", 1), ("eval", 1), ("training", 2)])
def test_training_a_deep_network_may_err_twice_as_much_as_a_layer(mode, factor):
    assert checked(mode)["tolerance"] == factor * 5e-5

    passing, failing = (1 + 0.9 * factor * 5e-5), (1 + 1.1 * factor * 5e-5)
    checked(mode, output=lambda array: array * passing)
    with pytest.raises(Wrong, match=f"output is off by .* {factor * 5e-5:g} is allowed"):
        checked(mode, output=lambda array: array * failing)


WRONG_UPDATES = {
    "uphill": times(-1),
    "half": times(0.5),
    "twice": times(2),
    "three per cent long": times(1.03),
    "frozen": times(0),
    "a frozen convolution": times(0, "conv"),
    "a frozen norm": times(0, "norm.weight"),
    "a frozen shift of a norm": times(0, "norm.bias"),
    "a frozen head": times(0, "fc"),
    "a frozen bias of the head": times(0, "fc.bias"),
    "a convolution uphill": times(-1, "conv"),
}


@pytest.mark.parametrize("name", WRONG_UPDATES)
def test_a_wrong_update_fails(name):
    with pytest.raises(Wrong, match=r"update of one training step is off by .* 0.01 is allowed"):
        checked(gradient=WRONG_UPDATES[name])


@pytest.mark.parametrize("small", ["conv.weight", "norm.weight", "fc.weight"])
def test_the_update_of_a_small_weight_is_held_as_tightly_as_that_of_a_large_one(small):
    """Directions are in units of each weight's own size: a hundredth of the others is not a hundredth of the check."""
    graph = network()
    weights = draws.weights(graph, "float32")
    weights[small] = 0.01 * weights[small]
    case = Case("tiny", "tiny", {}, "training", 4, "fp32", 1, "numpy", "cpu")

    update = check._Update(graph, case, weights, draws.inputs(graph, "float32"))

    for name in ("conv.weight", "norm.weight", "fc.weight"):
        steps = np.concatenate([direction[name].ravel() for direction, _, _ in update.directions])
        assert 0.5 < np.sqrt((steps**2).mean()) / np.sqrt((weights[name] ** 2).mean()) < 1.5


def test_a_weight_of_zeros_is_moved_all_the_same():
    with pytest.raises(Wrong, match="update of one training step"):
        checked(scale={"fc.bias": 0.0}, gradient=times(0, "fc.bias"))


def test_running_statistics_may_move_as_they_like():
    """Whose variance it is, the batch's or the unbiased one, differs between frameworks."""
    moved = {"norm.running_mean": 7.0, "norm.running_var": 0.1}

    found = checked(gradient=lambda slopes: {n: g + moved.get(n, 0.0) for n, g in slopes.items()})

    assert found["gradient_error"] < 1e-5


@pytest.mark.parametrize("precision", SIXTEEN)
@pytest.mark.parametrize("name", ["uphill", "frozen", "a frozen head", "twice", "half"])
def test_in_sixteen_bits_a_wrong_update_of_the_head_fails(precision, name):
    with pytest.raises(Wrong, match=f"update of one training step .* {ALLOWED[precision]:g} is allowed"):
        checked(precision=precision, gradient=WRONG_UPDATES[name])


@pytest.mark.parametrize("precision", SIXTEEN)
def test_in_sixteen_bits_the_gradient_of_the_body_is_not_judged(precision):
    """It is off by half its norm where fp32 is right: relus of the first layers flip."""
    checked(precision=precision, gradient=times(1.5, "conv"))


@pytest.mark.parametrize("precision", DEEP)
@pytest.mark.parametrize("where", ["conv", "fc"])
def test_an_update_that_is_not_finite_fails_wherever_it_is(precision, where):
    with pytest.raises(Wrong, match="the updated weights are not finite"):
        checked(precision=precision, gradient=times(np.nan, where))


def for_the_first(count, spoil):
    """`spoil` for so many updates, and nothing after them."""
    turns = itertools.count()
    return lambda found: spoil(found) if next(turns) < count else found


@pytest.mark.parametrize("count", [1, 2])
def test_an_update_that_is_wrong_for_one_batch_and_right_for_another_passes(count):
    """A relu that is zero to the precision at hand belongs to its inputs."""
    assert checked(gradient=for_the_first(count, WRONG_UPDATES["a frozen head"]))["gradient_error"] < 1e-5


def test_an_update_that_is_wrong_for_three_batches_is_wrong():
    with pytest.raises(Wrong, match="update of one training step"):
        checked(gradient=for_the_first(3, WRONG_UPDATES["a frozen head"]))


@pytest.mark.parametrize("mode", ["inference", "training"])
def test_an_output_is_judged_by_the_first_batch(mode):
    """Nothing flips on the way forward: an output that is wrong once is wrong."""
    with pytest.raises(Wrong, match="output is off by"):
        checked(mode, output=for_the_first(1, lambda array: array * 1.01))


def test_a_layer_has_one_try():
    """It has no depth in which relus could flip."""
    net = Graph(4, training=True)
    net.output = net.relu(net.dense(net.input(3), 2))
    net.loss = net.mean(net.output)
    weights = draws.weights(net, "float32")
    case = Case("tiny", "tiny", {}, "training", 4, "fp32", 1, "numpy", "cpu")

    with pytest.raises(Wrong, match=r"update of one training step .* 0.002 is allowed"):
        check.require(Reference(net, weights, gradient=for_the_first(1, times(0.5))), net, case, weights)


@pytest.mark.parametrize("spoil", [lambda loss: loss * 1.001, lambda loss: loss * np.nan])
def test_a_wrong_loss_is_named(spoil):
    with pytest.raises(Wrong, match="loss is "):
        checked(loss=spoil)


def test_one_wrong_logit_is_named():
    with pytest.raises(Wrong, match=r"output is off by|reference has"):
        checked(output=at((3, 1), 1.0))


def test_the_check_puts_the_weights_back_after_every_try():
    graph = network()
    weights = draws.weights(graph, "float32")
    case = Case("tiny", "tiny", {}, "training", 4, "fp32", 1, "numpy", "cpu")
    program = Reference(graph, weights, gradient=for_the_first(2, times(2)))

    check.require(program, graph, case, weights)

    assert all(np.array_equal(array, weights[name]) for name, array in program.weights().items())

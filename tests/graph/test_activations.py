"""Weights of deep networks: activations keep their size, so that no rounding error grows from layer to layer."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from bench import workloads
from bench.cases.precision import PRECISIONS
from bench.graph import draws
from bench.graph.reference import evaluate

NORMS = ("batch", "group", "none")
INPUTS = {"floats": {}, "bytes": {"eight_bit_io": "on"}}
# Deep ones: without norms, efficientnet_b4 grew to 1e5, from bytes.
DEEP = ("resnet50", "mobilenet_v2", "mobilenet_v3_large", "efficientnet_b4")


def recorded(model, mode="inference", batch_size=1, **changed):
    network = workloads.load(model)
    size = {**next(iter(workloads.named_sizes(network).values())), **changed}
    size = network.canonical({name: size[name] for name in network.dimensions})
    return workloads.record(network, size, batch_size, mode, random_as_inputs=True)


def rms(array):
    return float(np.sqrt((array**2).mean()))


def moved(graph, dtype):
    """How far one rounding of every result to `dtype` moves the logits, of their norm."""
    weights = {name: draws.rounded(array, dtype) for name, array in draws.weights(graph, "float32").items()}
    inputs = draws.inputs(graph, dtype, 1)
    exact, _ = evaluate(graph, weights, inputs, "float64")

    def rounded(index, node, arguments, result):
        return np.asarray(draws.rounded(result, dtype), "float64")

    near, _ = evaluate(graph, weights, inputs, "float64", rounded)
    return float(np.linalg.norm(near - exact) / np.linalg.norm(exact))


@pytest.mark.parametrize("model", DEEP)
@pytest.mark.parametrize("norm_type, fed", [("batch", "bytes"), ("none", "bytes"), ("none", "floats")])
def test_a_signal_neither_grows_nor_fades_from_block_to_block(model, norm_type, fed):
    graph = recorded(model, image_size=64, norm_type=norm_type, **INPUTS[fed])
    ends = {node.block: index for index, node in enumerate(graph.nodes) if node.block and len(node.shape) == 4}
    sizes = {}

    def noted(index, node, arguments, result):
        if ends.get(node.block) == index:
            sizes[node.block] = rms(result)
        return result

    logits, _ = evaluate(graph, draws.weights(graph, "float32"), draws.inputs(graph, "float32"), "float64", noted)

    assert len(sizes) == len(ends)
    assert all(0.05 < size < 50 for size in sizes.values())
    assert 0.01 < rms(logits) < 50


@pytest.mark.parametrize("model", ["resnet8", "mobilenet_v3_small", "efficientnet_b0"])
def test_without_norms_each_convolution_has_the_size_that_its_reader_wants(model):
    """On the inputs on which it was measured: 1, 4 before silu and hardswish, 0.3 at the end of a residual branch."""
    graph = recorded(model, image_size=64, norm_type="none").sample()
    weights = {name: np.asarray(array, "float64") for name, array in draws.weights(graph, "float32").items()}
    readers = {t.node: (node.op, t.node == node.inputs[0].node) for node in reversed(graph.nodes) for t in node.inputs}
    sizes = []

    def noted(index, node, arguments, result):
        if node.op == "conv":
            bare = result - next((weights[w.name][:, None, None] for w in node.weights if w.kind == "uniform"), 0)
            op, first = readers[index]
            wanted = {"silu": 4.0, "hardswish": 4.0, "add": 0.3 if first else 1.0}.get(op, 1.0)
            sizes.append((rms(bare), 1.0 if result.shape[2:] == (1, 1) else wanted))
        return result

    evaluate(graph, weights, draws.inputs(graph, "float32", draws.SCALING_BATCH), "float64", noted)

    assert len({wanted for _, wanted in sizes}) > 1
    for got, wanted in sizes:
        assert got == pytest.approx(wanted, rel=0.02)


@pytest.mark.parametrize("model", ["resnet8", "mobilenet_v3_small", "efficientnet_b0"])
def test_running_statistics_are_those_of_what_arrives(model):
    """Drawn around a variance of 1 and a mean of 0, then scaled: what a norm lets through has the size that its reader
    wants, 4 before silu and hardswish."""
    graph = recorded(model, image_size=64).sample()
    weights = draws.weights(graph, "float32")
    readers = {t.node: node.op for node in reversed(graph.nodes) for t in node.inputs}
    sizes = []

    def noted(index, node, arguments, result):
        if node.op == "batch_norm":
            named = {weight.kind: weights[weight.name].astype("float64") for weight in node.weights}
            spread = np.sqrt(named["variance"].mean())
            wanted = {"silu": 4.0, "hardswish": 4.0}.get(readers[index], 1.0)
            sizes.append((rms(arguments[0]) / spread / wanted, np.abs(named["mean"]).max() / spread))
        return result

    evaluate(graph, weights, draws.inputs(graph, "float32", draws.SCALING_BATCH), "float64", noted)

    assert sizes
    for size, mean in sizes:
        assert size == pytest.approx(1, rel=0.2)
        assert 0.01 < mean < 0.3


@pytest.mark.parametrize("norm_type", NORMS)
def test_modes_and_sizes_of_images_have_the_same_weights(norm_type):
    one = draws.weights(recorded("mobilenet_v3_small", image_size=224, norm_type=norm_type), "float32")
    for other in (
        recorded("mobilenet_v3_small", "training", 8, image_size=224, norm_type=norm_type),
        recorded("mobilenet_v3_small", "eval", 2, image_size=256, norm_type=norm_type),
    ):
        found = draws.weights(other, "float32")

        assert one.keys() == found.keys()
        assert all((one[name] == found[name]).all() for name in one)


@pytest.mark.parametrize("norm_type", NORMS)
def test_weights_do_not_depend_on_the_order_of_sums(norm_type, monkeypatch):
    """Replicas on other cores add up in another order, and must start from the same weights, bit by bit."""
    graph = recorded("efficientnet_b0", image_size=64, norm_type=norm_type)
    first = draws.weights(graph, "float32")
    drawn = draws.inputs

    def nudged(*args, **kwargs):
        return {name: np.asarray(a, "float64") * (1 + 1e-14) for name, a in drawn(*args, **kwargs).items()}

    monkeypatch.setattr(draws, "inputs", nudged)
    second = draws.weights(graph, "float32")

    assert all((first[name] == second[name]).all() for name in first)


def test_where_training_starts_the_norms_are_as_they_should_be():
    graph = recorded("resnet8", "training")

    found = draws.weights(graph, "float32", start=True)

    by_kind = {kind: [found[w.name] for w in graph.weights if w.kind == kind] for kind in draws.INITIAL}
    assert all(by_kind.values())
    for kind, value in draws.INITIAL.items():
        assert all((array == value).all() for array in by_kind[kind])


@pytest.mark.parametrize("model", ["resnet18", "mobilenet_v2", "efficientnet_b0"])
@pytest.mark.parametrize("norm_type", NORMS)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_one_rounding_of_every_result_moves_the_logits_by_less_than_half_of_the_tolerance(model, norm_type, precision):
    graph = recorded(model, image_size=96, norm_type=norm_type, eight_bit_io="on")

    assert 2 * moved(graph, PRECISIONS[precision].compute) < PRECISIONS[precision].tolerance


# Each network with each kind of norms, with each precision and from both kinds of inputs, and each of these with each
# other in some network: all pairs of the four, in a sixth of all combinations.
PAIRS = [
    (model, norm_type, list(INPUTS)[shift % len(INPUTS)], ("fp32", "fp16", "bf16")[shift % 3])
    for number, model in enumerate(workloads.names("cnns"))
    for shift, norm_type in enumerate(NORMS, number)
]


def test_the_chosen_combinations_have_every_pair():
    for one, other in itertools.combinations(range(4), 2):
        met = {(pair[one], pair[other]) for pair in PAIRS}
        assert met == set(itertools.product({pair[one] for pair in PAIRS}, {pair[other] for pair in PAIRS}))


@pytest.mark.thorough
@pytest.mark.parametrize("model, norm_type, fed, precision", PAIRS)
def test_so_it_does_at_the_size_of_each_network(model, norm_type, fed, precision):
    graph = recorded(model, norm_type=norm_type, **INPUTS[fed])

    assert 2 * moved(graph, PRECISIONS[precision].compute) < PRECISIONS[precision].tolerance

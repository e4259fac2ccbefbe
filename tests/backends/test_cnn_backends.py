"""Every backend on small image networks, in every mode, precision and way of training, held against the reference."""

from __future__ import annotations

import functools

import cnn_matrix
import numpy as np
import pytest
from cnn_matrix import COMBINED, SABOTAGED, VARIANTS

from bench import backends, check, registry, workloads
from bench.cases.case import Settings
from bench.cases.errors import Wrong
from bench.cases.precision import PRECISIONS
from bench.graph import draws
from bench.graph.reference import evaluate
from bench.workloads import network as cnn

ENGINES = [engine for engine in backends.names() if "cpu" in backends.load(engine).devices]
FAMILIES = registry.names("bench.workloads.cnns")
KEYS = [(engine, key) for engine in ENGINES for key in cnn_matrix.keys(engine)]
IDS = [f"{engine}-{cnn_matrix.name(key)}" for engine, key in KEYS]
TRAINERS = [engine for engine in ENGINES if "training" in backends.load(engine).modes]
QUICK = {(engine, key) for engine in ENGINES for key in cnn_matrix.keys(engine, thorough=False)}


def chosen(wanted):
    """The cases for which `wanted(key)` holds, as parameters."""
    found = [
        pytest.param(*pair, id=name, marks=() if pair in QUICK else pytest.mark.thorough)
        for pair, name in zip(KEYS, IDS)
        if wanted(pair[1])
    ]
    return pytest.mark.parametrize("engine, key", found)


def family_of(model):
    return cnn.models()[model].family.__name__.rsplit(".", 1)[-1]


@pytest.fixture
def seen(matrix, engine, key):
    """What was seen of one case; skips where it cannot run here, and fails where it is wrong."""
    found = matrix(engine, "networks")[cnn_matrix.name(key)]
    if found["outcome"] == "skipped" or (found["outcome"] == "unavailable" and key[3] != "fp32"):
        pytest.skip(found["text"])
    assert found["outcome"] == "passed", found["text"]
    return found


@pytest.mark.parametrize("keys", [QUICK, KEYS], ids=["quick", "thorough"])
def test_every_backend_runs_every_family_in_every_mode_that_it_has(keys):
    for engine in ENGINES:
        ran = {(family_of(key[0]), key[2]) for own, key in keys if own == engine}
        assert ran == {(family, mode) for family in FAMILIES for mode in backends.load(engine).modes}


def test_every_choice_of_a_network_s_dimensions_is_run():
    """But for the eps, a number, and images that nobody normalises, which are host's to the network."""
    every = {**VARIANTS, **COMBINED}
    ran = {(name, value) for _, key in QUICK for name, value in every[key[1]].items()}
    there = {
        (name, choice)
        for name, dimension in workloads.load("efficientnet_b0").dimensions.items()
        for choice in dimension.choices[1:]
    }

    assert there - ran == {("norm_eps", "1e-5"), ("norm_eps", "1e-3"), ("normalization_location", "none")}


@chosen(lambda key: True)
def test_a_backend_computes_what_the_reference_does(seen, engine, key):
    assert 0 <= seen["check"]["relative_error"] <= seen["check"]["tolerance"]
    assert seen["check"]["checked_rows"] == cnn_matrix.BATCH


@chosen(lambda key: key[3] == "fp32")
def test_in_fp32_the_output_is_right_to_a_part_in_ten_thousand(seen, engine, key):
    assert seen["check"]["tolerance"] <= 1e-4


@chosen(lambda key: True)
def test_a_precision_is_what_ran(seen, engine, key):
    precision = PRECISIONS[key[3]]

    assert (seen["compute"], seen["held"]) == (precision.compute, precision.weights)


@chosen(lambda key: key[2] == "training")
def test_training_moves_the_weights_by_the_gradient(seen, engine, key):
    assert seen["check"]["gradient_error"] > 0


@chosen(lambda key: key[5] == "generated")
def test_generated_data_takes_one_host_batch_after_the_other(seen, engine, key):
    first = seen["batches"][0]

    assert seen["batches"] == [(first + i) % 3 for i in range(6)]


@pytest.mark.parametrize("model", [*cnn_matrix.PREDICTED, "mixed"])
@pytest.mark.parametrize("engine", TRAINERS)
def test_a_prediction_is_the_inference_graph_s_at_the_present_weights(matrix, engine, model):
    """Running statistics that training moved, and nothing dropped or mixed."""
    seen = matrix(engine, "networks")["predicted"][model]

    assert seen["moved"] > 0.05
    assert seen["trained"] <= PRECISIONS["fp32"].tolerance
    assert seen["left"] == 0
    assert seen["put back"] <= PRECISIONS["fp32"].tolerance


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_the_mean_of_many_pixels_does_not_overflow(matrix, engine, precision):
    """TensorFlow sums fp16 in fp16: EfficientNet-B1 answered with numbers that are not finite."""
    off = matrix(engine, "networks")["means"][precision]

    if off is None:
        pytest.skip(f"{engine} has no {precision} here")
    assert off <= PRECISIONS[precision].tolerance


# Sabotage: what has one block wrong is refused, and the check says what it saw.


@functools.lru_cache(maxsize=1)
def recorded(model):
    """The case, graph and weights of a small model for inference by the reference."""
    case = cnn_matrix.case_of("numpy", (model, "plain", "inference", "fp32", *cnn_matrix.PLAIN))
    graph = workloads.checked(case)
    return case, graph, draws.weights(graph, "float32")


@pytest.mark.parametrize("model, block", [(m, b) for m in cnn_matrix.VARIED for b in recorded(m)[1].blocks])
def test_one_norm_that_is_one_per_cent_off_is_refused_in_inference(model, block):
    case, graph, weights = recorded(model)
    name, factors = cnn_matrix.off(graph, block)
    spoilt = {**weights, name: weights[name] * factors}

    program = backends.load("numpy").compile(graph, spoilt, [draws.inputs(graph, "float32")], case, Settings())

    with pytest.raises(Wrong, match=r"output is off by|reference has"):
        check.require(program, graph, case, weights)


@pytest.mark.parametrize("model", SABOTAGED)
def test_the_programs_that_are_sabotaged_are_right_before(matrix, model):
    seen = matrix("torch", "networks")

    assert (seen["off"][model][""], seen["still"][model][""]) == ("", "")


@pytest.mark.parametrize("model, block", [(model, block) for model in SABOTAGED for block in SABOTAGED[model]])
def test_one_norm_that_is_one_per_cent_off_is_refused_in_training(matrix, model, block):
    assert "output is off by" in matrix("torch", "networks")["off"][model][block]


@pytest.mark.parametrize("model, block", [(model, block) for model in SABOTAGED for block in SABOTAGED[model]])
def test_a_gradient_that_misses_a_block_is_refused(matrix, model, block):
    assert "update of one training step is off by" in matrix("torch", "networks")["still"][model][block]


@pytest.mark.parametrize("model", ["mobilenet_v2", "resnet18", *cnn_matrix.VARIED])
def test_the_image_weighs_more_than_a_16_bit_program_may_err(model):
    """Else a program that looks at no image would pass: what is drawn for one must reach the logits. At the
    size that is measured; fewer pixels say less."""
    network = workloads.load(model)
    size = next(iter(workloads.named_sizes(network).values()))
    graph = workloads.record(network, {name: size[name] for name in network.dimensions}, 1, "inference")
    weights = draws.weights(graph, "float32")

    one, other = (evaluate(graph, weights, draws.inputs(graph, "float32", batch), "float64")[0] for batch in (1, 2))

    assert np.linalg.norm(one - other) / np.linalg.norm(one) > 2 * PRECISIONS["bf16"].tolerance


@pytest.mark.parametrize("model", ["mobilenet_v2", *cnn_matrix.VARIED])
@pytest.mark.parametrize("norm_type", ["batch", "group", "none"])
def test_logits_are_of_an_ordinary_size(model, norm_type):
    """Far from where fp16 ends, at either end."""
    case, _, _ = recorded(model)
    size = {**case.dimensions, "norm_type": norm_type}
    graph = workloads.record(workloads.load(model), size, cnn_matrix.BATCH, "inference")

    logits, _ = evaluate(graph, draws.weights(graph, "float32"), draws.inputs(graph, "float32", 1), "float64")

    assert 1e-3 < float(np.abs(logits).mean()) < 1e3

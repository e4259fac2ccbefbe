"""Records of image networks, worked out by hand: recipes, items of an update, latencies, the READMEs' rate."""

from __future__ import annotations

import random

import pytest
from records import judged

from bench import run, workloads
from bench.cases.case import Case, Settings
from bench.cases.recipe import Recipe
from bench.clock.sampling import Samples
from bench.graph import Graph, draws, reference
from bench.job import Job
from bench.program import Program, Step
from bench.results import fingerprints, record
from bench.workloads import network

LATENCIES = ("latency_p50_s", "latency_p90_s", "latency_p99_s", "latency_p999_s")


def case_of(mode="training", batch_size=2, replicas=1, **changed):
    module = workloads.load("resnet8")
    size = {**next(iter(workloads.named_sizes(module).values())), "image_size": 8, **changed}
    dimensions = {key: size[key] for key in module.dimensions}
    return Case("resnet8", "i8", dimensions, mode, batch_size, "fp32", replicas, "numpy", "cpu")


def built(case=None, seconds=(0.5,), items=1, **settings):
    case, chosen = case or case_of(), Settings(**settings)
    step, samples = Step(lambda: None, items), Samples(list(seconds), 1, 1, 0.5, True)
    found = {"device_model": "paper", "framework_version": "1", "disturbed": False}
    return record.build(case, chosen, workloads.of_case(case, chosen.recipe), step, samples, found)


class Idle(Program):
    """What does nothing."""

    def run_resident(self):
        pass

    def outputs(self):
        return {}


class InFlight(Idle):
    """Four batches in flight, which took as many seconds as there were runs before, and one."""

    batches_in_flight = 4
    runs = 0

    def run_resident(self):
        self.runs += 1

    def latencies(self):
        return 4 * [float(self.runs)]


def timed(case, kind=Idle, **settings):
    """The record of a case whose program does nothing."""
    graph, chosen = workloads.of_case(case), Settings(steps=5, **settings)
    program = kind(graph, case, chosen)
    return run._timed_record(Job(case, chosen), program, {}, None)["record"]


# Latency.


def latencies(seconds, single=False, iterations=1, case=None, **settings):
    case = case or case_of("inference")
    step = Step(lambda: None, case.batch_size, iterations=iterations)
    found = record.latency(seconds, single, step, Settings(**settings))
    assert tuple(found) == LATENCIES
    return tuple(found.values())


@pytest.mark.parametrize(
    "count, ranks",
    [
        (1, (1, None, None, None)),
        (2, (1, None, None, None)),
        (9, (5, None, None, None)),
        (10, (5, 9, None, None)),
        (99, (50, 90, None, None)),
        (100, (50, 90, 99, None)),
        (999, (500, 900, 990, None)),
        (1000, (500, 900, 990, 999)),
        (1001, (501, 901, 991, 1000)),
        (20000, (10000, 18000, 19800, 19980)),
    ],
)
def test_a_percentile_of_latency_is_the_nearest_rank_and_null_where_that_is_the_largest(count, ranks):
    seconds = [float(rank) for rank in range(1, count + 1)]
    random.Random(count).shuffle(seconds)

    assert latencies(seconds) == ranks


def test_several_batches_behind_a_call_have_no_latency_of_their_own():
    assert latencies([1.0, 2.0], iterations=2) == (None,) * 4


def test_an_update_of_several_batches_has_no_latency_of_its_own():
    assert latencies([1.0, 2.0], case=case_of("training"), recipe=Recipe(gradient_accumulation=2)) == (None,) * 4


def test_batches_that_a_backend_timed_one_by_one_have_one_each():
    assert latencies([1.0, 2.0, 3.0], single=True, iterations=4) == (2, None, None, None)


def test_nothing_timed_has_no_latency():
    assert latencies([]) == (None,) * 4


def test_accumulation_says_nothing_about_the_latency_of_inference():
    """As with --mode inference,training --gradient-accumulation 2."""
    made = timed(case_of("inference"), recipe=Recipe(gradient_accumulation=2))

    assert made["latency_p50_s"] == made["step_median_s"]


def test_steps_that_share_a_sample_have_no_latency_of_their_own():
    """A program of nothing takes far less than the 20 us of a sample."""
    case, graph = case_of("inference"), workloads.of_case(case_of("inference"))
    settings = Settings(max_time_s=0.01)
    program = Idle(graph, case, settings)

    made = run._timed_record(Job(case, settings), program, {}, None)

    assert made["record"]["steps_per_sample"] > 1
    assert made["record"]["latency_p50_s"] is None


def test_latencies_are_those_of_the_timed_batches_and_not_of_the_warm_up():
    """Four batches in flight, which took as many seconds as runs before: two of warm-up, then five."""
    made = timed(case_of("inference"), InFlight, protocol="tensorflow_layers")

    # That protocol warms up by one run, so the runs that count are the second to the sixth.
    assert made["warmup_steps"] == 1
    assert made["latency_p50_s"] == 4


# Items, and what a recipe says.


@pytest.mark.parametrize("mode, items", [("training", 6), ("inference", 2), ("eval", 2)])
def test_a_step_of_training_counts_the_batches_of_its_update(mode, items):
    made = timed(case_of(mode, batch_size=2), recipe=Recipe(gradient_accumulation=3))

    assert made["items_per_step"] == made["global_batch"] == items
    assert made["items_per_s"] == pytest.approx(items / made["step_median_s"])


def test_batches_per_step_multiply_the_items_and_not_the_global_batch():
    made = timed(case_of(batch_size=2), batches_per_step=4, recipe=Recipe(gradient_accumulation=3))

    assert made["items_per_step"] == 24
    assert made["global_batch"] == 6


def test_an_item_of_an_accumulated_step_costs_what_an_item_costs():
    one, many = (timed(case_of(), recipe=Recipe(gradient_accumulation=count)) for count in (1, 3))

    for key in ("flops_per_item", "parameters"):
        assert many[key] == one[key]
    achieved = many["flops_per_item"] * many["items_per_s"] / 1e12
    assert many["tflops"] == pytest.approx(achieved)


def test_the_global_batch_is_over_replicas_and_accumulation():
    assert built(case_of(batch_size=3, replicas=4), recipe=Recipe(gradient_accumulation=5))["global_batch"] == 60
    assert built(case_of("inference", batch_size=3), recipe=Recipe(gradient_accumulation=5))["global_batch"] == 3


@pytest.mark.parametrize(
    "changed, told",
    [
        ({}, ""),
        ({"optimiser": "sgd", "momentum": 0.9, "gradient_accumulation": 1}, ""),
        ({"optimiser": "momentum", "momentum": 0.8}, "optimiser=momentum, momentum=0.8"),
        ({"label_smoothing": 0.1, "gradient_accumulation": 3}, "gradient_accumulation=3, label_smoothing=0.1"),
        ({"recompute": "manual", "recompute_layers": "layer[23]"}, "recompute=manual, recompute_layers=layer[23]"),
        ({"optimiser_epsilon": 0.0}, "optimiser_epsilon=0.0"),
    ],
    ids=str,
)
def test_a_recipe_names_only_what_differs_in_the_order_of_its_fields(changed, told):
    assert built(recipe=Recipe(**changed))["recipe"] == told


def test_a_recipe_says_nothing_where_nothing_is_trained():
    adam = Recipe(optimiser="adam", gradient_accumulation=4)

    made, plain = built(case_of("inference"), recipe=adam), built(case_of("inference"))

    assert made["recipe"] == ""
    assert fingerprints.differences(made, plain) == []


@pytest.mark.parametrize(
    "changed",
    [
        {"recipe": Recipe(optimiser="momentum")},
        {"recipe": Recipe(gradient_accumulation=2)},
        {"recipe": Recipe(recompute="auto")},
        {"recipe": Recipe(label_smoothing=0.1)},
        {"protocol": "tensorflow_cnns"},
        {"min_latency": True},
        {"half_partial": True},
    ],
    ids=str,
)
def test_a_baseline_of_another_recipe_or_protocol_is_not_compared(changed):
    """Not even where the rate is a thousandth."""
    verdict = judged(built(seconds=[500.0], **changed), built())

    assert verdict.kind == "changed"
    assert f"{next(iter(changed))} " in verdict.line()


# Inputs of zeros.


@pytest.mark.parametrize(
    "changed, kind",
    [
        ({}, "f"),
        ({"normalization_location": "device"}, "f"),
        ({"eight_bit_io": "on"}, "u"),
        ({"eight_bit_io": "on", "input_image_padding": "on"}, "u"),
    ],
    ids=str,
)
def test_inputs_of_zeros_are_images_of_zeros_of_their_own_type(changed, kind):
    graph = workloads.of_case(case_of("eval", **changed))

    drawn, zero = draws.inputs(graph, "float32"), draws.inputs(graph, "float32", zero=True)

    image, labels = graph.inputs
    assert (zero[image].dtype.kind, zero[image].shape) == (kind, (2, 3, 8, 8))
    assert drawn[image].any()
    assert not zero[image].any()
    assert (zero[labels] == drawn[labels]).all()


@pytest.mark.parametrize("kind", ["pixels", "uint8"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_black_pixels_are_not_zeros_once_they_are_normalised(kind, dtype):
    """(0 - mean) / std by channel, in the type of the arithmetic, whatever the type of the pixels."""
    net = Graph(2)
    net.output = net.normalise(net.image(3, 4, kind), network.MEAN, network.STD)

    seen, _ = reference.evaluate(net, {}, draws.inputs(net, "float32", zero=True), dtype)

    assert seen.dtype == dtype
    assert [round(float(channel), 2) for channel in seen[1, :, 3, 3]] == [-2.12, -2.04, -1.80]

"""The rates that the original programs would print, by numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
from test_measure import Scripted

from bench import workloads
from bench.cases.case import Case
from bench.cases.errors import Invalid
from bench.clock import protocol
from bench.clock.protocol import FIELDS

# Seconds of calls of 8 items: rates 1, 4, 2, 8 and 2.
SECONDS = [8.0, 2.0, 4.0, 1.0, 4.0]


def rates(name, seconds=SECONDS, layer="dense", batches=2.0, **size):
    module = workloads.load(layer)
    known = {**next(iter(workloads.named_sizes(module).values())), **module.tiny, **size}
    dimensions = {key: known[key] for key in module.dimensions}
    case = Case(layer, "tiny", dimensions, "inference", 4, "fp32", 1, "numpy", "cpu")
    return protocol.rates(name, case, batches, seconds)


@pytest.mark.parametrize(
    "name, mean",
    [
        ("tensorflow_layers", (1 + 4 + 2 + 8 + 2) / 5),
        ("popart_layers", (1 + 4 + 2 + 8 + 2) / 5),
        ("tensorflow_cnns", (4 + 2 + 8 + 2) / 4),
        ("pytorch_cnns", (2 + 8 + 2) / 3),
    ],
)
def test_the_rate_is_the_mean_of_the_rates_of_the_calls_that_count(name, mean):
    assert rates(name)["protocol_items_per_s"] == pytest.approx(mean, rel=1e-15)


def test_only_one_program_prints_how_far_rates_spread():
    """2, 8 and 2 are 4 on average, and 2, 4 and 2 off it: sqrt(24 / 3)."""
    assert list(rates("pytorch_cnns").values()) == pytest.approx([4, 2, 8, math.sqrt(8)], rel=1e-15)
    for name in ("tensorflow_layers", "popart_layers", "tensorflow_cnns"):
        assert list(rates(name).values())[1:] == [None, None, None]


def test_our_own_protocol_has_no_rate_of_theirs():
    assert rates("median") == dict.fromkeys(FIELDS)


@pytest.mark.parametrize("name, count", [("tensorflow_cnns", 1), ("pytorch_cnns", 1), ("pytorch_cnns", 2)])
def test_there_is_no_rate_where_every_call_is_dropped(name, count):
    assert rates(name, SECONDS[:count]) == dict.fromkeys(FIELDS)


@pytest.mark.parametrize("name, expected", [("tensorflow_layers", 20 * 4 * 2 / 5), ("popart_layers", 4 * 2 / 5)])
def test_a_chain_of_convolutions_counts_each_of_them_in_tensorflows_program_only(name, expected):
    found = rates(name, [5.0], "grouped_conv", block_repeats=20)

    assert found["protocol_items_per_s"] == pytest.approx(expected, rel=1e-15)


def test_hmc_averages_the_seconds_of_a_transition():
    """Two calls of 4 chains x 2 batches x 100 transitions, in 1 and in 3 seconds: 1600 in 4 seconds, where the mean of
    rates is 533."""
    found = rates("tensorflow_layers", [1.0, 3.0], "hmc", hmc_steps=100)

    assert found["protocol_items_per_s"] == pytest.approx(400, rel=1e-15)


# What is run before the samples, and which of them are there.


@pytest.mark.parametrize(
    "name, warmup, first", [("tensorflow_layers", 1, 1), ("popart_layers", 0, 0), ("tensorflow_cnns", 0, 0)]
)
def test_the_calls_before_the_first_sample_are_the_program_s(name, warmup, first):
    scripted = Scripted(lambda call: 1.0 + call)

    samples = scripted.measured(steps=3, protocol=name)

    assert samples.warmup_steps == warmup
    assert samples.warmup_s == pytest.approx(warmup)
    assert samples.seconds == pytest.approx([1.0 + first, 2.0 + first, 3.0 + first])


@pytest.mark.parametrize("name", protocol.PROGRAMS)
def test_each_call_of_a_program_is_a_sample_however_short(name):
    samples = Scripted(lambda call: 1e-6).measured(protocol=name, max_time_s=0.001)

    assert samples.steps_per_sample == 1
    assert len(samples.seconds) >= 100


@pytest.mark.parametrize("name, least", [("popart_layers", 1), ("tensorflow_cnns", 2), ("pytorch_cnns", 3)])
def test_one_call_more_is_timed_than_is_dropped(name, least):
    samples = Scripted(lambda call: 10.0).measured(protocol=name, min_rounds=1, max_time_s=0.1)

    assert len(samples.seconds) == least


@pytest.mark.parametrize("name", protocol.PROGRAMS)
def test_a_clock_that_stands_still_is_refused(name):
    with pytest.raises(Invalid, match="the clock did not move"):
        Scripted(lambda call: 0.0).measured(protocol=name, steps=3)

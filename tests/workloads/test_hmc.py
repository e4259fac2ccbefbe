"""Hamiltonian Monte Carlo: the physics of its steps, the statistics of its chains, and their judge."""

from __future__ import annotations

import numpy as np
import pytest

from bench import workloads
from bench.graph import Graph
from bench.graph.reference import evaluate
from bench.workloads.layers import hmc

CHAINS, STEPS = 500, 200


def flown(x, v, steps, step_size):
    """Where leapfrog steps from (x, v) end: positions and momenta."""
    ends = []
    for which in (0, 1):
        net = Graph(len(x))
        position, momentum = net.input(1), net.input(1)
        net.output = hmc.leapfrog(net, position, momentum, steps, step_size)[which]
        ends.append(evaluate(net, {}, {"input0": x, "input1": v}, "float64")[0])
    return ends


def energy(x, v):
    return x + x**2 + v**2 / 2


def starts(seed=0, count=50):
    generator = np.random.default_rng(seed)
    return generator.standard_normal((count, 1)), generator.standard_normal((count, 1))


def drift(step):
    """The root mean square change of energy over a time of one, in steps of `step`."""
    x, v = starts()
    return float(np.sqrt(np.mean((energy(*flown(x, v, round(1 / step), step)) - energy(x, v)) ** 2)))


@pytest.fixture(scope="module")
def chains():
    """Many chains of the reference, from fixed draws: (chain, step)."""
    graph = workloads.record(hmc, {"leapfrog_steps": 5, "hmc_steps": STEPS}, CHAINS, "inference", random_as_inputs=True)
    generator = np.random.default_rng(7)
    shape = (CHAINS, STEPS, 1)
    draws = dict(zip(graph.inputs, (generator.standard_normal(shape), generator.uniform(size=shape))))
    return evaluate(graph, {}, draws, "float64")[0]


@pytest.mark.parametrize("step", [0.2, 0.1, 0.05])
def test_leapfrog_keeps_the_energy(step):
    """A symplectic step drifts by O(step^2): halve the step, quarter the drift."""
    assert 0 < drift(step / 2) == pytest.approx(drift(step) / 4, rel=0.1)


@pytest.mark.parametrize("steps", [1, 5, 13])
@pytest.mark.parametrize("step_size", [0.1, 0.7, 1.0])
def test_leapfrog_runs_backward_when_the_momentum_is_turned(steps, step_size):
    x, v = starts()

    there = flown(x, v, steps, step_size)
    back = flown(there[0], -there[1], steps, step_size)

    assert np.abs(there[0] - x).max() > 0.1
    np.testing.assert_allclose(back[0], x, atol=1e-9)
    np.testing.assert_allclose(-back[1], v, atol=1e-9)


def test_leapfrog_goes_with_the_flow():
    """The oscillator x'' = -1 - 2x has the solution x + 1/2 = a cos(wt) + b/w sin(wt), w^2 = 2."""
    x, v = starts()
    w = 2**0.5

    got, _ = flown(x, v, 1000, 0.001)

    np.testing.assert_allclose(got, (x + 0.5) * np.cos(w) + v / w * np.sin(w) - 0.5, atol=1e-5)


def test_a_step_of_one_is_a_quarter_turn():
    x, v = starts()

    half_turn, _ = flown(x, v, 2, 1.0)
    whole_turn, _ = flown(x, v, 4, 1.0)

    np.testing.assert_allclose(half_turn, -1 - x, atol=1e-12)
    np.testing.assert_allclose(whole_turn, x, atol=1e-12)


def test_five_leapfrog_steps_by_hand():
    """From x = 1, v = 0 the first kick is -3/2, then each quarter turn repeats after four steps."""
    x, v = flown(np.array([[1.0]]), np.array([[0.0]]), 1, 1.0)

    assert (x.item(), v.item()) == (-0.5, -1.5)
    assert [end.item() for end in flown(np.array([[1.0]]), np.array([[0.0]]), 5, 1.0)] == [-0.5, -1.5]


def test_chains_accept_as_often_as_theory_says(chains):
    assert np.mean(np.diff(chains[:, :, 0], axis=1) != 0) == pytest.approx(0.784, abs=0.005)


def test_chains_have_the_moments_of_the_target(chains):
    settled = chains[:, 20:]

    assert settled.mean() == pytest.approx(-0.5, abs=0.015)
    assert settled.var() == pytest.approx(0.5, abs=0.02)
    assert np.mean((settled + 0.5) ** 3) == pytest.approx(0, abs=0.03)
    # Of a normal: three times the variance squared.
    assert np.mean((settled + 0.5) ** 4) == pytest.approx(0.75, abs=0.08)


def test_a_step_is_taken_or_left_by_its_gain_in_energy():
    """From x = 1 with v = 0 the energy falls from 2 to 0.875: taken. With v = -3/2 it ends at x = -2 with
    the energy of the start, 3.125: a gain of 0 is not above log 1, so it is left."""
    graph = workloads.record(hmc, {"leapfrog_steps": 1, "hmc_steps": 1}, 2, "inference", random_as_inputs=True)
    momenta, uniforms = np.array([0.0, -1.5]).reshape(2, 1, 1), np.array([1.0, 1.0]).reshape(2, 1, 1)

    got, _ = evaluate(graph, {}, dict(zip(graph.inputs, (momenta, uniforms))), "float64")

    assert got.ravel().tolist() == [-0.5, 1.0]


@pytest.mark.parametrize("steps", [2, 4, 10, 1000])
def test_even_numbers_of_leapfrog_steps_are_refused_at_a_step_size_of_one(steps):
    with pytest.raises(ValueError, match=f"leapfrog_steps={steps} never mixes.*odd number.*--leapfrog-step-size 0.5"):
        hmc.build(Graph(1), leapfrog_steps=steps, hmc_steps=3)


def test_thirteen_leapfrog_steps_of_a_half_are_refused():
    """acos(0.75) is 41.41 degrees; thirteen of them are 538.3, a turn and a half but for 1.7 degrees."""
    with pytest.raises(ValueError, match=r"leapfrog_steps=13 never mixes at a step size of 0\.5"):
        hmc.build(Graph(1), leapfrog_steps=13, hmc_steps=3, leapfrog_step_size="0.5")


# 4 / pi atan(l^(-1/2)): at a quarter turn l = 1 / k^2 = 2. Ten half steps turn by 54.1 degrees, and k^2 = 0.875: the
# trace is 2 x 0.3438 + 0.6562 x 2.01786 = 2.01172, l = 1.1143, and the chance 0.9656.
@pytest.mark.parametrize("steps, step_size, expected", [(1, 1.0, 0.78365), (5, 1.0, 0.78365), (10, 0.5, 0.9656)])
def test_the_share_that_is_taken_follows_from_the_rotation(steps, step_size, expected):
    assert hmc.acceptance(steps, step_size) == pytest.approx(expected, abs=2e-4)


@pytest.mark.parametrize("steps, size", [(1, "1"), (3, "1"), (5, "1"), (11, "1"), (2, "0.5"), (5, "0.5"), (10, "0.5")])
def test_leapfrog_steps_that_mix_make_plausible_chains(steps, size):
    dimensions = {"leapfrog_steps": steps, "hmc_steps": 200, "leapfrog_step_size": size}
    graph = workloads.record(hmc, dimensions, 20, "inference", random_as_inputs=True)
    generator = np.random.default_rng(steps)
    draws = generator.standard_normal((20, 200, 1)), generator.uniform(size=(20, 200, 1))

    trace, _ = evaluate(graph, {}, dict(zip(graph.inputs, draws)), "float64")

    assert hmc.implausible(trace, **dimensions) is None
    assert hmc.implausible(trace + 0.4, **dimensions)
    taken = np.mean(np.diff(trace[:, :, 0], axis=1) != 0)
    assert taken == pytest.approx(hmc.acceptance(steps, float(size)), abs=0.03)


def test_chains_of_another_step_size_are_implausible(chains):
    assert "acceptance rate 0.78" in str(hmc.implausible(chains, leapfrog_steps=10, leapfrog_step_size="0.5"))


@pytest.mark.parametrize("count, steps", [(CHAINS, STEPS), (100, 20), (20, 6), (1, STEPS), (1, 6), (1, 1)])
def test_a_right_trace_is_plausible_however_short(chains, count, steps):
    refused = [hmc.implausible(chains[at : at + count, :steps]) for at in range(0, CHAINS, count)]

    assert [reason for reason in refused if reason] == []


def mirrored(chains):
    trace = np.ones_like(chains)
    trace[:, ::2] = -2.0
    return trace


def stuck_in_one(chains):
    """All chains are the first one's mean: no spread."""
    return np.full_like(chains, -0.5) + 1e-3 * (chains + 0.5)


IMPLAUSIBLE = {
    "frozen": (np.ones_like, "acceptance rate 0 of"),
    "mirrored": (mirrored, "acceptance rate 1 of"),
    "shifted": (lambda chains: chains + 0.2, "mean -0.29"),
    "mirrored at zero": (lambda chains: -chains, "mean 0.49"),
    "too wide": (lambda chains: (chains + 0.5) * 1.2 - 0.5, "variance 0.7"),
    "too narrow": (stuck_in_one, "variance 4.9"),
    "taken always": (lambda chains: chains + 1e-9 * np.arange(STEPS)[:, None], "acceptance rate 1 of"),
    "not a number": (lambda chains: chains * np.nan, "of 100000 transitions"),
}


@pytest.mark.parametrize("name", IMPLAUSIBLE)
def test_a_wrong_trace_is_implausible(chains, name):
    spoil, text = IMPLAUSIBLE[name]

    reason = hmc.implausible(spoil(chains))

    assert text in str(reason)
    assert f"of {CHAINS * STEPS} transitions, expected" in str(reason)


@pytest.mark.parametrize("count, shift", [(500, 0.04), (50, 0.1), (5, 0.3)])
def test_a_small_shift_is_seen_in_enough_transitions(chains, count, shift):
    assert hmc.implausible(chains[:count]) is None
    assert "mean" in hmc.implausible(chains[:count] + shift)


@pytest.mark.parametrize("name", ["frozen", "mirrored"])
def test_one_chain_of_the_default_length_is_enough_to_see_that_it_does_not_mix(name):
    trace = np.ones((1, 1000, 1))

    assert hmc.implausible(IMPLAUSIBLE[name][0](trace))


def test_an_item_is_a_transition_of_a_chain():
    assert hmc.items(batch_size=3, hmc_steps=1000, leapfrog_steps=5) == 3000

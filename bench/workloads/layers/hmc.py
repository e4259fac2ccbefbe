"""Transitions of Hamiltonian Monte Carlo on a normal distribution with mean -1/2 and variance 1/2.

    log p(x) = -x - x^2      g(x) = -1 - 2 x      step size e = 1 (or 0.5), unit mass
    v <- v + e/2 g(x);  L times { x <- x + e v;  v <- v + e g(x) };  v <- v - e/2 g(x)
    accept if log u < log p(x') - log p(x) + v_old^2 / 2 - v_new^2 / 2

Shapes   out (batch, hmc_steps, 1): the state after every transition; every step starts at x = 1
Item     one transition of one chain; `batch_size` chains run in parallel
Source   Duane et al. 1987, leapfrog as in Neal 2011, section 5.2. Graphcore's TensorFlow kernel
         benchmarks, SDK 1.2 to 3.0: hmc.py and its tests, which ran 10,000 transitions a call.
         The first size here runs 1,000, so that a run of all layers is short. Their step size was always 1: with
         10 leapfrog steps, as in one of their tests, a chain visits only two points. At 0.5 it mixes

In the plane of w (x + 1/2) and v / k, with w^2 = 2 and k^2 = 1 - e^2 / 2, L leapfrog steps are a rotation by
L acos(1 - e^2). A rotation by a multiple of a half turn mirrors the chain or leaves it in place.
"""

from __future__ import annotations

import math
from typing import Any, List, Optional, Sequence

from bench.cases.dimension import Dimension
from bench.graph import Graph, Tensor

ITEM = "transition"
DIMENSIONS = {
    "leapfrog_steps": Dimension("l", "leapfrog steps in a transition of HMC", maximum=1001),
    "hmc_steps": Dimension("n", "transitions of HMC in one step"),
    "leapfrog_step_size": Dimension("e", "the step size of the leapfrog integrator", choices=("1", "0.5")),
}
SIZES = (
    {"leapfrog_steps": 5, "hmc_steps": 1000},
    {"leapfrog_steps": 5, "hmc_steps": 10000},
)
TINY = {"leapfrog_steps": 5, "hmc_steps": 6}
CHECKED_SIZE = {"hmc_steps": 20}
# The least absolute sine of the rotation. Closer to a multiple of a half turn, a chain hardly moves.
LEAST_TURN = 0.1


def gradient(net: Graph, x: Tensor) -> Tensor:
    """g(x) = -1 - 2 x."""
    return net.affine(x, -2.0, -1.0)


def leapfrog(net: Graph, x: Tensor, v: Tensor, steps: int, step_size: float) -> List[Tensor]:
    """Add `steps` leapfrog steps from (x, v) and return the last (x, v)."""
    v = net.add(v, net.affine(gradient(net, x), step_size / 2))
    for _ in range(steps):
        x = net.add(x, net.affine(v, step_size))
        v = net.add(v, net.affine(gradient(net, x), step_size))
    return [x, net.sub(v, net.affine(gradient(net, x), step_size / 2))]


def energy(net: Graph, x: Tensor, v: Tensor) -> Tensor:
    """Return x + x^2 + v^2 / 2: minus log p(x), plus the kinetic energy."""
    return net.add(net.add(x, net.mul(x, x)), net.affine(net.mul(v, v), 0.5))


def build(net: Graph, *, leapfrog_steps: int, hmc_steps: int, leapfrog_step_size: str = "1") -> Tensor:
    """Add the transitions to `net` and return the trace of states, (batch, hmc_steps, 1).

    Raises ValueError if the leapfrog steps only mirror the chain, or do not move it; at step size 1 these are all even
    numbers of them.
    """
    step_size = float(leapfrog_step_size)
    if abs(math.sin(turn(leapfrog_steps, step_size))) < LEAST_TURN:
        hint = "take an odd number, such as 5" if step_size == 1 else "take one more, or one less"
        option = ", or --leapfrog-step-size 0.5" if step_size == 1 else ""
        raise ValueError(
            f"leapfrog_steps={leapfrog_steps} never mixes at a step size of {leapfrog_step_size}: together they turn"
            f" the chain by a multiple of a half turn, which mirrors it or leaves it in place; {hint}{option}"
        )
    start = net.fill(1.0, 1)
    momenta = net.random(hmc_steps, 1, values="normal")
    uniforms = net.random(hmc_steps, 1, values="unit")

    def transition(net: Graph, states: Sequence[Tensor], draws: Sequence[Tensor]) -> List[Tensor]:
        (x,), (v, u) = states, draws
        x_end, v_end = leapfrog(net, x, v, leapfrog_steps, step_size)
        gain = net.sub(energy(net, x, v), energy(net, x_end, v_end))
        return [net.where_less(net.log(u), gain, x_end, x)]

    return net.scan(transition, [start], [momenta, uniforms])


# The original program averages the seconds of a transition over all calls, not the rates of the calls.
AVERAGES_SECONDS = True


def items(*, batch_size: int, hmc_steps: int, **size: int) -> int:
    """Items in one batch: the transitions of all chains."""
    return batch_size * hmc_steps


def unsupported(mode: str, precision: str) -> Optional[str]:
    """Why a case is meaningless for this workload, or None."""
    if precision != "fp32":
        return "hmc compares log densities, and runs in fp32 only"
    return None


def turn(leapfrog_steps: int, step_size: float) -> float:
    """The angle by which leapfrog steps rotate, in radians."""
    return leapfrog_steps * math.acos(1 - step_size**2)


def acceptance(leapfrog_steps: int, step_size: float) -> float:
    """The acceptance rate of a stationary chain.

    The change of energy is (M z) . (M z) / 2 - z . z / 2, for a standard normal z in the plane and M of determinant 1.
    With l and 1 / l the eigenvalues of M' M, the rate is 4 / pi atan(l^(-1/2)).
    """
    angle, square = turn(leapfrog_steps, step_size), 1 - step_size**2 / 2
    trace = 2 * math.cos(angle) ** 2 + math.sin(angle) ** 2 * (square + 1 / square)
    largest = trace / 2 + math.sqrt(max(trace**2 / 4 - 1, 0.0))
    return 4 / math.pi * math.atan(largest**-0.5)


def implausible(trace: Any, *, leapfrog_steps: int = 5, leapfrog_step_size: str = "1", **size: Any) -> Optional[str]:
    """What is wrong with the acceptance rate or the moments of a timed step's trace, or None.

    An accepted transition ends at cos(turn) times its start, plus an independent draw. A rejected one ends at its
    start. With an acceptance rate a, the correlation of consecutive states is r = 1 - a + a |cos(turn)|, and n states
    count as n (1 - r) / (1 + r) independent ones. The bounds are six standard errors.
    """
    import numpy as np

    expected_rate = acceptance(leapfrog_steps, float(leapfrog_step_size))
    decorrelation = expected_rate * (1 - abs(math.cos(turn(leapfrog_steps, float(leapfrog_step_size)))))
    batch, steps, _ = trace.shape
    chains = np.concatenate([np.full((batch, 1), 1.0), np.asarray(trace, dtype="float64")[:, :, 0]], axis=1)
    draws = batch * steps
    rate = float(np.mean(chains[:, 1:] != chains[:, :-1]))
    independent = max(draws * decorrelation / (2 - decorrelation), 1.0)
    statistics = {
        "acceptance rate": (rate, expected_rate, (expected_rate * (1 - expected_rate) / independent) ** 0.5),
        "mean": (float(chains[:, 1:].mean()), -0.5, (0.5 / independent) ** 0.5),
        "variance": (float(np.mean((chains[:, 1:] + 0.5) ** 2)), 0.5, 0.5 * (2 / independent) ** 0.5),
    }
    for what, (value, expected, error) in statistics.items():
        # In up to a few dozen draws the start at x = 1 has an effect: the bound allows for one more draw.
        if abs(value - expected) > 6 * error + 4 / draws:
            return f"{what} {value:.3g} of {draws} transitions, expected {expected} +- {6 * error:.2g}"
    return None

"""Transitions of Hamiltonian Monte Carlo on a normal with mean -1/2 and variance 1/2.

    log p(x) = -x - x^2      g(x) = -1 - 2 x      step size e = 1, unit mass
    v <- v + e/2 g(x);  L times { x <- x + e v;  v <- v + e g(x) };  v <- v - e/2 g(x)
    accept if log u < log p(x') - log p(x) + v_old^2 / 2 - v_new^2 / 2

Shapes   out (batch, hmc_steps, 1): the state after every transition; every step starts at x = 1
Item     one transition of one chain; `batch_size` chains run side by side
Source   Duane et al. 1987, leapfrog as in Neal 2011, section 5.2. Graphcore's TensorFlow kernel
         benchmarks, SDK 1.2 to 3.0: hmc.py and its tests, which ran 10,000 transitions a call;
         the first size here runs 1,000, so that a plain run stays short
"""

from __future__ import annotations

from typing import Any, List, Optional, Sequence

from bench.graph import Graph, Tensor
from bench.size import Dimension

ITEM = "transition"
DIMENSIONS = {
    "leapfrog_steps": Dimension("l", "leapfrog steps in a transition of HMC", maximum=1001),
    "hmc_steps": Dimension("n", "transitions of HMC in one step"),
}
SIZES = (
    {"leapfrog_steps": 5, "hmc_steps": 1000},
    {"leapfrog_steps": 5, "hmc_steps": 10000},
)
TINY = {"leapfrog_steps": 5, "hmc_steps": 6}
CHECKED = {"hmc_steps": 20}
STEP_SIZE = 1.0
ACCEPTANCE = 0.784


def gradient(net: Graph, x: Tensor) -> Tensor:
    """g(x) = -1 - 2 x."""
    return net.affine(x, -2.0, -1.0)


def leapfrog(net: Graph, x: Tensor, v: Tensor, steps: int, step_size: float) -> List[Tensor]:
    """Add `steps` leapfrog steps from (x, v) and return where they end."""
    v = net.add(v, net.affine(gradient(net, x), step_size / 2))
    for _ in range(steps):
        x = net.add(x, net.affine(v, step_size))
        v = net.add(v, net.affine(gradient(net, x), step_size))
    return [x, net.sub(v, net.affine(gradient(net, x), step_size / 2))]


def energy(net: Graph, x: Tensor, v: Tensor) -> Tensor:
    """x + x^2 + v^2 / 2: minus log p(x), plus the kinetic energy."""
    return net.add(net.add(x, net.mul(x, x)), net.affine(net.mul(v, v), 0.5))


def build(net: Graph, *, leapfrog_steps: int, hmc_steps: int) -> Tensor:
    """Add the transitions to `net` and return the trace of states.

    Raises ValueError for an even number of leapfrog steps: at step size 1 each leapfrog step is a
    quarter turn in phase space, so an even number only mirrors the chain, or does not move it.
    """
    if leapfrog_steps % 2 == 0:
        raise ValueError(
            f"leapfrog_steps={leapfrog_steps} never mixes: every leapfrog step is a quarter turn, so an even"
            f" number mirrors the chain or leaves it in place; take an odd number, such as 5"
        )
    start = net.fill(1.0, 1)
    momenta = net.random(hmc_steps, 1, values="normal")
    uniforms = net.random(hmc_steps, 1, values="unit")

    def transition(net: Graph, states: Sequence[Tensor], draws: Sequence[Tensor]) -> List[Tensor]:
        (x,), (v, u) = states, draws
        x_end, v_end = leapfrog(net, x, v, leapfrog_steps, STEP_SIZE)
        gain = net.sub(energy(net, x, v), energy(net, x_end, v_end))
        return [net.where_less(net.log(u), gain, x_end, x)]

    return net.scan(transition, [start], [momenta, uniforms])


# The program prints the average of the seconds of a transition over all calls, and not that of the calls' rates.
AVERAGES_SECONDS = True


def items(*, batch_size: int, hmc_steps: int, **size: int) -> int:
    """Items in one batch: the transitions of all chains."""
    return batch_size * hmc_steps


def unsupported(mode: str, precision: str) -> Optional[str]:
    """Why a case makes no sense for this workload, or None."""
    if precision != "fp32":
        return "hmc compares log densities, and runs in fp32 only"
    return None


def implausible(trace: Any) -> Optional[str]:
    """What is wrong with the numbers of a timed step, or None: acceptance rate and moments.

    A transition that is taken ends in a draw that is independent of its start (a quarter turn), so
    a share a of fresh draws leaves n a / (2 - a) independent ones. The bounds are six standard errors.
    """
    import numpy as np

    batch, steps, _ = trace.shape
    chains = np.concatenate([np.full((batch, 1), 1.0), np.asarray(trace, dtype="float64")[:, :, 0]], axis=1)
    draws = batch * steps
    rate = float(np.mean(chains[:, 1:] != chains[:, :-1]))
    independent = max(draws * ACCEPTANCE / (2 - ACCEPTANCE), 1.0)
    found = {
        "acceptance rate": (rate, ACCEPTANCE, (ACCEPTANCE * (1 - ACCEPTANCE) / draws) ** 0.5),
        "mean": (float(chains[:, 1:].mean()), -0.5, (0.5 / independent) ** 0.5),
        "variance": (float(np.mean((chains[:, 1:] + 0.5) ** 2)), 0.5, 0.5 * (2 / independent) ** 0.5),
    }
    for what, (value, expected, error) in found.items():
        # Up to a few dozen draws the start at x = 1 still weighs in: allow it one draw.
        if abs(value - expected) > 6 * error + 4 / draws:
            return f"{what} {value:.3g} of {draws} transitions, expected {expected} +- {6 * error:.2g}"
    return None

"""Correct or not recorded: a program against the float64 reference, on the same weights and inputs.

Output and loss   norm(got - expected) / norm(expected) within the tolerance of the precision, and no
                  element further off than 30 tolerances of the root mean square
Gradient, update  one real training step at a learning rate that moves the weights by about their own
                  size; g = (before - after) / rate. Along random directions d, g.d must equal the central
                  difference of the float64 loss, which needs no backward pass of our own
Types             those found on the real tensors are those that the precision names
"""

from __future__ import annotations

import math
from typing import Any, Dict, List, Mapping, Optional, Tuple

from bench import values
from bench.backends.numpy import evaluate
from bench.case import Case, Wrong
from bench.graph import Graph
from bench.precision import PRECISIONS
from bench.step import Program

Array = Any

# Above this many FLOPs the reference checks the first rows of the batch, where rows are independent,
# and takes one direction, where they are not.
REFERENCE_FLOPS = 2 * 10**10


def require(program: Program, graph: Graph, case: Case, weights: Mapping[str, Array]) -> Dict[str, Any]:
    """Feed random inputs, run once and compare. Returns what was compared and how far it was off.

    Raises Wrong, saying which number, how far off it is and how far it may be.
    """
    precision = PRECISIONS[case.precision]
    _require_types(program, case)
    inputs = values.inputs(graph, precision.compute, batch=1)
    program.feed([inputs])
    rate = 0.0
    directions: List[Tuple[Dict[str, Array], float]] = []
    if case.mode == "training":
        count = 1 if graph.flops > REFERENCE_FLOPS else 3
        directions = [_slope(graph, weights, inputs, seed) for seed in range(count)]
        rate = _rate(weights, [slope for _, slope in directions])
        assert program.set_learning_rate is not None
        program.set_learning_rate(rate)
    program.run()
    got = program.outputs()
    rows = _rows(graph, case)
    some = {name: array[:rows] for name, array in inputs.items()}
    output, terms = evaluate(graph, weights, some, "float64")
    if got["output"].shape != graph.output.shape:
        raise Wrong(f"output has shape {got['output'].shape}, the graph says {graph.output.shape}")
    found: Dict[str, Any] = {"checked_rows": rows}
    found["error"] = _require_close("output", got["output"][:rows], output, precision.tolerance)
    if terms is not None:
        loss = terms.sum()
        # A loss near zero is a sum of parts that cancel: it is held against the size of the output.
        scale = max(abs(float(loss)), float(abs(output).mean()))
        _require_close("loss", got["loss"], loss, precision.tolerance, scale)
    if directions:
        found["gradient_error"] = _require_update(program, case, weights, directions, rate)
    return found


def require_finite(program: Program) -> None:
    """Raise Wrong when what the timed steps left behind is not finite."""
    for name, array in program.outputs().items():
        if not math.isfinite(float(array.sum())):
            raise Wrong(f"{name} is not finite after the timed steps")


def _require_types(program: Program, case: Case) -> None:
    precision = PRECISIONS[case.precision]
    if (program.compute, program.held) != (precision.compute, precision.weights):
        raise Wrong(
            f"asked for {case.precision} ({precision.compute} arithmetic, {precision.weights} weights),"
            f" ran {program.compute} arithmetic on {program.held} weights"
        )


def _rows(graph: Graph, case: Case) -> int:
    if case.mode != "inference" or graph.flops <= REFERENCE_FLOPS:
        return graph.batch_size
    return max(1, graph.batch_size * REFERENCE_FLOPS // graph.flops)


def _require_close(what: str, got: Array, expected: Array, tolerance: float, scale: Optional[float] = None) -> float:
    import numpy as np

    got, expected = np.asarray(got), np.asarray(expected)
    if got.shape != expected.shape:
        raise Wrong(f"{what} has shape {got.shape}, the reference has {expected.shape}")
    if not np.isfinite(expected).all():
        raise Wrong(f"the reference's {what} is not finite, so nothing can be checked")
    if not np.isfinite(got).all():
        raise Wrong(f"{what} is not finite: {int((~np.isfinite(got)).sum())} of {got.size} elements")
    off = np.abs(got - expected)
    size = float(np.linalg.norm(expected)) if scale is None else scale
    error = float(np.linalg.norm(off)) / max(size, 1e-30)
    if error > tolerance:
        raise Wrong(f"{what} is off by {error:.2g} of its norm, {tolerance:g} is allowed")
    rms = size / math.sqrt(max(expected.size, 1))
    if scale is None and float(off.max()) > 30 * tolerance * rms:
        at = tuple(int(i) for i in np.unravel_index(int(off.argmax()), off.shape))
        raise Wrong(f"{what}{list(at)} is {got[at]:.6g}, the reference has {expected[at]:.6g}")
    return error


def _slope(
    graph: Graph, weights: Mapping[str, Array], inputs: Mapping[str, Array], seed: int
) -> Tuple[Dict[str, Array], float]:
    """A random direction, one normal number a weight, and the slope of the float64 loss along it."""
    import numpy as np

    generator = np.random.default_rng(1000 + seed)
    direction = {name: generator.standard_normal(w.shape) for name, w in weights.items()}
    largest = max(float(np.abs(w).max()) for w in weights.values())
    step = 3e-5 * largest
    ends: List[Array] = []
    for sign in (1, -1):
        moved = {name: w + sign * step * direction[name] for name, w in weights.items()}
        ends.append(evaluate(graph, moved, inputs, "float64")[1])
    return direction, float((ends[0] - ends[1]).sum()) / (2 * step)


def _rate(weights: Mapping[str, Array], slopes: List[float]) -> float:
    """A learning rate that moves the weights by about their own norm.

    A slope along a direction of normal numbers has the gradient's norm as its standard deviation.
    """
    norm = math.sqrt(sum(float((w.astype("float64") ** 2).sum()) for w in weights.values()))
    gradient = math.sqrt(sum(slope**2 for slope in slopes) / len(slopes))
    return float(2.0 ** round(math.log2(norm / max(gradient, 1e-300))))


def _require_update(
    program: Program,
    case: Case,
    weights: Mapping[str, Array],
    directions: List[Tuple[Dict[str, Array], float]],
    rate: float,
) -> float:
    import numpy as np

    assert program.weights is not None
    assert program.load is not None
    after = program.weights()
    gradient = {name: (np.asarray(w, "float64") - after[name]) / rate for name, w in weights.items()}
    norm = math.sqrt(sum(float((g**2).sum()) for g in gradient.values()))
    if not math.isfinite(norm):
        raise Wrong("the updated weights are not finite")
    # fp16 and bf16 weights round the update itself; the error of g.d is relative to the norm of g.
    allowed = PRECISIONS[case.precision].gradient_tolerance
    worst = 0.0
    for direction, slope in directions:
        found = sum(float((gradient[name] * d).sum()) for name, d in direction.items())
        error = abs(found - slope) / max(norm, 1e-300)
        worst = max(worst, error)
        if not error <= allowed:
            raise Wrong(
                f"the update of one training step is off by {error:.2g} of its norm along a random direction,"
                f" {allowed:g} is allowed"
            )
    program.load(weights)
    return worst

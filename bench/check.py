"""Compares a program with the float64 reference, on the same weights and inputs. A wrong program is not recorded.

Output and loss   the relative error, norm(result - reference) / norm(reference), is within the tolerance of the
                  precision, and no element is off by more than 30 tolerances times the root mean square
Condition         if not, the reference runs again with each result rounded to the precision. The tolerance is then
                  ROUNDINGS times the relative change of the output, at most MOST times the tolerance of the precision
Gradient, update  one real training step at a learning rate that moves the weights by about their own size gives
                  g = (before - after) / rate. Along random directions d, g.d must equal the central difference of the
                  float64 loss, so the reference needs no backward pass
Types             the types of the real tensors are those of the precision
"""

from __future__ import annotations

import math
from typing import Any, Dict, List, Mapping, Optional, Tuple

from bench.cases.case import Case
from bench.cases.errors import Wrong
from bench.cases.precision import PRECISIONS
from bench.graph import Graph, Node, draws
from bench.graph.reference import evaluate
from bench.group import ALONE, Group
from bench.program import Program

Array = Any

# Above this many FLOP an inference is checked on the first rows of the batch, and an update in one direction.
REFERENCE_FLOPS = 2 * 10**10
# Steps of the central difference, relative to the size of the weights, in the order of trial. A small step crosses few
# kinks of relus and pools. If the loss is a sum of many large terms, rounding errors need a larger one.
STEPS = (1e-8, 1e-7, 1e-6, 1e-5, 1e-4)
# A step is good enough if the error of the slope is at most this share of the tolerance of the update.
GOOD_ENOUGH = 0.1
ROUNDOFF = 2.0**-53
# Rounding errors add up in a deep network in training: its tolerance is that of one layer times this.
DEPTH_SLACK = 2
GRADIENT_SLACK = 5
# The tolerance of an ill-conditioned case, relative to the change of the reference when each result is rounded once.
# Frameworks also round within an operation.
ROUNDINGS = 4
# The largest tolerance of an ill-conditioned case, relative to the tolerance of the precision.
MOST = 4
# The tolerance of the update of a deep network's head in 16 bits; a wrong factor of two is an error of a half.
HEAD_TOLERANCE = {"float16": 0.2, "bfloat16": 0.4}
# The number of batches that must fail before the update of a deep network counts as wrong.
UPDATE_TRIES = 3


def require(
    program: Program, graph: Graph, case: Case, weights: Mapping[str, Array], group: Group = ALONE
) -> Dict[str, Any]:
    """Feed random inputs, run once and compare. Returns the record's fields of the check: errors, tolerance, rows.

    group   replicas that train together: each gets another batch, and all must apply the mean of their updates
    Raises Wrong with the name of the number, its error and its tolerance.
    """
    _require_types(program, case)
    tries = UPDATE_TRIES if graph.blocks and graph.training and PRECISIONS[case.precision].bytes == 4 else 1

    def inputs(batch: int) -> Dict[str, Array]:
        return draws.inputs(graph, PRECISIONS[case.precision].compute, batch + UPDATE_TRIES * group.rank)

    for batch in range(1, tries):
        try:
            fields: Optional[Dict[str, Any]] = compared(program, graph, case, weights, inputs(batch), group)
        except _WrongUpdate:
            # A relu whose input is zero within fp32's precision may pass its gradient or not. That depends on the
            # inputs, whereas a wrong program is wrong for all inputs.
            fields = None
        if all(group.all_gather(fields is not None)):
            assert fields is not None
            return fields
    return compared(program, graph, case, weights, inputs(tries), group)


class _WrongUpdate(Wrong):
    """The output is right, and the update of the weights is wrong."""


def compared(
    program: Program, graph: Graph, case: Case, weights: Mapping[str, Array], inputs: Dict[str, Array], group: Group
) -> Dict[str, Any]:
    """Feed these inputs, run once and compare: see `require`."""
    program.feed([inputs])
    update = None
    if case.mode == "training":
        program.load(weights)
        update = _Update(graph, case, weights, inputs, group)
        program.set_learning_rate(update.rate)
    program.run_noted()
    fields = compared_output(program.outputs(), graph, case, weights, inputs, _rows(graph, case))
    if update is not None:
        fields["gradient_error"] = update.require(program)
    return fields


def compared_output(
    results: Mapping[str, Array],
    graph: Graph,
    case: Case,
    weights: Mapping[str, Array],
    inputs: Mapping[str, Array],
    rows: int,
) -> Dict[str, Any]:
    """Compare the first `rows` of the output with the reference, and the loss if these are all."""
    tolerance = tolerance_of(graph, case)
    checked_inputs = {name: array[:rows] for name, array in inputs.items()}
    output, terms = evaluate(graph, weights, checked_inputs, "float64")
    if results["output"].shape != graph.output.shape:
        raise Wrong(f"output has shape {results['output'].shape}, the graph says {graph.output.shape}")
    try:
        error = require_close("output", results["output"][:rows], output, tolerance)
    except Wrong as wrong:
        tolerance = _tolerance_of_rounding(graph, case, weights, checked_inputs, output, tolerance, wrong)
        error = require_close("output", results["output"][:rows], output, tolerance)
    fields: Dict[str, Any] = {"checked_rows": rows, "tolerance": tolerance, "relative_error": error}
    if terms is not None and rows == graph.batch_size:
        loss = terms.sum()
        # A loss near zero may be a sum of terms that cancel: its error is relative to at least the size of the output.
        scale = max(abs(float(loss)), float(abs(output).mean()))
        require_close("loss", results["loss"], loss, tolerance, scale)
    return fields


def tolerance_of(graph: Graph, case: Case) -> float:
    """The largest relative error of an output, if the case is well conditioned."""
    return PRECISIONS[case.precision].tolerance * (DEPTH_SLACK if graph.blocks and graph.training else 1)


def _tolerance_of_rounding(
    graph: Graph,
    case: Case,
    weights: Mapping[str, Array],
    inputs: Mapping[str, Array],
    output: Array,
    tolerance: float,
    wrong: Wrong,
) -> float:
    """The tolerance of an ill-conditioned case: ROUNDINGS times the change of `output` if results are rounded.

    Raises `wrong`, the error of the first comparison, if that is at most `tolerance`. Raises Wrong, "cannot be
    checked", if it is more than MOST times `tolerance`.
    """
    import numpy as np

    name = PRECISIONS[case.precision].compute

    def rounded(index: int, node: Node, args: List[Array], result: Array) -> Array:
        return np.asarray(draws.rounded(result, name), "float64")

    with np.errstate(over="ignore", invalid="ignore"):
        narrow = {key: draws.rounded(np.asarray(array), name) for key, array in weights.items()}
        change = float(np.linalg.norm(evaluate(graph, narrow, inputs, "float64", rounded)[0] - output))
    change /= max(float(np.linalg.norm(output)), 1e-30)
    if ROUNDINGS * change <= tolerance:
        raise wrong
    if not ROUNDINGS * change <= MOST * tolerance:
        raise Wrong(
            f"cannot be checked in {case.precision}: one rounding of each result moves the reference by {change:.2g} of"
            f" its norm, and a program may be off by {MOST * tolerance:g} at the most ({wrong})"
        )
    return ROUNDINGS * change


def require_finite(program: Program) -> None:
    """Raise Wrong if an output of the last timed step is not finite."""
    for name, array in program.outputs().items():
        if not math.isfinite(float(array.sum())):
            raise Wrong(f"{name} is not finite after the timed steps")


def _require_types(program: Program, case: Case) -> None:
    precision = PRECISIONS[case.precision]
    if (program.compute_dtype, program.weight_dtype) != (precision.compute, precision.weights):
        raise Wrong(
            f"asked for {case.precision} ({precision.compute} arithmetic, {precision.weights} weights),"
            f" ran {program.compute_dtype} arithmetic on {program.weight_dtype} weights"
        )


def _rows(graph: Graph, case: Case) -> int:
    if case.mode != "inference" or graph.flops <= REFERENCE_FLOPS:
        return graph.batch_size
    return max(1, graph.batch_size * REFERENCE_FLOPS // graph.flops)


def require_close(what: str, got: Array, expected: Array, tolerance: float, scale: Optional[float] = None) -> float:
    """Return the error relative to `scale`, or else to the norm of `expected`. Raises Wrong beyond the tolerance."""
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


# A direction in the weights, the slope of the loss along it, and the error of that slope.
Direction = Tuple[Dict[str, Array], float, float]


class _Update:
    """The expected update of one training step, along random directions.

    A direction has one normal random number for each value, times the root mean square of its array: a step of one size
    for all would be too large for the small weights of a deep network.

    A deep network in 16 bits is chaotic: relus of its first layers flip, and their gradients change (by half their norm
    in bf16, where fp32 is right to 1e-5). So there the directions are in the weights of its last block, the head. Its
    gradient still depends on the whole forward pass, on the loss and on each factor on it.

    Mixed precision rounds its weights before it computes, so the slopes are computed at the rounded weights. The error
    of a slope is estimated and added to the tolerance of the update.
    """

    def __init__(
        self,
        graph: Graph,
        case: Case,
        weights: Mapping[str, Array],
        inputs: Mapping[str, Array],
        group: Group = ALONE,
    ) -> None:
        self.graph, self.weights, self.inputs, self.group = graph, weights, inputs, group
        precision = PRECISIONS[case.precision]
        self.computed = {name: draws.rounded(array, precision.compute) for name, array in weights.items()}
        head = graph.blocks[-1] if graph.blocks and precision.bytes == 2 else ""
        trained = [w for node in graph.nodes if not head or node.block == head for w in node.weights if w.trained]
        self.sizes = {w.name: math.sqrt(float((weights[w.name].astype("float64") ** 2).mean())) or 1.0 for w in trained}
        # A few relus near zero flip in fp32 as well.
        self.tolerance = precision.gradient_tolerance * (GRADIENT_SLACK if graph.blocks else 1)
        if head:
            self.tolerance = HEAD_TOLERANCE[precision.compute]
        self.terms = self._terms({})
        self.largest_slope = 0.0
        count = 1 if graph.flops > REFERENCE_FLOPS else 3
        self.directions = [self._slope(seed) for seed in range(count)]
        self.rate = self._rate([slope for _, slope, _ in self.directions])

    def _slope(self, seed: int) -> Direction:
        """A random direction, the slope of the float64 loss along it, and the error of that slope."""
        import numpy as np

        generator = np.random.default_rng(1000 + seed)
        shapes = {name: self.weights[name].shape for name in self.sizes}
        direction = {name: self.sizes[name] * generator.standard_normal(shape) for name, shape in shapes.items()}
        return (direction, *self._slope_along(direction))

    def _slope_along(self, direction: Mapping[str, Array]) -> Tuple[float, float]:
        """The slope along a direction and its error, by the first step that is good enough, or else by the best one."""
        estimates: List[Tuple[float, float]] = []
        for step in STEPS:
            slope, error = self._difference(direction, step)
            estimates.append((error, slope))
            if error <= GOOD_ENOUGH * self.tolerance * max(abs(slope), self.largest_slope):
                break
        error, slope = min(estimates)
        self.largest_slope = max(self.largest_slope, abs(slope))
        return slope, error

    def _difference(self, direction: Mapping[str, Array], step: float) -> Tuple[float, float]:
        """The central difference and its error.

        The error is half the distance of the forward from the backward difference, which a kink on one side adds, but
        at least the rounding error of the terms that changed.
        """
        ahead, behind = (self._terms({name: by * along for name, along in direction.items()}) for by in (step, -step))
        slope = float((ahead - behind).sum()) / (2 * step)
        kink = abs(float(((ahead - self.terms) - (self.terms - behind)).sum())) / (2 * step)
        rounding = ROUNDOFF * float(abs(ahead[ahead != self.terms]).sum()) / step
        # The mean over all replicas, so that all of them use the same steps.
        slopes, errors = zip(*self.group.all_gather((slope, max(kink, rounding))))
        return math.fsum(slopes) / len(slopes), max(errors)

    def _terms(self, changes: Mapping[str, Array]) -> Array:
        """The terms of the float64 loss at the weights plus `changes`."""
        changed = {name: self.computed[name] + change for name, change in changes.items()}
        return evaluate(self.graph, {**self.computed, **changed}, self.inputs, "float64")[1]

    def _along(self, gradient: Mapping[str, Array], norm: float) -> List[Direction]:
        """The direction of the update itself, along which a wrong factor has its full effect.

        For deep networks only, which are checked on small images.
        """
        if not self.graph.blocks or not norm:
            return []
        direction = {name: self.sizes[name] ** 2 * g / norm for name, g in gradient.items()}
        return [(direction, *self._slope_along(direction))]

    def _rate(self, slopes: List[float]) -> float:
        """A learning rate that moves the weights by about their own size.

        The standard deviation of the slopes is the norm of the gradient, in units of the weights' sizes.
        """
        norm = math.sqrt(sum(size**4 * self.weights[name].size for name, size in self.sizes.items()))
        gradient = math.sqrt(sum(slope**2 for slope in slopes) / len(slopes))
        return float(2.0 ** round(math.log2(norm / max(gradient, 1e-300))))

    def require(self, program: Program) -> float:
        """Compare the update of the weights with the slopes, restore the weights and return the error.

        Raises Wrong if the error is beyond the tolerance.
        """
        import numpy as np

        after = program.weights()
        not_finite = next((name for name, array in after.items() if not np.isfinite(array).all()), None)
        if not_finite:
            raise Wrong(f"the updated weights are not finite, {not_finite} first")
        gradient = {name: (np.asarray(self.weights[name], "float64") - after[name]) / self.rate for name in self.sizes}
        norm = math.sqrt(sum(float((self.sizes[name] ** 2 * g**2).sum()) for name, g in gradient.items()))
        # The error of g.d is relative to the norm of g, since weights in fp16 and bf16 round the update.
        worst = 0.0
        for direction, slope, slope_error in [*self.directions, *self._along(gradient, norm)]:
            measured = sum(float((gradient[name] * d).sum()) for name, d in direction.items())
            error = abs(measured - slope) / max(norm, 1e-300)
            worst = max(worst, error)
            # The error of the reference at most doubles the tolerance.
            extra = min(self.tolerance, slope_error / max(norm, 1e-300))
            if not error <= self.tolerance + extra:
                significant = extra > GOOD_ENOUGH * self.tolerance
                note = f", and {extra:.2g} for the reference's own error" if significant else ""
                raise _WrongUpdate(
                    f"the update of one training step is off by {error:.2g} of its norm along some direction,"
                    f" {self.tolerance:g} is allowed{note}"
                )
        program.load(self.weights)
        return worst

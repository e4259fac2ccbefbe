"""Correct or not recorded: a program against the float64 reference, on the same weights and inputs.

Output and loss   norm(got - expected) / norm(expected) within the tolerance of the precision, and no
                  element further off than 30 tolerances of the root mean square
Condition         where that fails, the reference runs again with each result rounded to the precision: a program
                  may be off by ROUNDINGS times what that moves the output, and never by more than MOST tolerances
Gradient, update  one real training step at a learning rate that moves the weights by about their own
                  size; g = (before - after) / rate. Along random directions d, g.d must equal the central
                  difference of the float64 loss, which needs no backward pass of our own
Types             those found on the real tensors are those that the precision names
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

# Above this many FLOPs the reference checks the first rows of the batch, where rows are independent,
# and takes one direction, where they are not.
REFERENCE_FLOPS = 2 * 10**10
# Steps of the central difference, in sizes of the weights, in the order in which they are tried. A small one crosses
# few kinks of relus and pools. Where the loss is a sum of many large terms, rounding spoils it: a larger one is needed.
STEPS = (1e-8, 1e-7, 1e-6, 1e-5, 1e-4)
# A step will do when the slope's own error is at most this share of what the update may be off.
SURE = 0.1
ROUNDOFF = 2.0**-53
# A deep network in training gathers rounding errors: its tolerance is that of one layer times this.
DEPTH_SLACK = 2
GRADIENT_SLACK = 5
# A program may be off by so many times what one rounding of every result moves the reference: frameworks also round
# inside of an operation.
ROUNDINGS = 4
# But by no more than so many tolerances: what would need more cannot be checked.
MOST = 4
# What the update of a deep network's head may be off in 16 bits; a factor of two is off by half.
HEAD_TOLERANCE = {"float16": 0.2, "bfloat16": 0.4}
# So many batches are tried before the update of a deep network counts as wrong.
UPDATE_TRIES = 3


def require(
    program: Program, graph: Graph, case: Case, weights: Mapping[str, Array], group: Group = ALONE
) -> Dict[str, Any]:
    """Feed random inputs, run once and compare. Returns what was compared and how far it was off.

    group   replicas that train together: each is fed its own batch, and all must take the mean of their updates
    Raises Wrong, saying which number, how far off it is and how far it may be.
    """
    _require_types(program, case)
    tries = UPDATE_TRIES if graph.blocks and graph.training and PRECISIONS[case.precision].bytes == 4 else 1
    for batch in range(1, tries):
        try:
            found: Optional[Dict[str, Any]] = _compared(program, graph, case, weights, batch, group)
        except _WrongUpdate:
            # A relu that is zero to fp32's precision sends its gradient another way: then for these
            # inputs only. What is wrong is wrong for all.
            found = None
        if all(group.all_gather(found is not None)):
            assert found is not None
            return found
    return _compared(program, graph, case, weights, tries, group)


class _WrongUpdate(Wrong):
    """The output is right, and the update is not."""


def _compared(
    program: Program, graph: Graph, case: Case, weights: Mapping[str, Array], batch: int, group: Group
) -> Dict[str, Any]:
    precision = PRECISIONS[case.precision]
    tolerance = precision.tolerance * (DEPTH_SLACK if graph.blocks and graph.training else 1)
    inputs = draws.inputs(graph, precision.compute, batch + UPDATE_TRIES * group.rank)
    program.feed([inputs])
    update = None
    if case.mode == "training":
        program.load(weights)
        update = _Update(graph, case, weights, inputs, group)
        program.set_learning_rate(update.rate)
    program.run()
    got = program.outputs()
    rows = _rows(graph, case)
    some = {name: array[:rows] for name, array in inputs.items()}
    output, terms = evaluate(graph, weights, some, "float64")
    if got["output"].shape != graph.output.shape:
        raise Wrong(f"output has shape {got['output'].shape}, the graph says {graph.output.shape}")
    try:
        error = _require_close("output", got["output"][:rows], output, tolerance)
    except Wrong as wrong:
        tolerance = _tolerance_of_rounding(graph, case, weights, some, output, tolerance, wrong)
        error = _require_close("output", got["output"][:rows], output, tolerance)
    found: Dict[str, Any] = {"checked_rows": rows, "tolerance": tolerance, "relative_error": error}
    if terms is not None:
        loss = terms.sum()
        # A loss near zero is a sum of parts that cancel: it is held against the size of the output.
        scale = max(abs(float(loss)), float(abs(output).mean()))
        _require_close("loss", got["loss"], loss, tolerance, scale)
    if update is not None:
        found["gradient_error"] = update.require(program)
    return found


def _tolerance_of_rounding(
    graph: Graph,
    case: Case,
    weights: Mapping[str, Array],
    inputs: Mapping[str, Array],
    output: Array,
    tolerance: float,
    wrong: Wrong,
) -> float:
    """The tolerance of an ill-conditioned case: ROUNDINGS times what one rounding of each result moves the `output`.

    Raises `wrong`, which is why somebody asks, where that is no more than `tolerance`, and Wrong, "cannot be checked",
    where it is more than MOST tolerances.
    """
    import numpy as np

    name = PRECISIONS[case.precision].compute

    def rounded(index: int, node: Node, args: List[Array], result: Array) -> Array:
        return np.asarray(draws.rounded(result, name), "float64")

    with np.errstate(over="ignore", invalid="ignore"):
        narrow = {key: draws.rounded(np.asarray(array), name) for key, array in weights.items()}
        moved = float(np.linalg.norm(evaluate(graph, narrow, inputs, "float64", rounded)[0] - output))
    moved /= max(float(np.linalg.norm(output)), 1e-30)
    if ROUNDINGS * moved <= tolerance:
        raise wrong
    if not ROUNDINGS * moved <= MOST * tolerance:
        raise Wrong(
            f"cannot be checked in {case.precision}: one rounding of each result moves the reference by {moved:.2g} of"
            f" its norm, and a program may be off by {MOST * tolerance:g} at the most ({wrong})"
        )
    return ROUNDINGS * moved


def require_finite(program: Program) -> None:
    """Raise Wrong when what the timed steps left behind is not finite."""
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


# A direction in the weights, the slope of the loss along it, and what that slope may be off.
Direction = Tuple[Dict[str, Array], float, float]


class _Update:
    """What one training step must do to the weights, along random directions.

    Each direction is one normal number a weight, in units of the weight's root mean square: one step
    for all would tear the small weights of a deep network apart. A deep network in 16 bits is chaotic:
    the relus of its first layers flip, and their gradients with them (off by half their norm in bf16, where
    fp32 is right to 1e-5). There the directions are those of its last block, the head, which the whole
    forward pass, the loss and every factor on it have gone through.

    The slopes are those at the weights as the arithmetic has them: mixed precision rounds its weights before it
    computes with them. A slope has an error of its own, which is estimated and added to what the update may be off.
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
        chosen = [w for node in graph.nodes if not head or node.block == head for w in node.weights if w.trained]
        self.sizes = {w.name: math.sqrt(float((weights[w.name].astype("float64") ** 2).mean())) or 1.0 for w in chosen}
        # A relu near zero flips in fp32 as well, here and there.
        self.allowed = precision.gradient_tolerance * (GRADIENT_SLACK if graph.blocks else 1)
        if head:
            self.allowed = HEAD_TOLERANCE[precision.compute]
        self.middle = self._terms({})
        self.largest = 0.0
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
        """The slope along a direction, and its error, by the first step that is good enough, else by the best one."""
        found: List[Tuple[float, float]] = []
        for step in STEPS:
            slope, error = self._difference(direction, step)
            found.append((error, slope))
            if error <= SURE * self.allowed * max(abs(slope), self.largest):
                break
        error, slope = min(found)
        self.largest = max(self.largest, abs(slope))
        return slope, error

    def _difference(self, direction: Mapping[str, Array], step: float) -> Tuple[float, float]:
        """The central difference, and its error: half of what the difference forward and the one backward are apart,
        which is what a kink on one side adds, but no less than the terms that changed may be rounded by."""
        ahead, behind = (self._terms({name: by * along for name, along in direction.items()}) for by in (step, -step))
        slope = float((ahead - behind).sum()) / (2 * step)
        apart = abs(float(((ahead - self.middle) - (self.middle - behind)).sum())) / (2 * step)
        rounded = ROUNDOFF * float(abs(ahead[ahead != self.middle]).sum()) / step
        # Of all replicas, which then take the same steps.
        every = self.group.all_gather((slope, max(apart, rounded)))
        return math.fsum(each[0] for each in every) / len(every), max(each[1] for each in every)

    def _terms(self, moved: Mapping[str, Array]) -> Array:
        """The terms of the float64 loss, some weights moved."""
        there = {name: self.computed[name] + by for name, by in moved.items()}
        return evaluate(self.graph, {**self.computed, **there}, self.inputs, "float64")[1]

    def _along(self, gradient: Mapping[str, Array], norm: float) -> List[Direction]:
        """The direction of the update itself, in which a wrong factor shows at its full size; for deep networks
        only, whose check is on small images."""
        if not self.graph.blocks or not norm:
            return []
        own = {name: self.sizes[name] ** 2 * g / norm for name, g in gradient.items()}
        return [(own, *self._slope_along(own))]

    def _rate(self, slopes: List[float]) -> float:
        """A learning rate that moves the weights by about their own size.

        A slope has the gradient's norm, in units of the weights' sizes, as its standard deviation.
        """
        norm = math.sqrt(sum(size**4 * self.weights[name].size for name, size in self.sizes.items()))
        gradient = math.sqrt(sum(slope**2 for slope in slopes) / len(slopes))
        return float(2.0 ** round(math.log2(norm / max(gradient, 1e-300))))

    def require(self, program: Program) -> float:
        """Raise Wrong unless the weights moved as the slopes say; put them back; return the error."""
        import numpy as np

        after = program.weights()
        unsound = next((name for name, array in after.items() if not np.isfinite(array).all()), None)
        if unsound:
            raise Wrong(f"the updated weights are not finite, {unsound} first")
        gradient = {name: (np.asarray(self.weights[name], "float64") - after[name]) / self.rate for name in self.sizes}
        norm = math.sqrt(sum(float((self.sizes[name] ** 2 * g**2).sum()) for name, g in gradient.items()))
        # fp16 and bf16 weights round the update itself; the error of g.d is relative to the norm of g.
        worst = 0.0
        for direction, slope, slope_error in [*self.directions, *self._along(gradient, norm)]:
            found = sum(float((gradient[name] * d).sum()) for name, d in direction.items())
            error = abs(found - slope) / max(norm, 1e-300)
            worst = max(worst, error)
            # The reference's own error is no excuse for more than as much again.
            own = min(self.allowed, slope_error / max(norm, 1e-300))
            if not error <= self.allowed + own:
                beside = f", and {own:.2g} for the reference's own error" if own > SURE * self.allowed else ""
                raise _WrongUpdate(
                    f"the update of one training step is off by {error:.2g} of its norm along some direction,"
                    f" {self.allowed:g} is allowed{beside}"
                )
        program.load(self.weights)
        return worst

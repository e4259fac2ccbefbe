"""After the clock: is the timed program still right, and did a step do its work?

Checked  on inputs that the program has not seen. Before that, it gets other numbers in the same arrays: a result that
         is kept for an array, not for its numbers, is wrong then
Kept     a step on new numbers must not take KEPT times the timed step, and a step that follows on the same numbers:
         results of known inputs would be kept
Late     reading the output must not take longer than the step: the step would not compute what is read

A busy machine only makes single steps slow, so a program is wrong only if all of TRIES are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Dict, Mapping, NamedTuple, Optional, Tuple

from bench import check, workloads
from bench.cases.case import Case
from bench.cases.errors import Wrong
from bench.cases.precision import PRECISIONS
from bench.graph import Graph, draws
from bench.group import Group
from bench.program import Program

Array = Any

# Batches of smaller numbers are checked before the clock, or timed.
UNSEEN = 1 << 20
# What the reference may take: 0.2 s. It computes as many rows of an output as that. Where it is less than one row, or
# less than a training step, the program is compared with itself.
REFERENCE_FLOPS = 10**9
# Of the output of a step before the clock: it stays in memory.
KEPT_NUMBERS = 2**20
# In training the update's norm must be that of before the clock, within this share: the norm of sums in another order.
UPDATE_SHARE = 0.1
TRIES = 10
# The first step after new inputs runs with cold caches: it takes one to four times the timed one.
KEPT = 20
KNOWN = 3
# Reading an output again finds it in a cache, or on the host already: as slow as this for a first read.
LATE_S, TRANSFER_BYTES_PER_S = 20e-6, 1e9
# Reading an output converts it to float64, in the graph's layout: as slow as this, and as so many plain copies.
READ_S, COPIES = 1e-3, 10
# Primitives that draw random numbers in the timed step.
DRAWING = frozenset(("random", "dropout"))


class _Result(NamedTuple):
    """What one step leaves: the first numbers of the output; the loss and the norm of the update, or 0."""

    output: Array
    loss: float
    update: float


@dataclass(frozen=True)
class Recheck:
    """What is needed to check a program after the clock.

    group   the replicas that train together: they take the same steps
    before  the result of a step before the clock, with which the same step is compared; None: the result is compared
            with the float64 reference
    """

    program: Program
    case: Case
    weights: Mapping[str, Array]
    group: Group
    before: Optional[_Result]

    def require(self, step_s: float) -> Dict[str, Any]:
        """Check the program. Returns the fields of the record. Inputs and weights are others afterwards.

        step_s   seconds of a timed run
        Raises Wrong.
        """
        inputs = _unseen(self.program.graph, self.case, self.group)
        _change(inputs)
        self._feed(inputs)
        self.program.run()
        _change(inputs)
        try:
            fields = self._compared(inputs)
        except Wrong as error:
            raise Wrong(f"after the timed steps, on new inputs: {error}") from None
        if self.program.source == "measured":
            self._require_work(inputs, step_s)
        return fields

    def _feed(self, inputs: Dict[str, Array]) -> None:
        if self.program.training:
            _reset(self.program, self.weights)
        self.program.feed([inputs])

    def _compared(self, inputs: Dict[str, Array]) -> Dict[str, Any]:
        program, graph, case = self.program, self.program.graph, self.case
        if self.before is not None:
            found = _step(program, self.weights, inputs)
            return {"rechecked": "itself", "rechecked_error": _require_same(found, self.before, graph, case)}
        if program.training:
            fields = check.compared(program, graph, case, self.weights, inputs, self.group)
        else:
            self._feed(inputs)
            program.run()
            rows = min(graph.batch_size, graph.batch_size * REFERENCE_FLOPS // max(1, graph.flops))
            fields = check.compared_output(program.outputs(), graph, case, self.weights, inputs, rows)
        return {"rechecked": "reference", "rechecked_error": fields["relative_error"]}

    def _require_work(self, inputs: Dict[str, Array], step_s: float) -> None:
        """Raise Wrong if results are kept, or computed when they are read."""
        fault = ""
        for _ in range(TRIES):
            _change(inputs)
            self._feed(inputs)
            fault = _fault(self.program, step_s)
            # Replicas take the same steps.
            if not all(self.group.all_gather(bool(fault))):
                return
        raise Wrong(fault or "a step of another replica does not do its work")


def prepared(
    program: Program, case: Case, weights: Mapping[str, Array], group: Group, checked: bool
) -> Optional[Recheck]:
    """What checks a program after the clock; None: nothing can be compared, since it draws random numbers in each step
    or has no inputs.

    checked   the program itself was compared with the float64 reference before, not a smaller or simpler one
    """
    graph = program.graph
    if not graph.inputs or DRAWING & graph.operations:
        return None
    if program.training:
        alone = bool(graph.blocks) or not checked or graph.flops > REFERENCE_FLOPS
    else:
        alone = graph.flops > REFERENCE_FLOPS * graph.batch_size
    before = _step(program, weights, _unseen(graph, case, group)) if alone else None
    return Recheck(program, case, weights, group, before)


def _unseen(graph: Graph, case: Case, group: Group) -> Dict[str, Array]:
    return draws.inputs(graph, PRECISIONS[case.precision].compute, UNSEEN + group.rank)


def _change(inputs: Mapping[str, Array]) -> None:
    """Replace the numbers of all arrays, in place. Twice gives the first ones again."""
    for array in inputs.values():
        if array.dtype.kind == "f":
            array[...] = -array
        elif array.dtype == "uint8":
            array[...] = 255 - array
        else:
            array[...] = array[::-1].copy()


def _reset(program: Program, weights: Mapping[str, Array]) -> None:
    program.load(weights)
    program.set_learning_rate(workloads.load(program.case.workload).learning_rate)


def _step(program: Program, weights: Mapping[str, Array], inputs: Dict[str, Array]) -> _Result:
    """The result of a step on these inputs, in training from these weights."""
    import numpy as np

    if program.training:
        _reset(program, weights)
    program.feed([inputs])
    program.run()
    results, squares = program.outputs(), []
    output = results["output"].reshape(-1)[:KEPT_NUMBERS]
    if program.training:
        after = program.weights()
        trained = [weight.name for weight in program.graph.weights if weight.trained]
        squares = [float(((np.asarray(weights[name], "float64") - after[name]) ** 2).sum()) for name in trained]
    return _Result(np.array(output), float(results.get("loss", 0)), math.sqrt(math.fsum(squares)))


def _require_same(now: _Result, before: _Result, graph: Graph, case: Case) -> float:
    """Return the error of the output. Raises Wrong if a step has another result than before the clock."""
    tolerance = check.tolerance_of(graph, case)
    error = check.require_close("output", now.output, before.output, tolerance)
    scale = max(abs(before.loss), float(abs(before.output).mean()))
    check.require_close("loss", now.loss, before.loss, tolerance, scale)
    if not abs(now.update - before.update) <= UPDATE_SHARE * before.update:
        raise Wrong(f"the norm of an update is {now.update:.3g}, and was {before.update:.3g} before them")
    return error


def _fault(program: Program, step_s: float) -> str:
    """What is wrong with one step on new inputs, by its time; empty: nothing."""
    run_s, _ = _timed(program.run)
    first_s, outputs = _timed(program.outputs)
    again_s, _ = _timed(program.outputs)
    # A busy machine slows these down as well.
    known_s = min(_timed(program.run)[0] for _ in range(KNOWN))
    if run_s > KEPT * max(step_s, known_s):
        return (
            f"a step on new inputs takes {1e6 * run_s:.3g} us, and a timed one {1e6 * step_s:.3g}: results of inputs"
            f" that it knows are kept"
        )
    output = outputs["output"]
    row_s, _ = _timed(output[:1].copy)
    late = first_s - again_s > run_s + LATE_S + output.nbytes / TRANSFER_BYTES_PER_S
    if late or again_s > run_s + READ_S + COPIES * row_s * len(output):
        return (
            f"a step takes {1e6 * run_s:.3g} us, and reading its output {1e6 * first_s:.3g}: it is computed when it is"
            f" read"
        )
    return ""


def _timed(call: Any) -> Tuple[float, Any]:
    start = perf_counter()
    result = call()
    return perf_counter() - start, result

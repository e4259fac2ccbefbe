"""After the clock: programs that deceive the check before it, each in one way, in whole runs of a case."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from test_check import Reference

from bench import backends, check, recheck, run, workloads
from bench.backends.numpy import _Reference as Honest
from bench.cases.case import Case, Settings
from bench.cases.errors import Wrong
from bench.cases.recipe import Recipe
from bench.clock import sampling
from bench.graph import draws

# A step of about a millisecond, and one of a few microseconds.
LARGE, SMALL = {"units": 1024}, {"units": 8}


def case_of(size=LARGE, mode="inference", layer="dense", batch_size=32):
    module = workloads.load(layer)
    values = {**next(iter(workloads.named_sizes(module).values())), **size}
    dimensions = {name: values[name] for name in module.dimensions}
    return Case(layer, "some", dimensions, mode, batch_size, "fp32", 1, "fake", "cpu")


@pytest.fixture
def measured(monkeypatch):
    """Return a function that runs a case of the backend `fake`, whose programs are of a class; its record."""

    load = backends.load

    def measured(kind, case=None, pace=None, **settings):
        def compile(graph, weights, inputs, case, settings):
            return kind(graph, weights, case, settings).started(inputs)

        fake = replace(load("numpy"), modes=("inference", "eval", "training"), compile=compile)
        monkeypatch.setattr(backends, "load", lambda name: fake if name == "fake" else load(name))
        chosen = Settings(**{"max_time_s": 0.05, **settings})
        return run.run(case or case_of(), chosen, lambda phase: None, pace=pace)["record"]

    return measured


class KeepsByArray(Honest):
    """Computes once for each input array, whatever is in it later."""

    def __init__(self, *args):
        super().__init__(*args)
        self.known = {}

    def key(self):
        return tuple(map(id, self.arrays.values()))

    def run_resident(self):
        key = self.key()
        if key not in self.known:
            super().run_resident()
            # The arrays stay alive, so that no other gets their address.
            self.known[key] = (self.results, self.arrays)
        self.results = self.known[key][0]


class KeepsByBatch(KeepsByArray):
    """Computes once for each batch that it is fed: its results are right, and timed steps do nothing."""

    def key(self):
        return id(self.arrays)


class Lazy(Honest):
    """Computes when the output is read, once: a timed step does nothing."""

    pending = False

    def run_resident(self):
        self.pending = True
        self.results = {"output": np.zeros(self.graph.output.shape, np.float32)}

    def outputs(self):
        if self.pending:
            super().run_resident()
            self.pending = False
        return super().outputs()


class LazyEachTime(Lazy):
    """The same, each time that the output is read."""

    def outputs(self):
        self.pending = True
        return super().outputs()


class RightTenTimes(Honest):
    """Is right for ten calls, and then off by a hundredth."""

    calls = 0

    def run_resident(self):
        super().run_resident()
        self.calls += 1
        if self.calls > 10:
            self.results = {name: 1.01 * array for name, array in self.results.items()}


class PatchesClock(Honest):
    """Makes the clock of the samples run at half the speed."""

    def __init__(self, *args):
        super().__init__(*args)
        _, *others = sampling.measure.__defaults__
        sampling.measure.__defaults__ = (lambda: sampling.perf_counter() / 2, *others)


class CompilesWhileTimed(Honest):
    """A framework that compiles again every hundred calls."""

    calls = 0

    def run_resident(self):
        super().run_resident()
        self.calls += 1

    def compiles(self):
        return self.calls // 100


DECEIVERS = {
    "kept by array": (KeepsByArray, LARGE, "after the timed steps, on new inputs: output is off by"),
    "kept by array, small": (KeepsByArray, SMALL, "after the timed steps, on new inputs: output is off by"),
    "kept by batch": (KeepsByBatch, LARGE, "a step on new inputs takes .* results of inputs that it knows are kept"),
    "lazy": (Lazy, LARGE, "reading its output .*: it is computed when it is read"),
    "lazy each time": (LazyEachTime, {"units": 4096}, "reading its output .*: it is computed when it is read"),
    "right ten times": (RightTenTimes, SMALL, "after the timed steps, on new inputs: output is off by 0.01"),
}


@pytest.mark.parametrize("name", DECEIVERS)
def test_a_program_that_deceives_the_check_is_wrong_after_the_clock(measured, name):
    kind, size, text = DECEIVERS[name]

    with pytest.raises(Wrong, match=text):
        measured(kind, case_of(size))


def test_a_program_that_patches_the_clock_is_invalid(measured, monkeypatch):
    monkeypatch.setattr(sampling.measure, "__defaults__", sampling.measure.__defaults__)

    record = measured(PatchesClock, max_time_s=0.2)

    assert (record["validity"], record["items_per_s"]) == ("INVALID", None)
    assert any("by a second clock" in reason for reason in record["invalid_reasons"])


def test_a_program_that_compiles_while_it_is_timed_is_invalid(measured):
    record = measured(CompilesWhileTimed, case_of(SMALL))

    assert record["validity"] == "INVALID"
    assert any("while it was timed" in reason for reason in record["invalid_reasons"])


@pytest.mark.parametrize("data", ["synthetic", "generated"])
@pytest.mark.parametrize("mode", ["inference", "eval"])
@pytest.mark.parametrize("layer", ["dense", "lstm"])
def test_an_honest_program_is_compared_with_the_reference_again(measured, layer, mode, data):
    size = {"hidden_size": 8, "timesteps": 3} if layer == "lstm" else SMALL
    if layer == "dense" and mode == "eval":
        mode = "inference"

    record = measured(Honest, case_of(size, mode, layer), data=data)

    assert record["rechecked"] == "reference"
    assert 0 < record["rechecked_error"] < 1e-6
    # Other inputs than those before the clock.
    assert record["rechecked_error"] != record["relative_error"]


def test_a_chain_that_draws_its_numbers_cannot_be_compared(measured):
    record = measured(Honest, case_of({}, layer="hmc"), steps=3)

    assert (record["rechecked"], record["rechecked_error"]) == (None, None)


def test_the_reference_computes_the_first_rows_of_a_large_batch(measured, monkeypatch):
    rows = []
    compared = check.compared_output
    monkeypatch.setattr(recheck, "REFERENCE_FLOPS", 2 * 1024 * 1024 * 5)
    monkeypatch.setattr(check, "compared_output", lambda *args: rows.append(args[-1]) or compared(*args))

    measured(Honest)

    assert rows == [32, 5]


class KeepsNumbers(KeepsByArray):
    """Computes once for each input array. What it keeps are copies, as a device's are."""

    def outputs(self):
        return {name: array.copy() for name, array in super().outputs().items()}


@pytest.mark.parametrize("mode, layer", [("inference", "dense"), ("eval", "lstm")])
def test_a_case_whose_rows_are_too_large_is_compared_with_itself(measured, monkeypatch, mode, layer):
    monkeypatch.setattr(recheck, "REFERENCE_FLOPS", 100)
    case = case_of({"hidden_size": 8, "timesteps": 3} if layer == "lstm" else SMALL, mode, layer)

    record = measured(Honest, case)

    assert (record["rechecked"], record["rechecked_error"]) == ("itself", 0.0)
    for kind in (KeepsNumbers, RightTenTimes):
        with pytest.raises(Wrong, match="after the timed steps, on new inputs: output is off by"):
            measured(kind, case)


# Training: the weights are loaded again, and the update is checked.


class Trains(Reference):
    """The reference in training, which may go wrong after some calls."""

    right_calls = 10**9
    calls = 0

    def __init__(self, graph, weights, case, settings):
        super().__init__(graph, weights, gradient=self.spoilt)

    def spoilt(self, gradient):
        self.calls += 1
        return {name: (0.5 if self.calls > self.right_calls else 1.0) * slope for name, slope in gradient.items()}

    def started(self, inputs):
        return self


class TrainsTenTimes(Trains):
    right_calls = 10


class PredictsTenTimes(Trains):
    """Its updates stay right, and its outputs do not."""

    def outputs(self):
        found = super().outputs()
        return {**found, "output": found["output"] * (1 if self.calls <= 10 else 1.01)}


TINY = case_of({"units": 2}, "training", batch_size=2)


@pytest.mark.parametrize("recipe, how", [(Recipe(), "reference"), (Recipe(optimiser="momentum"), "itself")])
def test_a_training_step_is_checked_again(measured, recipe, how):
    record = measured(Trains, TINY, steps=20, recipe=recipe)

    assert record["rechecked"] == how
    assert record["rechecked_error"] < 1e-6


@pytest.mark.parametrize(
    "kind, recipe, text",
    [
        (TrainsTenTimes, Recipe(), "the update of one training step is off by"),
        (TrainsTenTimes, Recipe(optimiser="momentum"), "the norm of an update is .*, and was .* before them"),
        (PredictsTenTimes, Recipe(), "output is off by 0.01"),
        (PredictsTenTimes, Recipe(optimiser="momentum"), "output is off by 0.01"),
    ],
)
def test_training_that_becomes_wrong_is_found(measured, kind, recipe, text):
    with pytest.raises(Wrong, match=f"after the timed steps, on new inputs: {text}"):
        measured(kind, TINY, steps=20, recipe=recipe)


def test_inputs_change_in_place_and_back():
    graph = workloads.checked(case_of(SMALL, "eval", "lstm"))
    arrays = draws.inputs(graph, "float32")
    arrays["pixels"], arrays["classes"] = np.array([0, 3, 255], np.uint8), np.array([1, 2, 3])
    before = {name: array.copy() for name, array in arrays.items()}

    recheck._change(arrays)
    once = {name: array.copy() for name, array in arrays.items()}
    recheck._change(arrays)

    assert [name for name in before if np.array_equal(once[name], before[name])] == []
    assert [name for name in before if not np.array_equal(arrays[name], before[name])] == []


class Recompiled(Honest):
    """Has been compiled `again` times."""

    again = 0

    def compiles(self):
        return Recompiled.again


@pytest.mark.parametrize("times, reasons", [(0, []), (1, ["it was compiled 1 time while it was timed"])])
def test_a_side_that_is_compiled_again_between_its_turns_is_invalid(measured, times, reasons):
    turns = [5, 5, 0]

    def pace(block):
        Recompiled.again += times if len(turns) == 2 else 0
        return turns.pop(0)

    record = measured(Recompiled, pace=pace)

    assert [reason for reason in record["invalid_reasons"] if "compiled" in reason] == reasons

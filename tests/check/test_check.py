"""The check can fail: programs that are wrong in one way each, made by hand around the reference."""

from __future__ import annotations

import numpy as np
import pytest

from bench import check, workloads
from bench.cases.case import Case, Settings
from bench.cases.errors import Wrong
from bench.graph import Graph, draws
from bench.graph.reference import evaluate
from bench.program import Program

pytestmark = pytest.mark.floor
RIGHT = object()


def case_of(layer="dense", mode="inference", precision="fp32", batch_size=4, **size):
    module = workloads.load(layer)
    dimensions = {**next(iter(workloads.named_sizes(module).values())), **module.tiny, **size}
    return Case(
        layer,
        "tiny",
        {key: dimensions[key] for key in module.dimensions},
        mode,
        batch_size,
        precision,
        1,
        "numpy",
        "cpu",
    )


def gradients(graph, weights, inputs):
    """Central differences of the loss, one weight at a time."""
    found = {}
    for name, array in weights.items():
        found[name] = np.zeros(array.shape)
        for at in np.ndindex(*array.shape):
            ends = []
            for step in (1e-6, -1e-6):
                moved = {key: np.array(value, "float64") for key, value in weights.items()}
                moved[name][at] += step
                ends.append(evaluate(graph, moved, inputs, "float64")[1])
            found[name][at] = float(np.sum(ends[0] - ends[1])) / 2e-6
    return found


class Reference(Program):
    """The reference as a program; `output`, `loss` and `gradient` are functions that spoil it."""

    def __init__(self, graph: Graph, weights, output=RIGHT, loss=RIGHT, gradient=RIGHT, dtypes=("float32", "float32")):
        super().__init__(graph, case_of("dense", "training" if graph.training else "inference"), Settings())
        self.compute_dtype, self.weight_dtype = dtypes
        self.spoil = {"output": output, "loss": loss, "gradient": gradient}
        self.rate = 0.0
        self.load(weights)

    def convert(self, batch):
        return batch

    def keep(self, batches):
        (self.inputs,) = batches

    def run_resident(self):
        self.result, self.terms = evaluate(self.graph, self.values, self.inputs, "float64")
        if self.graph.loss.node >= 0:
            slopes = gradients(self.graph, self.values, self.inputs)
            for name, slope in self._spoilt("gradient", slopes).items():
                self.values[name] = self.values[name] - self.rate * slope

    def outputs(self):
        found = {"output": self._spoilt("output", np.array(self.result))}
        return found if self.terms is None else {**found, "loss": self._spoilt("loss", np.sum(self.terms))}

    def _spoilt(self, what, value):
        spoil = self.spoil[what]
        return value if spoil is RIGHT else spoil(value)

    def weights(self):
        return self.values

    def load(self, weights):
        self.values = {key: np.array(value, "float64") for key, value in weights.items()}

    def set_learning_rate(self, rate):
        self.rate = rate


def checked(case, **spoiled):
    graph = workloads.checked(case)
    weights = draws.weights(graph, "float32")
    return check.require(Reference(graph, weights, **spoiled), graph, case, weights)


def at(index, value):
    """A function that puts `value` into one element."""

    def change(array):
        array = np.array(array)
        array[index] = value
        return array

    return change


@pytest.mark.parametrize("layer", ["dense", "lstm", "hmc"])
def test_a_right_program_passes(layer):
    assert checked(case_of(layer)) == {"checked_rows": 4, "relative_error": 0.0, "tolerance": 5e-5}


@pytest.mark.parametrize("layer", ["dense", "rnn", "gru", "lstm_multi"])
def test_a_right_update_passes(layer):
    small = {"hidden_size": 2, "timesteps": 2} if layer != "dense" else {"units": 4}

    found = checked(case_of(layer, "training", batch_size=2, **small))

    assert 0 <= found["gradient_error"] < 1e-6
    assert found["tolerance"] == 5e-5


WRONG_OUTPUTS = {
    "off by a thousandth": (lambda array: array * 1.001, r"output is off by 0.001 of its norm, 5e-05 is allowed"),
    "as far off as TF32": (lambda array: array * (1 + 3e-4), r"output is off by 0.0003 of its norm"),
    "not a number": (at((0, 0), np.nan), r"output is not finite: 1 of 32 elements"),
    "infinite": (at((3, 7), -np.inf), r"output is not finite: 1 of 32 elements"),
    "a row short": (lambda array: array[:3], r"output has shape \(3, 8\), the graph says \(4, 8\)"),
    "transposed": (lambda array: array.T, r"output has shape \(8, 4\), the graph says \(4, 8\)"),
    "a row long": (lambda array: np.concatenate([array, array[:1]]), r"output has shape \(5, 8\)"),
    "zeros": (lambda array: 0 * array, r"output is off by 1 of its norm"),
    "rows in another order": (lambda array: array[::-1], r"output is off by"),
}


@pytest.mark.parametrize("name", WRONG_OUTPUTS)
def test_a_wrong_output_is_named(name):
    spoil, text = WRONG_OUTPUTS[name]

    with pytest.raises(Wrong, match=text):
        checked(case_of("dense"), output=spoil)


def test_noise_as_large_as_tf32_fails():
    noise = 1 + 3e-4 * np.random.default_rng(0).standard_normal((4, 8))

    with pytest.raises(Wrong, match="of its norm"):
        checked(case_of("dense", activation="none"), output=lambda array: array * noise)


def test_noise_as_small_as_fp32_passes():
    noise = 1 + 3e-6 * np.random.default_rng(0).standard_normal((4, 8))

    assert 1e-6 < checked(case_of("dense"), output=lambda array: array * noise)["relative_error"] < 1e-5


def test_one_wrong_element_in_a_large_output_fails():
    """Its share of the norm would pass: 0.03 of one in the norm of 200,000 elements."""
    case = case_of("dense", batch_size=200, units=1000, activation="none")
    graph = workloads.checked(case)
    weights = draws.weights(graph, "float32")

    def spoil(array):
        rms = float(np.sqrt((array**2).mean()))
        assert 0.02 * rms / np.linalg.norm(array) < 5e-5
        return at((17, 3), array[17, 3] + 0.02 * rms)(array)

    with pytest.raises(Wrong, match=r"output\[17, 3\] is .*, the reference has "):
        check.require(Reference(graph, weights, output=spoil), graph, case, weights)


@pytest.mark.parametrize(
    "precision, dtypes",
    [
        ("fp32", ("bfloat16", "float32")),
        ("fp16", ("float16", "float32")),
        ("fp16m", ("float16", "float16")),
        ("bf16", ("float16", "bfloat16")),
    ],
)
def test_a_program_that_ran_in_another_precision_fails(precision, dtypes):
    with pytest.raises(Wrong, match=f"asked for {precision} .*, ran {dtypes[0]} arithmetic on"):
        checked(case_of("dense", precision=precision), dtypes=dtypes)


@pytest.mark.parametrize("spoil", [lambda loss: loss * 1.001, lambda loss: -loss, lambda loss: loss * np.nan])
def test_a_wrong_loss_is_named(spoil):
    with pytest.raises(Wrong, match="loss is "):
        checked(case_of("lstm", "eval"), loss=spoil)


def test_a_summed_loss_where_a_mean_is_asked_fails():
    with pytest.raises(Wrong, match="loss is off by"):
        checked(case_of("rnn", "eval"), loss=lambda loss: loss * 12)


def scaled(factor):
    return lambda gradient: {name: factor * slope for name, slope in gradient.items()}


def frozen(suffix):
    return lambda gradient: {n: slope * (not n.endswith(suffix)) for n, slope in gradient.items()}


def one_weight_off(gradient):
    name = next(name for name in gradient if name.endswith("weight_ih"))
    return {**gradient, name: at((0, 0), -gradient[name][0, 0])(gradient[name])}


WRONG_UPDATES = {
    "uphill": scaled(-1),
    "half": scaled(0.5),
    "twice": scaled(2),
    "one per cent long": scaled(1.01),
    "frozen": scaled(0),
    "a frozen weight": frozen("weight_hh"),
    "a frozen bias": frozen("bias_ih"),
    "a weight updated twice": lambda gradient: {n: s * (1 + n.endswith("weight_ih")) for n, s in gradient.items()},
    "one element uphill": one_weight_off,
    "clipped": lambda gradient: {n: np.clip(s, -1e-3, 1e-3) for n, s in gradient.items()},
}


@pytest.mark.parametrize("name", WRONG_UPDATES)
def test_a_wrong_update_fails(name):
    case = case_of("lstm", "training", batch_size=2, hidden_size=2, timesteps=2)

    with pytest.raises(Wrong, match=r"update of one training step is off by .* 0.002 is allowed"):
        checked(case, gradient=WRONG_UPDATES[name])


def test_an_update_that_is_not_finite_fails():
    case = case_of("dense", "training", units=2, batch_size=2)

    with pytest.raises(Wrong, match="the updated weights are not finite"):
        checked(case, gradient=scaled(np.nan))


def test_the_check_puts_the_weights_back():
    case = case_of("dense", "training", units=2, batch_size=2)
    graph = workloads.checked(case)
    weights = draws.weights(graph, "float32")
    program = Reference(graph, weights)

    check.require(program, graph, case, weights)

    assert all(np.array_equal(array, weights[name]) for name, array in program.weights().items())


def test_a_large_batch_is_checked_on_its_first_rows_where_a_wrong_one_is_found(monkeypatch):
    case = case_of("dense", activation="none")
    monkeypatch.setattr(check, "REFERENCE_FLOPS", workloads.checked(case).flops // 2)

    assert checked(case)["checked_rows"] == 2
    with pytest.raises(Wrong, match="output is off by"):
        checked(case, output=at((1, 0), 9.0))


@pytest.mark.parametrize("expected", [np.nan, np.inf])
def test_a_reference_that_is_not_finite_proves_nothing(expected):
    with pytest.raises(Wrong, match="reference"):
        check.require_close("output", np.zeros(3), np.array([1.0, expected, 2.0]), 5e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_the_timed_steps_leave_must_be_finite(value):
    graph = workloads.checked(case_of("dense"))
    program = Reference(graph, draws.weights(graph, "float32"), output=at((0, 0), value))
    program.feed([draws.inputs(graph, "float32")])
    program.run()

    with pytest.raises(Wrong, match="output is not finite after the timed steps"):
        check.require_finite(program)


# Ill-conditioned cases: what one rounding of every result moves is allowed for, up to a limit.


def cancelling(size):
    """A graph that adds a large number and takes it off again, so that the digits behind it are lost."""
    net = Graph(4)
    x = net.input(64)
    net.output = net.affine(net.affine(x, 1.0, size), 1.0, -size)
    return net


def off_by(size, relative_error, precision="fp32"):
    """What the check says of a program of `cancelling(size)` in float64 that is off by so much."""
    graph = cancelling(size)
    case = Case("tiny", "tiny", {}, "inference", 4, precision, 1, "numpy", "cpu")
    dtype = {"fp32": "float32", "fp16": "float16"}[precision]
    program = Reference(graph, {}, output=lambda array: array * (1 + relative_error), dtypes=(dtype, dtype))
    return check.require(program, graph, case, {})


def test_an_ill_conditioned_case_may_be_off_by_four_roundings():
    """A float32 near 512 to 1024 is a multiple of 2^-14 (2^-15 below): a rounding is off by about 2^-15 / sqrt(3), of
    inputs with a root mean square of 1 / sqrt(3): 3.05e-5, and four of them 1.2e-4; 5e-5 is the plain tolerance."""
    found = off_by(800.0, 1e-4)

    assert found["tolerance"] == pytest.approx(4 * 2**-15, rel=0.3)
    assert found["relative_error"] == pytest.approx(1e-4)


def test_what_is_off_by_more_than_the_roundings_is_wrong():
    with pytest.raises(Wrong, match=r"output is off by 0\.00018 of its norm, 0\.0001\d* is allowed"):
        off_by(800.0, 1.8e-4)


def test_a_well_conditioned_case_keeps_its_tolerance():
    assert off_by(1.0, 4.9e-5)["tolerance"] == 5e-5
    with pytest.raises(Wrong, match=r"output is off by 5\.1e-05 of its norm, 5e-05 is allowed"):
        off_by(1.0, 5.1e-5)


@pytest.mark.parametrize("precision, size, error", [("fp32", 1e4, 6e-5), ("fp16", 1e4, 0.02), ("fp16", 1e9, 0.02)])
def test_what_rounding_moves_too_far_cannot_be_checked(precision, size, error):
    with pytest.raises(Wrong, match=f"cannot be checked in {precision}: one rounding of each result moves"):
        off_by(size, error, precision)

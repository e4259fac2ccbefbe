"""Every backend on every layer, in every mode and precision, held against the reference."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import backend_matrix
import numpy as np
import pytest

from bench import backends, workloads
from bench.backends._onnx import model, primitives
from bench.cases.precision import PRECISIONS
from bench.graph import draws

ROOT = Path(__file__).resolve().parents[2]
# What PopART 3.4 reads of opset 11.
OPERATORS = set(
    "Abs Add And ArgMax AveragePool BatchNormalization Cast Concat Conv Div Erf Exp Expand Flatten GRU Gather Gemm"
    " GlobalAveragePool Greater Identity LSTM Less Log LogSoftmax Loop MatMul Max MaxPool Mul Neg OneHot Pad Pow RNN"
    " RandomNormal RandomUniform Reciprocal ReduceMean ReduceSum Relu Reshape Scan Sigmoid Slice Softmax Split Sqrt"
    " Squeeze Sub Sum Tanh Transpose Unsqueeze Where".split()
)
# Those of IPUs have tests of their own, on fakes.
ENGINES = [engine for engine in backends.names() if "cpu" in backends.load(engine).devices]
KEYS = [(engine, key) for engine in ENGINES for key in backend_matrix.keys(engine)]
IDS = [f"{engine}-{backend_matrix.name(key)}" for engine, key in KEYS]
QUICK = {(engine, key) for engine in ENGINES for key in backend_matrix.keys(engine, thorough=False)}


def chosen(wanted):
    """The cases for which `wanted(key)` holds, as parameters."""
    found = [
        pytest.param(*pair, id=name, marks=() if pair in QUICK else pytest.mark.thorough)
        for pair, name in zip(KEYS, IDS)
        if wanted(pair[1])
    ]
    return pytest.mark.parametrize("engine, key", found)


@pytest.fixture
def seen(matrix, engine, key):
    """What was seen of one case; skips where it cannot run here, and fails where it is wrong."""
    found = matrix(engine, "layers")[backend_matrix.name(key)]
    if found["outcome"] == "skipped" or (found["outcome"] == "unavailable" and key[3] != "fp32"):
        pytest.skip(found["text"])
    assert found["outcome"] == "passed", found["text"]
    return found


@pytest.mark.parametrize("keys", [QUICK, KEYS], ids=["quick", "thorough"])
def test_every_backend_runs_every_layer_in_fp32(keys):
    assert {(engine, key[0]) for engine, key in keys if key[2:4] == ("inference", "fp32")} == {
        (engine, layer) for engine in ENGINES for layer in workloads.names("layers")
    }


@pytest.mark.parametrize("keys", [QUICK, KEYS], ids=["quick", "thorough"])
def test_every_layer_with_a_loss_is_trained_somewhere(keys):
    assert {key[0] for _, key in keys if key[2] == "training"} == {
        layer for layer in workloads.names("layers") if workloads.load(layer).loss
    }


def test_the_quick_cases_have_every_pair_that_interacts():
    """A layer with a precision, a variant with a mode of work, and a precision with a mode and with a tuning."""

    def pairs(keys):
        for engine, (layer, variant, mode, precision, _, tuning) in keys:
            yield engine, layer, precision
            yield engine, precision, mode, tuning
            if mode != "eval" and tuning == "default":
                yield engine, layer, variant, mode, "fp32" if variant != "plain" else ""

    assert set(pairs(KEYS)) - set(pairs(QUICK)) == set()


@chosen(lambda key: True)
def test_a_backend_computes_what_the_reference_does(seen, engine, key):
    assert 0 <= seen["check"]["relative_error"] <= PRECISIONS[key[3]].tolerance
    assert seen["check"]["checked_rows"] == backend_matrix.BATCH
    assert seen["has_loss"] == (key[2] != "inference")


@chosen(lambda key: True)
def test_a_precision_is_what_ran(seen, engine, key):
    precision = PRECISIONS[key[3]]

    assert (seen["compute"], seen["held"]) == (precision.compute, precision.weights)
    if precision.compute == "float32":
        assert seen["fits"] == {"float16": False, "bfloat16": False}
    elif engine != "openvino":  # whose last layer returns its fp32 sums
        assert seen["fits"][precision.compute]


@chosen(lambda key: key[3] != "fp32" and key[5] == "best")
def test_sixteen_bits_never_go_through_xla(seen, engine, key):
    """XLA on the CPU computes 16-bit products in fp32, between casts: the types of its results hide it."""
    assert not seen["facts"].get("xla", False)


@chosen(lambda key: key[2:4] == ("inference", "fp32"))
def test_zeros_give_what_the_weights_alone_make(seen, engine, key):
    assert seen["zero_error"] <= 4 * PRECISIONS[key[3]].tolerance


@chosen(lambda key: key[2] == "training")
def test_training_moves_the_weights_by_the_gradient_and_can_be_reset(seen, engine, key):
    assert 0 < seen["check"]["gradient_error"] <= PRECISIONS[key[3]].gradient_tolerance
    assert seen["loaded"]


@chosen(lambda key: key[2] == "training")
def test_a_learning_rate_of_zero_moves_nothing(seen, engine, key):
    assert seen["still"]


@chosen(lambda key: key[4] == "generated")
def test_generated_data_takes_one_host_batch_after_the_other(seen, engine, key):
    first = seen["batches"][0]

    assert seen["batches"] == [(first + i) % 3 for i in range(6)]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_timed_chain_draws_new_numbers_in_every_step(matrix, engine):
    traces = matrix(engine, "layers")["draws"]

    assert len({tuple(trace) for trace in traces}) == 3
    # Chains side by side have draws of their own.
    assert len({tuple(chain) for chain in np.reshape(traces[0], (backend_matrix.BATCH, -1))}) == backend_matrix.BATCH


# By name: the mean and the variance of a number, and the variance of its squared distance from the mean. The product of
# two independent normal numbers has E x^2 = 1 and E x^4 = 9, that of a normal and a unit number 1/3 and 3/5.
MOMENTS = {
    "normal": (0, 1, 2),
    "unit": (1 / 2, 1 / 12, 1 / 180),
    "two normals": (0, 1, 8),
    "a normal and a unit": (0, 1 / 3, 22 / 45),
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", MOMENTS)
def test_a_backend_draws_independent_numbers_of_the_distribution_that_was_asked_for(matrix, engine, name):
    """Within six standard errors of 64,000 numbers."""
    found, (mean, variance, spread) = matrix(engine, "layers")["numbers"][name], MOMENTS[name]
    count = 2 * backend_matrix.CHAINS * backend_matrix.STEPS

    assert found["mean"] == pytest.approx(mean, abs=6 * (variance / count) ** 0.5)
    assert found["variance"] == pytest.approx(variance, abs=6 * (spread / count) ** 0.5)
    for neighbour in ("run", "chain", "step"):
        assert abs(found[neighbour]) < 6 / (count / 2) ** 0.5


@pytest.fixture(scope="session")
def models(matrix):
    return matrix("models", "models")


def test_every_model_is_opset_11_and_ir_6_with_static_shapes(models):
    assert models
    assert {name for name, facts in models.items() if facts["opsets"] != [["", 11]]} == set()
    assert {name for name, facts in models.items() if facts["ir"] != 6 or not facts["static"]} == set()


def test_every_model_keeps_to_the_operators_that_popart_reads(models):
    used = {operator for facts in models.values() for operator in facts["operators"]}

    assert used - OPERATORS == set()


@pytest.mark.parametrize("kind, ours, onnx", [("rnn", "h", "h"), ("lstm", "ifgo", "iofg"), ("gru", "rzn", "zrn")])
def test_gates_go_into_onnx_order(kind, ours, onnx):
    rows = np.repeat(list(ours), 2)[:, None]

    assert "".join(primitives.regate(rows, kind)[::2, 0]) == onnx


@pytest.mark.parametrize("shape", [(2,), (2, 3), (2, 3, 4), (2, 3, 4, 5)])
def test_an_array_comes_back_from_onnx_as_it_went(shape):
    array = np.arange(float(np.prod(shape))).reshape(shape)

    native = model.native(array, np.float32)

    assert native.dtype == np.float32
    assert native.flags["C_CONTIGUOUS"]
    np.testing.assert_array_equal(model.canonical(native), array)


@pytest.mark.parametrize("layer", workloads.names("layers"))
def test_weights_and_inputs_are_the_same_wherever_they_are_drawn(layer):
    graph = workloads.record(
        workloads.load(layer), backend_matrix.case_of("numpy", (layer, *5 * [""])).dimensions, 4, "inference", True
    )

    for draw in (draws.weights, draws.inputs):
        once, again = draw(graph, "float32"), draw(graph, "float32")
        assert [name for name in once if not np.array_equal(once[name], again[name])] == []
        assert all(np.abs(array).max() > 0 for array in once.values())


@pytest.mark.parametrize(
    "dtype, value, expected",
    [
        ("float32", 1 + 2**-20, 1 + 2**-20),
        # bf16 has seven bits after the point: a half goes to the even neighbour, more than a half up.
        ("bfloat16", 1 + 2**-8, 1),
        ("bfloat16", 1 + 3 * 2**-8, 1 + 2**-6),
        ("bfloat16", -1 - 2**-8 - 2**-16, -1 - 2**-7),
        ("bfloat16", 1 + 2**-9, 1),
        # fp16 has ten.
        ("float16", 1 + 2**-11, 1),
        ("float16", 1 + 3 * 2**-11, 1 + 2**-9),
    ],
)
def test_values_are_rounded_to_the_nearest_that_a_precision_holds(dtype, value, expected):
    rounded = draws.rounded(np.array([value]), dtype)

    assert rounded.dtype == np.float32
    assert rounded.tolist() == [expected]


def test_integers_are_not_rounded():
    labels = np.array([0, 257])

    assert draws.rounded(labels, "bfloat16").tolist() == [0, 257]
    assert draws.rounded(labels, "bfloat16").dtype == labels.dtype


def test_naming_a_backend_loads_no_framework():
    packages = {backends.load(engine).package for engine in backends.names()}
    code = f"""
        import sys
        from bench import backends
        for engine in {backends.names()!r}:
            backends.load(engine)
            print(engine, *{packages!r} & {{*sys.modules}})
        """

    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    )

    assert done.stdout.splitlines() == list(backends.names())

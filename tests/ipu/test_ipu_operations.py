"""An option reaches the operations that are timed, or the record says that it is without effect.

The fakes give each operation the options that its lowering in SDK 3.4 reads; `tests/fakes/*_lowering.py` name the
sources.
"""

from __future__ import annotations

import pytest
from contract_answers import arguments, ask
from contract_sdks import KINDS, SDKS, SESSIONS

from bench.cases.poplar import DEFAULT_POPLAR, Poplar

# What an operation has if an option reached it.
ARRIVED = {
    "--half-partial": {"partialsType": "half"},
    "--partials-type-matmul": {"partialsType": "half"},
    "--partials-type-conv": {"partialsType": "half"},
    "--available-memory-proportion": {"availableMemoryProportion": 0.3},
    "--conv-dithering": {"enableConvDithering": "true"},
    "--stable-norm": {"stable": True},
}
# What a session has if an option reached it.
SESSION = {
    "--variable-offloading": ("state", {"offChip": True}),
    "--replicated-tensor-sharding": ("state", {"sharded": True}),
    "--stochastic-rounding": ("rounding", {"stochastic": True}),
    "--prefetch": ("stream", {"prefetch": False}),
}


def given(name, option):
    """Whether a program of SESSIONS has an option."""
    field = option[2:].replace("-", "_")
    return getattr(Poplar(**SESSIONS[name]["poplar"]), field) != getattr(DEFAULT_POPLAR, field)


KINDS_OF_PRODUCTS = {"matmul", "lstm", "gru", "rnn", "popnnlstm", "popnngru"}
LOWERED = {"poptorch": "poptorch_core.lowered", "popart": "lowered", "tensorflow_ipu": "tensorflow.lowered"}


def answer(backend, kind, option):
    program = "partials" if option.startswith("--partials-type") else "others"
    return ask(backend, "operations", f"{kind}: {program}")


def operations(backend, found):
    """The options of every operation, with its kind."""
    for lowered in arguments(found, LOWERED[backend]):
        for kind, each in lowered.items():
            yield from ((kind, options) for options in each)


def number(value):
    return round(float(value), 6) if str(value).replace(".", "").isdigit() else value


def reached(backend, found, option):
    """The kinds of operations that an option reached."""
    wanted = ARRIVED[option]
    products = {"--partials-type-matmul": {"conv"}, "--partials-type-conv": KINDS_OF_PRODUCTS}.get(option, set())
    return {
        kind
        for kind, options in operations(backend, found)
        if kind not in products and all(number(options.get(key)) == value for key, value in wanted.items())
    }


@pytest.mark.parametrize("backend", SDKS)
@pytest.mark.parametrize("option", ARRIVED)
@pytest.mark.parametrize("kind", KINDS)
def test_an_option_reaches_an_operation_or_is_recorded_as_without_effect(backend, option, kind):
    found = answer(backend, kind, option)
    without_effect = found["said"]["facts"].get("without_effect", "").split(", ")

    assert bool(reached(backend, found, option)) != (option in without_effect)


@pytest.mark.parametrize("backend", SDKS)
@pytest.mark.parametrize(
    "name, option", [(name, option) for name in SESSIONS for option in SESSION if given(name, option)]
)
def test_an_option_of_the_session_reaches_what_it_is_about_or_is_without_effect(backend, name, option):
    found, (kind, wanted) = ask(backend, "sessions", name), SESSION[option]
    without_effect = found["said"]["facts"].get("without_effect", "").split(", ")
    arrived = any(one == kind and wanted.items() <= options.items() for one, options in operations(backend, found))

    assert arrived != (option in without_effect)


@pytest.mark.parametrize("backend", SDKS)
@pytest.mark.parametrize("kind", KINDS)
def test_partial_sums_are_recorded_only_if_an_operation_has_them(backend, kind):
    found = answer(backend, kind, "--half-partial")
    halves = reached(backend, found, "--half-partial")
    facts = found["said"]["facts"]

    assert (facts.get("partials_conv") == "half") == ("conv" in halves)
    assert (facts.get("partials_matmul") == "half") == bool(halves - {"conv"})


@pytest.mark.parametrize("backend", SDKS)
@pytest.mark.parametrize("option", ["--half-partial", "--available-memory-proportion"])
def test_all_frameworks_give_a_fused_lstm_the_same_settings(backend, option):
    found = answer(backend, "fused lstm in 16 bits", option)

    assert len(reached(backend, found, option)) == 1


@pytest.mark.parametrize("workload", ["lstm", "gru"])
def test_a_fused_layer_of_tensorflow_is_no_training_pass_in_inference(workload):
    """Without a bool, the layer takes Keras's learning phase, which is a number, for training."""
    found = answer("tensorflow_ipu", f"fused {workload}", "--half-partial")
    passes = [
        options["training"] for kind, options in operations("tensorflow_ipu", found) if kind == f"popnn{workload}"
    ]

    assert passes
    assert set(passes) == {False}


def test_a_chain_without_inputs_has_no_latency_and_does_not_fail():
    """PopTorch's getLatency fails for a model without inputs."""
    told = ask("poptorch", "programs", "a chain that draws, generated")["said"]["told"]

    assert "sdk_latency_s" not in told


@pytest.mark.parametrize("kind", ["fused rnn", "fused gru", "fused lstm", "gru cell"])
def test_a_record_of_poptorch_says_which_layers_are_unrolled_over_time(kind):
    """Only `lstm.input` is registered: PyTorch takes other layers apart before PopTorch sees them."""
    facts = {backend: answer(backend, kind, "--half-partial")["said"]["facts"] for backend in SDKS}

    assert facts["poptorch"].get("recurrence") == (None if kind == "fused lstm" else "unrolled")
    assert "recurrence" not in facts["popart"]
    assert "recurrence" not in facts["tensorflow_ipu"]


@pytest.mark.parametrize("backend", SDKS)
def test_group_norms_are_the_sdk_s_own_operation(backend):
    """It has strided groups if the session or the layer says so; no elementary operation makes them."""
    grouped, fast = (
        dict(operations(backend, answer(backend, f"network with {kind}group norms", "--stable-norm")))["norm"]
        for kind in ("", "fast ")
    )

    assert grouped == {"stable": True, "strided": False}
    assert fast == {"stable": True, "strided": True}

"""The optimisers' formulas against torch.optim, and against updates worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from optimiser_oracles import KINDS, step

# The rate falls on the way: where it stands in a formula with momentum shows.
RATES = [0.1, 0.1, 0.1, 0.05, 0.05, 0.2, 0.02, 0.02, 0.01, 0.3]
FIRST = np.array([[0.5, -1.0, 2.0], [0.25, 0.0, -3.0]])


def gradients():
    return np.random.default_rng(0).standard_normal((len(RATES), *FIRST.shape))


def updated(kind, **settings):
    """The weights after each of ten updates."""
    weights, state, found = FIRST, {}, []
    for gradient, rate in zip(gradients(), RATES):
        weights, state = step(kind, weights, gradient, state, rate, **settings)
        found.append(weights)
    return found


def updated_by_torch(name, **settings):
    torch = pytest.importorskip("torch")
    weights = torch.nn.Parameter(torch.tensor(FIRST))
    optimiser = getattr(torch.optim, name)([weights], lr=RATES[0], **settings)
    found = []
    for gradient, rate in zip(gradients(), RATES):
        weights.grad = torch.from_numpy(gradient)
        optimiser.param_groups[0]["lr"] = rate
        optimiser.step()
        found.append(weights.detach().numpy().copy())
    return found


@pytest.mark.parametrize(
    "kind, settings, name, torch_settings",
    [
        ("sgd", {}, "SGD", {}),
        ("sgd", {"decay": 0.1}, "SGD", {"weight_decay": 0.1}),
        ("momentum", {}, "SGD", {"momentum": 0.9}),
        ("momentum", {"momentum": 0.8, "decay": 0.1}, "SGD", {"momentum": 0.8, "weight_decay": 0.1}),
        ("momentum", {"nesterov": True}, "SGD", {"momentum": 0.9, "nesterov": True}),
        ("rmsprop", {}, "RMSprop", {}),
        ("rmsprop", {"epsilon": 0.1, "decay": 0.1}, "RMSprop", {"eps": 0.1, "weight_decay": 0.1}),
        ("rmsprop", {"smoothing": 0.9, "momentum": 0.9}, "RMSprop", {"alpha": 0.9, "momentum": 0.9}),
        ("adam", {}, "Adam", {}),
        ("adam", {"first": 0.8, "second": 0.9, "epsilon": 0.1}, "Adam", {"betas": (0.8, 0.9), "eps": 0.1}),
        ("adam", {"decay": 0.1}, "Adam", {"weight_decay": 0.1}),
        ("adamw", {"decay": 0.1}, "AdamW", {"weight_decay": 0.1}),
        ("adamw", {"decay": 0.01, "second": 0.9}, "AdamW", {"betas": (0.9, 0.9)}),
    ],
)
def test_ten_updates_are_those_of_torch(kind, settings, name, torch_settings):
    expected = updated_by_torch(name, **torch_settings)

    np.testing.assert_allclose(updated(kind, **settings), expected, rtol=1e-6, atol=1e-12)


def test_two_updates_of_rmsprop_in_tensorflow():
    """smoothing 1/2, epsilon 1/4, momentum 1/2.

    g = 2, rate 0.3  s = (1 + 4) / 2 = 2.5         v = 0.6 / sqrt(2.75)                w = 1 - v
    g = 1, rate 0.2  s = (2.5 + 1) / 2 = 1.75      v = v / 2 + 0.2 / sqrt(2)           w = w - v
    0.6 / 1.658312395 = 0.361813613; 0.180906807 + 0.141421356 = 0.322328163
    """
    settings = {"smoothing": 0.5, "epsilon": 0.25, "momentum": 0.5}

    once, state = step("rmsprop_tf", [1.0], [2.0], {}, 0.3, **settings)
    twice, state = step("rmsprop_tf", once, [1.0], state, 0.2, **settings)

    assert once == pytest.approx([0.638186387], rel=1e-8)
    assert twice == pytest.approx([0.315858224], rel=1e-8)
    assert state["square"] == pytest.approx([1.75])


def test_two_updates_of_lars():
    """coefficient 0.1, momentum 1/2, decay 1/2, both at rate 2.

    w = (3, 4), g = (0, 2.5)  trust = 0.1 x 5 / (2.5 + 2.5) = 0.1   v = 0.2 x (1.5, 4.5) = (0.3, 0.9)
    w = (2.7, 3.1), g = (0, 0)  trust = 1   v = (0.15, 0.45) + 2 x (1.35, 1.55) = (2.85, 3.55)   w = (-0.15, -0.45)
    """
    settings = {"coefficient": 0.1, "momentum": 0.5, "decay": 0.5}

    once, state = step("lars", [3.0, 4.0], [0.0, 2.5], {}, 2.0, **settings)
    twice, state = step("lars", once, [0.0, 0.0], state, 2.0, **settings)

    assert once == pytest.approx([2.7, 3.1])
    assert twice == pytest.approx([-0.15, -0.45])
    assert state["velocity"] == pytest.approx([2.85, 3.55])


def test_lars_scales_each_update_by_the_norms_and_keeps_it_in_the_momentum():
    """No decay. trust = 0.001 x 5 / 10 = 0.0005, v = 0.0005 x (6, 8) = (0.003, 0.004), w = 0.999 x (3, 4).

    Then g = (0, 1) and |w| = 4.995: v = 0.9 x (0.003, 0.004) + (0, 0.004995) = (0.0027, 0.008595) at rate 1.
    """
    once, state = step("lars", [3.0, 4.0], [6.0, 8.0], {}, 1.0)
    twice, state = step("lars", once, [0.0, 1.0], state, 1.0)

    assert once == pytest.approx([2.997, 3.996], rel=1e-12)
    assert twice == pytest.approx([2.9943, 3.987405], rel=1e-12)


def test_lars_moves_weights_that_are_zero_by_the_plain_rate():
    assert step("lars", [0.0, 0.0], [3.0, 4.0], {}, 0.1)[0] == pytest.approx([-0.3, -0.4])


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_given_to_an_update_stays_as_it_was(kind):
    weights, gradient = FIRST.copy(), gradients()[0]
    _, state = step(kind, weights, gradient, {}, 0.1)
    before = {name: np.copy(value) for name, value in state.items()}

    step(kind, weights, gradient, state, 0.1)

    np.testing.assert_array_equal(weights, FIRST)
    np.testing.assert_array_equal(gradient, gradients()[0])
    assert {name: np.asarray(value).tolist() for name, value in state.items()} == {
        name: value.tolist() for name, value in before.items()
    }

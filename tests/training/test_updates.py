"""What the weights become, by the backends' own programs.

Ten updates of every optimiser are compared with the formulas in float64. The gradient of each update is the backend's
own as well, found by a plain step from the same weights: what is compared is the optimiser alone. Several batches an
update, and blocks that run again, are compared with plain updates.
"""

from __future__ import annotations

import numpy as np
import pytest
from optimiser_oracles import step
from training_answers import ENGINES, asked

from bench.cases.recipe import LARS_TRUST, OPTIMISERS, Recipe

# A rate that changes shows where it stands in a formula with momentum.
RATES = [1, 1, 1, 0.5, 0.5, 2, 0.2, 0.2, 0.1, 3]
WORKLOADS = {
    "dense": {"dimensions": {}, "batch_size": 4},
    "resnet8": {"dimensions": {"image_size": 16, "norm_type": "none"}, "batch_size": 2},
}
# A recipe, and the unit of the rates at which its updates are seen and do not run away.
RECIPES = {
    "sgd": ({}, 1e-2),
    "sgd-decay": ({"optimiser": "sgd", "weight_decay": 0.1}, 1e-2),
    "momentum": ({"optimiser": "momentum"}, 1e-3),
    "momentum-decay-scaled": ({"optimiser": "momentum", "weight_decay": 0.1, "loss_scaling": 128.0}, 1e-3),
    "momentum-scaled": ({"optimiser": "momentum", "momentum": 0.8, "loss_scaling": 128.0}, 1e-3),
    "rmsprop": ({"optimiser": "rmsprop", "weight_decay": 0.1, "optimiser_epsilon": 0.1}, 1e-3),
    "rmsprop_tf": ({"optimiser": "rmsprop_tf", "weight_decay": 0.1}, 1e-3),
    "adam": ({"optimiser": "adam", "weight_decay": 0.1, "optimiser_epsilon": 1e-3}, 1e-3),
    "adamw": ({"optimiser": "adamw", "weight_decay": 0.1, "optimiser_epsilon": 1e-3}, 1e-3),
    "lars": ({"optimiser": "lars", "weight_decay": 0.1}, 1.0),
}
UPDATES = {
    f"{workload}-{name}": {
        "kind": "updates",
        "workload": workload,
        **WORKLOADS[workload],
        "recipe": recipe,
        "rates": [unit * rate for rate in RATES],
    }
    for workload in WORKLOADS
    for name, (recipe, unit) in RECIPES.items()
}
# Without norms rows are independent, so that batches may be joined.
PLAIN = {"workload": "resnet8", "dimensions": {"image_size": 16, "norm_type": "none"}}
BATCH_NORM = {"workload": "resnet8", "dimensions": {"image_size": 16, "norm_type": "batch"}}
FEW_RATES = [0.01, 0.02, 0.01]
RECOMPUTATIONS = {
    "none": {"recompute": "none"},
    "auto": {"recompute": "auto"},
    "manual": {"recompute": "manual", "recompute_layers": "layer2"},
    "both": {"recompute": "auto", "gradient_accumulation": 2},
}
RECOMPUTED = {"plain": PLAIN, "batch_norm": BATCH_NORM}
JOBS = {
    **UPDATES,
    **{
        f"accumulation-{count}": {
            "kind": "accumulation",
            **PLAIN,
            "batch_size": 2,
            "recipe": {"gradient_accumulation": count},
            "rates": FEW_RATES,
        }
        for count in (2, 3)
    },
    **{
        name: {"kind": "recompute", **job, "batch_size": 2, "recipes": RECOMPUTATIONS, "rates": FEW_RATES}
        for name, job in RECOMPUTED.items()
    },
}


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """Return a function from a backend to its answers; a process each, once."""
    known = {}

    def answer(engine):
        if engine not in known:
            known[engine] = asked(engine, JOBS, tmp_path_factory.mktemp(engine) / "answers")
        return known[engine]

    return answer


def settings_of(recipe):
    """What the oracle of a recipe's optimiser is given."""
    return {
        "sgd": {},
        "momentum": {"momentum": recipe.momentum},
        "rmsprop": {"smoothing": recipe.rmsprop_decay, "epsilon": recipe.epsilon, "momentum": recipe.momentum},
        "rmsprop_tf": {"smoothing": recipe.rmsprop_decay, "epsilon": recipe.epsilon, "momentum": recipe.momentum},
        "adam": {"epsilon": recipe.epsilon},
        "adamw": {"epsilon": recipe.epsilon},
        "lars": {"coefficient": LARS_TRUST, "momentum": recipe.momentum, "epsilon": recipe.epsilon},
    }[recipe.optimiser]


def expected(job, name, start, gradients):
    """The weights `name` after each update, by the formulas. Only what has several dimensions decays.

    A program has run once when it is handed out, at rate 0: loading weights makes it forget that.
    """
    recipe = Recipe(**job["recipe"])
    settings, kind = settings_of(recipe), recipe.optimiser
    matrix = start.ndim > 1
    weights, state, found = start, {}, []
    for rate, gradient in zip(job["rates"], gradients):
        if kind == "lars" and not matrix:
            # Biases take the plain rate, which the oracle gives to weights of zero.
            moved, state = step(kind, np.zeros_like(start), gradient[name], state, rate, **settings)
            weights = weights + moved
        else:
            decay = recipe.weight_decay if matrix else 0.0
            weights, state = step(kind, weights, gradient[name], state, rate, decay=decay, **settings)
        found.append(weights)
    return found


def test_every_optimiser_of_a_recipe_is_tried():
    assert {Recipe(**recipe).optimiser for recipe, _ in RECIPES.values()} == set(OPTIMISERS)


@pytest.mark.parametrize("key", UPDATES)
@pytest.mark.parametrize("engine", ENGINES)
def test_ten_updates_are_those_of_the_formulas(answers, engine, key):
    seen = answers(engine)[key]

    for name, start in seen["weights"][0].items():
        wanted = expected(UPDATES[key], name, start, seen["gradients"])
        for done, (got, want) in enumerate(zip(seen["weights"][1:], wanted), start=1):
            # Each update rounds the weights to fp32 once.
            allowed = 1e-5 * np.linalg.norm(want - start) + done * 2.0**-24 * np.linalg.norm(want)
            assert np.linalg.norm(got[name] - want) <= allowed, (name, done)


@pytest.mark.parametrize("key", UPDATES)
@pytest.mark.parametrize("engine", ENGINES)
def test_every_weight_moves(answers, engine, key):
    weights = answers(engine)[key]["weights"]

    assert [name for name in weights[0] if np.array_equal(weights[0][name], weights[-1][name])] == []
    assert all(np.isfinite(array).all() for array in weights[-1].values())


def apart(one, other):
    """How far two sets of weights are apart, the worst of them, in norms of the weight."""
    return max(np.linalg.norm(one[name] - other[name]) / np.linalg.norm(other[name]) for name in one)


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("engine", ENGINES)
def test_batches_of_an_update_are_one_batch_that_holds_them_all(answers, engine, count):
    seen = answers(engine)[f"accumulation-{count}"]

    assert apart(seen["many"], seen["one"]) <= 1e-5
    assert apart(seen["before"], seen["one"]) > 1e-3


@pytest.mark.parametrize("recipe", ["auto", "manual"])
@pytest.mark.parametrize("job", RECOMPUTED)
@pytest.mark.parametrize("engine", ENGINES)
def test_blocks_that_run_again_change_nothing(answers, engine, job, recipe):
    """Running statistics among the weights: they would move twice."""
    seen = answers(engine)[job]

    assert apart(seen[recipe], seen["none"]) <= 1e-5


@pytest.mark.parametrize("engine", ENGINES)
def test_blocks_run_again_for_every_batch_of_an_update(answers, engine):
    """Two equal batches: the average of their gradients is that of one."""
    seen = answers(engine)["plain"]

    assert apart(seen["both"], seen["none"]) <= 1e-5

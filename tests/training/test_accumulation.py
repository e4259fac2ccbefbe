"""Several batches an update, and blocks that run again: what the weights become is the same."""

from __future__ import annotations

import numpy as np
import pytest
from training_answers import ENGINES, asked

# Without norms rows are independent, so that batches may be joined.
PLAIN = {"workload": "resnet8", "dimensions": {"image_size": 16, "norm_type": "none"}}
BATCH_NORM = {"workload": "resnet8", "dimensions": {"image_size": 16, "norm_type": "batch"}}
RATES = [0.01, 0.02, 0.01]
RECIPES = {
    "none": {"recompute": "none"},
    "auto": {"recompute": "auto"},
    "manual": {"recompute": "manual", "recompute_layers": "layer2"},
    "both": {"recompute": "auto", "gradient_accumulation": 2},
}
RECOMPUTED = {"plain": PLAIN, "batch_norm": BATCH_NORM}
JOBS = {
    **{
        f"accumulation-{count}": {
            "kind": "accumulation",
            **PLAIN,
            "batch_size": 2,
            "recipe": {"gradient_accumulation": count},
            "rates": RATES,
        }
        for count in (2, 3)
    },
    **{
        name: {"kind": "recompute", **job, "batch_size": 2, "recipes": RECIPES, "rates": RATES}
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

"""What a user gets first: every layer at its first size, in both modes."""

from __future__ import annotations

from typing import Any, Dict, Sequence

import pytest
from suite import Suite

from bench import workloads

# Those whose first size takes long on a CPU.
LARGE = ("conv", "grouped_conv", "hmc", "lstm_multi")


@pytest.mark.parametrize("left_out", [LARGE, pytest.param((), marks=pytest.mark.thorough)], ids=["small", "all"])
def test_every_layer_is_right_at_its_first_size_and_trains_where_it_can(suite: Suite, left_out: Sequence[str]) -> None:
    pytest.importorskip("torch")

    result = suite.run(
        *("-k", " and not ".join(["test_layers", *left_out]), "--backend=torch", "--mode=inference,training"),
        *("--steps=1", "--benchmark-only", "--benchmark-json=run.json", "-rs"),
    )

    assert result.returncode == 0, result.text
    found: Dict[str, Dict[str, Any]] = {}
    for entry in suite.read("run.json")["benchmarks"]:
        found.setdefault(entry["extra_info"]["mode"], {})[entry["extra_info"]["workload"]] = entry["extra_info"]
    assert sorted(found["inference"]) == [name for name in workloads.names("layers") if name not in left_out]
    assert set(found["inference"]) - set(found["training"]) == {"hmc"} - set(left_out)
    assert all(0 < one["gradient_error"] < 2e-3 for one in found["training"].values())

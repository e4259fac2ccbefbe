"""What a user gets first: every layer at its first size, in both modes."""

from __future__ import annotations

from typing import Any, Dict

import pytest
from suite import Suite

from bench import workloads

pytest.importorskip("torch")


def test_every_layer_is_right_at_its_first_size_and_trains_where_it_can(suite: Suite) -> None:
    result = suite.run(
        *("-k", "test_layers", "--backend=torch", "--mode=inference,training", "--steps=1"),
        *("--benchmark-only", "--benchmark-json=run.json", "-rs"),
    )

    assert result.returncode == 0, result.text
    found: Dict[str, Dict[str, Any]] = {}
    for entry in suite.read("run.json")["benchmarks"]:
        found.setdefault(entry["extra_info"]["mode"], {})[entry["extra_info"]["workload"]] = entry["extra_info"]
    assert sorted(found["inference"]) == list(workloads.names("layers"))
    assert set(found["inference"]) - set(found["training"]) == {"hmc"}
    assert all(0 < one["gradient_error"] < 2e-3 for one in found["training"].values())

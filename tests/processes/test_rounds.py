"""Pairs of several cases: a host that is lost costs a repetition, not the run."""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, List

import pytest

from bench.cases.case import Case, Settings
from bench.processes import rounds as rounds_module
from bench.processes.host import HostLost
from bench.processes.rounds import Rounds
from bench.results.comparison import Comparisons
from bench.results.pair import BASE, CANDIDATE, COUNTED, Pair

CASE = Case("dense", "u8", {"units": 8}, "inference", 2, "fp32", 1, "numpy", "cpu")


class Hosts:
    """A host whose lock is lost at these requests."""

    def __init__(self, lost_at: List[int]) -> None:
        self.lost_at, self.requests, self.losses = lost_at, 0, 0

    def now(self) -> Any:
        return SimpleNamespace(timing=self.timing)

    @contextmanager
    def timing(self, device: str) -> Any:
        self.requests += 1
        if self.requests in self.lost_at:
            raise HostLost("the host was cut off")
        yield

    def lose(self) -> None:
        self.losses += 1


@pytest.mark.parametrize("lost_at, kind", [([3], "same"), ([3, 4], "broken")])
def test_a_host_that_is_lost_before_a_pair_is_tried_again_once(monkeypatch, lost_at, kind):
    monkeypatch.setattr(rounds_module, "PAUSES_S", (0.0,))
    monkeypatch.setattr(
        rounds_module.pairing,
        "measure",
        lambda case, index, attempt, *rest: Pair(
            case.id, index, attempt, COUNTED, log_ratios={"rate": 0.001, "mean_rate": 0.001}
        ),
    )
    hosts = Hosts(lost_at)
    both = {BASE: hosts, CANDIDATE: hosts}
    settings = {CASE.id: {BASE: Settings(), CANDIDATE: Settings()}}
    comparisons = Comparisons({CASE.id: {"rate": 5.0, "mean_rate": 5.0}})
    noted: List[Pair] = []

    Rounds({CASE.id: CASE}, settings, both, {BASE: {CASE.id: {}}, CANDIDATE: {CASE.id: {}}}, 0.1, 1.0).run(
        comparisons, 1, noted.append, lambda phase: None
    )

    assert comparisons.verdicts()[CASE.id].kind == kind
    assert [pair.kind for pair in noted if pair.outcome != COUNTED] == ["lost"] * len(lost_at)
    assert hosts.losses == 2 * len(lost_at)

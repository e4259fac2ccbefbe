"""A self-check: its comparisons, what it counts, and what it keeps. The pairs are drawn, with a known spread."""

from __future__ import annotations

import json
import math
import random
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Mapping

import pytest
from pairs_by_hand import of_ratios, pair

from bench import cache
from bench.cases.case import Settings
from bench.clock import slowdown
from bench.results import pair_file, table
from bench.results import self_check as results
from bench.results.comparison import Comparisons, Store
from bench.results.pair import CANDIDATE
from bench.results.self_check import Part
from fixtures import self_check
from fixtures.self_check import SelfCheck

BUDGETS = {"a": {"rate": 5.0, "mean_rate": 5.0}, "b": {"rate": 5.0, "mean_rate": 5.0}}


def judged(part, **ratios):
    comparisons = Comparisons({case: BUDGETS[case] for case in ratios})
    for case, values in ratios.items():
        for each in of_ratios(case, values, seconds=2.0):
            comparisons.add(replace(each, slowdown=part.slowdown, comparison=part.number))
    return part, comparisons


SAME = (0.001, -0.01, 0.009, -0.002, 0.004, -0.006)
SLOWER = (-0.10, -0.11, -0.09, -0.105, -0.095, -0.10, -0.108, -0.092, -0.101)


def test_the_slow_downs_follow_the_first_comparison_without_a_change_and_every_twelfth_from_there():
    assert [part.slowdown for part in results.parts(2)] == [0.0, 2.0, 5.0, 10.0, 20.0, 0.0]
    assert [part.slowdown for part in results.parts(13)].count(5.0) == 2
    assert len(set(results.parts(25))) == len(results.parts(25))


@pytest.mark.parametrize("part, before", [(Part(0.0, 0), 0), (Part(0.0, 7), 7), (Part(5.0, 0), 1), (Part(5.0, 1), 13)])
def test_a_comparison_knows_how_many_without_a_change_came_before(part, before):
    assert part.before == before
    earlier = results.parts(25)[: results.parts(25).index(part)]
    assert sum(not each.slowdown for each in earlier) == before


def test_a_false_verdict_and_a_detected_slow_down_are_counted():
    found = results.findings(
        [judged(Part(0.0, 0), a=SAME), judged(Part(0.0, 1), a=SLOWER), judged(Part(10.0, 0), a=SLOWER)], last=12
    )

    assert found["a"].counts[0.0] == (2, 1, 0, 0, pytest.approx(15.0))
    assert found["a"].counts[10.0] == (1, 1, 0, 0, pytest.approx(18.0))
    assert found["a"].counts[5.0].comparisons == 0


def test_the_spread_is_that_of_the_pairs_without_a_change():
    found = results.findings([judged(Part(0.0, 0), a=(0.04, -0.04)), judged(Part(10.0, 0), a=(-0.3, 0.5))], last=12)

    assert found["a"].spread == pytest.approx(math.sqrt(2) * 0.04)
    # Two standard deviations: 1 - exp(-0.1131).
    assert found["a"].smallest == pytest.approx(100 * (1 - math.exp(-2 * math.sqrt(2) * 0.04)))


def test_the_smallest_loss_that_is_seen_is_not_below_the_budget():
    """Two standard deviations are 2.8 %: such a loss is called the same."""
    assert results.findings([judged(Part(0.0, 0), a=(0.01, -0.01))], last=12)["a"].smallest == 5.0


def test_what_is_not_known_of_a_self_check_is_null_and_a_dash():
    found = results.plain(results.findings([judged(Part(0.0, 0), a=(0.01,))], last=12), (0, 1), 0.0)

    assert json.loads(json.dumps(found, allow_nan=False)) == found
    facts = found["cases"]["a"]
    assert (facts["spread"], facts["smallest_percent"], facts["counts"]["2"]["seconds"]) == (None, None, None)
    row = table.of_self_check(found).splitlines()[5].split()
    assert row[-4:] == ["-", "-", "2", "s"]


def test_a_run_with_one_false_case_is_a_false_run():
    runs = [judged(Part(0.0, 0), a=SAME, b=SAME), judged(Part(0.0, 1), a=SAME, b=SLOWER)]

    assert results.false_runs([*runs, judged(Part(10.0, 0), a=SLOWER, b=SLOWER)]) == (1, 2)


@pytest.mark.parametrize("events, trials", [(0, 1), (0, 600), (1, 949), (2, 1260), (3, 10), (10, 10)])
def test_the_highest_rate_is_that_of_clopper_and_pearson(events, trials):
    from scipy.stats import beta

    expected = 1.0 if events == trials else beta.ppf(0.95, events + 1, trials - events)

    assert results.highest_rate(events, trials) == pytest.approx(expected)


def unit(step_s):
    return {"order": "ABBA", "blocks": {"base": {"lower_quartile": [1.0]}, "candidate": {"lower_quartile": [step_s]}}}


def test_the_store_has_the_pairs_of_earlier_comparisons_alone():
    pairs = [pair("a", n % 10, 0.001 * n, comparison=n // 10, units=[unit(1.0), unit(1.1)]) for n in range(60)]
    pairs += [pair("a", 0, -0.5, comparison=0, slowdown=10.0)]

    assert results.store(pairs, 3) == {}
    found = results.store(pairs, 5)["a"]
    assert found.ratios == [0.001 * n for n in range(50)]
    assert found.spread == pytest.approx(math.log(1.1) / math.sqrt(2))


@pytest.mark.parametrize("spread, kind, pairs", [(1.1, "slower", 3), (1.6, "undecided", None)])
def test_three_pairs_far_below_the_store_are_slower_unless_they_are_noisier(spread, kind, pairs):
    store = Store([0.001 * (-1) ** n for n in range(60)], math.log(1.2) / math.sqrt(2))
    comparisons = Comparisons({"a": BUDGETS["a"]}, stores={"a": store})
    for index in range(3):
        comparisons.add(pair("a", index, -0.3, units=[unit(1.0), unit(spread)]))

    verdict = comparisons.verdicts()["a"]
    assert (verdict.kind, bool(comparisons.wanting())) == (kind, kind == "undecided")
    if pairs:
        assert verdict.metrics["rate"].count == pairs


@dataclass(frozen=True)
class Paper:
    """Rounds whose pairs are drawn: 1 % of noise, and the slow-down of the variable."""

    variables: Mapping[str, Mapping[str, str]]
    ends_after: int = 10**6

    def run(self, comparisons, seed, note, tell, stop):
        percent = float(self.variables.get(CANDIDATE, {}).get(slowdown.VARIABLE, 0))
        coin = random.Random(seed)
        while comparisons.wanting():
            comparisons.stopped = stop()
            if comparisons.stopped:
                return
            for case in comparisons.wanting():
                ratio = coin.gauss(0, 0.01) - math.log(1 + percent / 100)
                made = pair(case, len(comparisons.counted(case)), ratio, units=[unit(1.0), unit(1.01)], started_s=1.0)
                note(made)
                comparisons.add(made)


@pytest.fixture
def state(tmp_path, monkeypatch) -> Any:
    monkeypatch.setenv("LAYERBENCH_CACHE", str(tmp_path))
    file = tmp_path / "pairs.jsonl"
    pair_file.create(file, {})
    host = SimpleNamespace(facts={"python": "3", "versions": {}, "devices": {}})
    parsed = SimpleNamespace(self_check=8, pairs=12, max_minutes=None)
    return SimpleNamespace(
        options={CANDIDATE: parsed},
        file=file,
        pairs={},
        findings={},
        sides={CANDIDATE: SimpleNamespace(now=lambda: host)},
        settings=lambda side: Settings(),
    )


def test_a_self_check_of_a_quiet_machine_finds_no_false_verdict_and_every_large_slow_down(state):
    said = SelfCheck(state, Paper({}), BUDGETS, 1, []).run(lambda phase: None)

    facts = state.findings["cases"]["a"]["counts"]
    assert facts["0"]["comparisons"] == 8
    assert facts["0"]["slower"] + facts["0"]["faster"] == 0
    assert [facts[name]["slower"] for name in ("10", "20")] == [1, 1]
    assert {verdict.kind for verdict in said.values()} == {"same"}
    assert cache.read(self_check.FINDINGS) == state.findings
    assert "0 of 16 comparisons" in (self_check.heading() or "")


def test_an_interrupted_self_check_goes_on_with_its_pairs(state):
    whole = SelfCheck(state, Paper({}), BUDGETS, 1, [])
    whole.run(lambda phase: None)
    findings = state.findings
    half = pair_file.load(state.file)[:50]
    again = SelfCheck(state, Paper({}), BUDGETS, 1, list(half))

    again.run(lambda phase: None)

    assert again.pairs[:50] == half
    assert state.findings["cases"]["a"]["counts"]["0"]["comparisons"] == 8
    assert state.findings["comparisons"] == findings["comparisons"]


def test_a_self_check_that_is_stopped_counts_what_has_ended(state):
    state.options[CANDIDATE].max_minutes = 0.0

    said = SelfCheck(state, Paper({}), BUDGETS, 1, []).run(lambda phase: None)

    assert state.findings["comparisons"] == 0
    assert {verdict.kind for verdict in said.values()} == {"undecided"}
    assert cache.read(self_check.FINDINGS) is None


def test_the_pairs_without_a_change_are_kept_for_later_runs(state, monkeypatch):
    SelfCheck(state, Paper({}), BUDGETS, 1, []).run(lambda phase: None)
    monkeypatch.setattr(self_check.time, "time", lambda: 2.0)

    stores = self_check.stores(state, ["a", "c"])

    assert set(stores) == {"a"}
    assert len(stores["a"].ratios) >= 40
    state.sides[CANDIDATE].now().facts["versions"] = {"numpy": "2"}
    assert self_check.stores(state, ["a"]) == {}


@pytest.mark.parametrize("percent, seconds", [("", 0.01), ("0", 0.01), ("50", 0.015)])
def test_a_slow_down_makes_a_step_longer_by_its_percentage(monkeypatch, percent, seconds):
    now = [0.0]

    def clock():
        now[0] += 1e-6
        return now[0]

    def step():
        now[0] += 0.01

    monkeypatch.setenv(slowdown.VARIABLE, percent)
    monkeypatch.setattr(slowdown, "perf_counter", clock)

    slowdown.slowed(step)()

    assert now[0] == pytest.approx(seconds, abs=1e-5)


def test_without_a_slow_down_nothing_is_in_the_way(monkeypatch):
    monkeypatch.delenv(slowdown.VARIABLE, raising=False)

    assert (
        slowdown.slowed(test_without_a_slow_down_nothing_is_in_the_way)
        is test_without_a_slow_down_nothing_is_in_the_way
    )


def test_the_file_has_the_slow_down_of_each_pair(state):
    SelfCheck(state, Paper({}), {"a": BUDGETS["a"]}, 1, []).run(lambda phase: None)

    pairs = pair_file.load(Path(state.file))
    assert {each.slowdown for each in pairs} == {0.0, 2.0, 5.0, 10.0, 20.0}
    assert max(each.comparison for each in pairs if not each.slowdown) == 7

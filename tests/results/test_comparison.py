"""The comparison of two sides: which cases need another pair, what a failure does, and the verdict of each case."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pairs_by_hand import SAME, SLOWER, of_ratios, pair

from bench.results.comparison import Comparisons
from bench.results.pair import DISTURBED, FAILED
from bench.results.pairs import judge


def comparisons_of(**cases):
    found = Comparisons({case: {"rate": 5.0, "mean_rate": 5.0} for case in cases})
    for case, pairs in cases.items():
        for each in pairs or of_ratios(case, ()):
            found.add(each)
    return found


def fed(found, **ratios):
    """Feed pairs to the cases that want one, as a run does. Returns how many each case got."""
    while found.wanting():
        for case in found.wanting():
            index = len(found.counted(case))
            found.add(pair(case, index, ratios[case][index]))
    return {case: len(found.counted(case)) for case in ratios}


def test_every_case_wants_a_first_pair():
    assert comparisons_of(a=[], b=[]).wanting() == ["a", "b"]


def test_a_case_that_is_the_same_stops_at_six_pairs_and_one_that_is_slower_at_nine():
    found = comparisons_of(a=[], b=[])

    assert fed(found, a=SAME, b=SLOWER) == {"a": 6, "b": 9}
    assert {case: verdict.kind for case, verdict in found.verdicts().items()} == {"a": "same", "b": "slower"}
    assert found.wanting() == []


def test_a_case_that_never_decides_stops_at_the_last_look():
    wide = [0.2, -0.2] * 6
    found = comparisons_of(a=[])

    assert fed(found, a=wide) == {"a": 12}
    verdict = found.verdicts()["a"]
    assert verdict.kind == "undecided"
    assert "pairs would decide" in verdict.text


def test_the_cases_with_the_fewest_pairs_come_first():
    found = comparisons_of(a=of_ratios("a", SAME[:2]), b=of_ratios("b", SAME[:1]))

    assert found.wanting() == ["b"]


def test_the_verdict_of_the_rate_is_that_of_the_pairs():
    found = comparisons_of(a=of_ratios("a", SLOWER))

    family = {"a rate": found.verdicts()["a"].metrics["rate"]}
    assert family["a rate"].estimate == pytest.approx(-0.1, abs=0.003)
    assert found.verdicts()["a"].text.startswith("a: slower: -9.5 %")


@pytest.mark.parametrize("attempts, kind", [(3, "same"), (4, "undecided")])
def test_a_disturbed_pair_is_repeated_three_times(attempts, kind):
    found = comparisons_of(a=[pair("a", 0, outcome=DISTURBED, reason="noise", attempt=n) for n in range(attempts)])

    assert found.attempt("a", 0) == attempts
    fed(found, a=SAME)
    assert found.verdicts()["a"].kind == kind


def test_what_disturbed_a_case_is_in_its_verdict():
    found = comparisons_of(a=[pair("a", 0, outcome=DISTURBED, reason="others took 50 % of the cores")] * 4)

    assert found.wanting() == []
    text = found.verdicts()["a"].text
    assert text == "a: undecided; pair 1 was disturbed 4 times: others took 50 % of the cores"


def test_a_disturbed_case_keeps_no_other_case_from_its_verdict():
    found = comparisons_of(a=[pair("a", 0, outcome=DISTURBED, reason="noise")] * 4, b=[])

    assert fed(found, b=SAME) == {"b": 6}
    assert found.verdicts()["b"].kind == "same"


@pytest.mark.parametrize(
    "kind, times, wanted", [("died", 1, ["a"]), ("died", 2, []), ("wrong", 1, []), ("error", 1, [])]
)
def test_a_process_that_dies_is_tried_twice_and_a_wrong_result_once(kind, times, wanted):
    failures = [pair("a", 0, outcome=FAILED, side="base", kind=kind, reason="gone", attempt=n) for n in range(times)]
    found = comparisons_of(a=failures)

    assert found.wanting() == wanted
    if not wanted:
        assert found.verdicts()["a"].kind == "broken"
        assert "base" in found.verdicts()["a"].text


def test_a_pair_that_was_disturbed_and_died_when_it_was_repeated_is_tried_again():
    lost = pair("a", 0, outcome=FAILED, attempt=1, side="base", kind="died", reason="gone")
    disturbed = [pair("a", 0, outcome=DISTURBED, reason="others")]

    assert comparisons_of(a=[*disturbed, lost]).wanting() == ["a"]
    assert comparisons_of(a=[*disturbed, lost, replace(lost, attempt=2)]).verdicts()["a"].kind == "broken"


def test_a_host_that_is_lost_twice_is_that_of_no_side():
    failures = [pair("a", 0, outcome=FAILED, kind="lost", reason="cut off", attempt=n) for n in range(2)]

    assert comparisons_of(a=failures).verdicts()["a"].text == "a: broken: twice: cut off"


def test_a_death_in_a_later_pair_is_a_first_death():
    pairs = [pair("a", 0, outcome=FAILED, side="base", kind="died", reason="gone"), *of_ratios("a", SAME[:1])]
    pairs.append(pair("a", 1, outcome=FAILED, side="base", kind="died", reason="gone"))

    assert comparisons_of(a=pairs).wanting() == ["a"]


def test_a_tail_that_became_slower_is_slower_although_the_rate_is_not():
    pairs = [pair("a", index, 0.0, mean=ratio) for index, ratio in enumerate(SLOWER)]
    found = comparisons_of(a=pairs)

    verdict = found.verdicts()["a"]
    assert verdict.metrics["rate"].kind == "same"
    assert verdict.kind == "slower"
    assert "mean_rate slower" in verdict.text


def test_a_tail_that_does_not_decide_keeps_no_case_waiting():
    pairs = [pair("a", index, SAME[index], mean=0.2 * (-1) ** index) for index in range(6)]
    found = comparisons_of(a=pairs)

    assert found.wanting() == []
    assert found.verdicts()["a"].kind == "same"


def test_a_metric_with_a_budget_of_its_own_has_to_be_decided():
    found = Comparisons({"a": {"rate": 5.0, "mean_rate": 5.0, "compile": 10.0}})
    for index in range(6):
        found.add(pair("a", index, SAME[index], others={"compile": 0.3 * (-1) ** index}))

    assert found.verdicts()["a"].kind == "undecided"
    assert found.wanting() == ["a"]


def test_more_memory_is_slower_since_less_is_better():
    found = Comparisons({"a": {"rate": 5.0, "mean_rate": 5.0, "memory": 5.0}})
    for index, ratio in enumerate(SLOWER):
        found.add(pair("a", index, SAME[index], others={"memory": -ratio}))

    assert found.verdicts()["a"].metrics["memory"].kind == "slower"
    assert found.verdicts()["a"].kind == "slower"


def test_a_metric_that_a_side_does_not_have_is_not_judged():
    found = Comparisons({"a": {"rate": 5.0, "mean_rate": 5.0, "p99": 5.0}})
    for each in of_ratios("a", SAME):
        found.add(each)

    assert set(found.verdicts()["a"].metrics) == {"rate", "mean_rate"}


def test_a_run_that_was_stopped_says_so():
    found = comparisons_of(a=of_ratios("a", SAME[:2]))
    found.stopped = "stopped after --max-minutes 1"

    assert found.verdicts()["a"].kind == "undecided"
    assert found.verdicts()["a"].text.endswith("stopped after --max-minutes 1")


def test_all_metrics_of_all_cases_are_one_family(monkeypatch):
    families = []

    def judged(comparisons, last):
        families.append(sorted(comparisons))
        return judge(comparisons, last)

    monkeypatch.setattr("bench.results.pairs.judge", judged)
    comparisons_of(a=of_ratios("a", SAME), b=of_ratios("b", SAME)).verdicts()

    assert families == [["a mean_rate", "a rate", "b mean_rate", "b rate"]]


def test_a_run_that_goes_on_from_its_pairs_has_the_same_verdicts():
    whole = comparisons_of(a=[], b=[])
    fed(whole, a=SAME, b=SLOWER)
    again = Comparisons(whole.budgets)
    for pairs in whole.pairs.values():
        for each in pairs:
            again.add(each)

    assert again.verdicts() == whole.verdicts()

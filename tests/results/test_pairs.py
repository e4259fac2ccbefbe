"""The verdict over pairs. scipy, and brute force, are the oracles.

How a run uses it: a `Comparison` for each case and metric has the log ratios of its pairs so far, its budget, and which
direction is better. After each pair, `judge` gives a `Verdict` for each. While any has a `next_look`, that comparison
needs more pairs; pairs of the others are not measured. A pair that was disturbed or died is measured again in its
place. `Verdict.line()` is the report's line, and `kind` the result of the pytest item. The file of a run holds the log
ratios, and `judge` says the same of them after a resume. `coins` gives roles, order and ABBA or BAAB, `recent` the
store for the early look. `judge_stored` takes a stored set of processes in place of a live side.
"""

from __future__ import annotations

import itertools
import math
import subprocess
import sys

import numpy as np
import pytest

from bench.results import pairs
from bench.results.pairs import Comparison, judge

D = -math.log(0.95)
DAY_S = 86400.0


def verdict(log_ratios, last=12, **options):
    return judge({"case": Comparison(log_ratios, **options)}, last)["case"]


def draws(count, spread=0.03, centre=0.0, seed=1):
    return np.random.default_rng(seed).normal(centre, spread, count)


# Flips


def brute_flip_p(x, centre):
    """The share of sign vectors with S.y <= sum(y), from its definition."""
    y = np.asarray(x) - centre
    signs = np.array(list(itertools.product((1, -1), repeat=len(y))))
    return np.mean(signs @ y <= y.sum() + 1e-12)


@pytest.mark.parametrize("count", [2, 3, 6, 9, 12])
@pytest.mark.parametrize("centre", [0.0, 0.02, -0.02])
def test_flips_give_the_p_of_scipys_permutation_test(count, centre):
    stats = pytest.importorskip("scipy.stats")
    x = draws(count, seed=count)

    got = pairs.flip_p(pairs.subset_means(x), centre)

    want = stats.permutation_test(
        (x - centre,), np.sum, permutation_type="samples", alternative="less", n_resamples=np.inf
    )
    assert got == pytest.approx(want.pvalue, abs=1e-9)


@pytest.mark.parametrize("x", [[0.0, 0.0, 0.0], [0.1, -0.1, 0.1, -0.1], [0.02] * 6, [-0.02, 0.0, -0.02, 0.0, 0.01]])
@pytest.mark.parametrize("centre", [0.0, 0.02, -0.02])
def test_flips_count_ties_as_the_definition_does(x, centre):
    assert pairs.flip_p(pairs.subset_means(np.array(x)), centre) == brute_flip_p(x, centre)


def test_flips_of_three_pairs_by_hand():
    """Subset means of -3, -2, 1: -3 -2 1 -2.5 -1 -0.5 -4/3. One of seven is at least 0, so p is 2 / 8."""
    means = pairs.subset_means(np.array([-3.0, -2.0, 1.0]))

    assert sorted(means) == pytest.approx([-3, -2.5, -2, -4 / 3, -1, -0.5, 1])
    assert pairs.flip_p(means) == 2 / 8


# Estimate and interval


@pytest.mark.parametrize("count", [1, 2, 5, 12])
def test_hodges_lehmann_is_the_median_of_all_pairwise_means(count):
    x = list(draws(count))
    walsh = [(x[i] + x[j]) / 2 for i in range(count) for j in range(i, count)]

    assert pairs.hodges_lehmann(x) == pytest.approx(np.median(walsh), abs=1e-15)


def test_hodges_lehmann_by_hand():
    """Of 1, 2 and 6 the means are 1, 1.5, 2, 3.5, 4 and 6."""
    assert pairs.hodges_lehmann([6.0, 1.0, 2.0]) == 2.75


@pytest.mark.parametrize("count", [9, 10, 12])
def test_the_interval_holds_the_centres_that_the_flips_do_not_reject(count):
    x = draws(count, seed=count)

    (low, high), confidence = pairs.interval(x)

    assert confidence >= 0.995
    for inside, outside, values, sign in ((low, low - 1e-9, -x, -1), (high, high + 1e-9, x, 1)):
        assert brute_flip_p(values, sign * inside) > 0.0025
        assert brute_flip_p(values, sign * outside) <= 0.0025


def test_the_interval_holds_the_centre_as_often_as_it_says():
    trials = 4000
    x = np.random.default_rng(2).standard_t(2, (trials, 6))

    inside = sum(pairs.interval(row, 0.9)[0][0] <= 0 <= pairs.interval(row, 0.9)[0][1] for row in x)

    assert pairs.interval(x[0], 0.9)[1] == 1 - 2 * 3 / 64
    assert abs(inside - trials * 58 / 64) < 4 * math.sqrt(trials * 58 / 64 * 6 / 64)


def test_less_than_nine_pairs_have_an_interval_of_less_confidence_from_the_lowest_to_the_highest():
    assert pairs.interval([0.03, -0.01, 0.02]) == ((-0.01, 0.03), 0.75)
    assert pairs.interval(list(draws(8)))[1] == 1 - 2 / 2**8


# maxT


def brute_family_p(rows):
    """maxT from its definition, with Student's t."""
    x = np.array(rows)
    signs = np.array(list(itertools.product((1, -1), repeat=x.shape[1])))

    def t(values):
        return values.mean(-1) / values.std(-1, ddof=1) * math.sqrt(x.shape[1])

    flipped = t(signs[:, None, :] * x)
    observed = t(x)
    below = [(flipped.min(axis=1) <= one + 1e-9).mean() for one in observed]
    above = [(flipped.max(axis=1) >= one - 1e-9).mean() for one in observed]
    return list(zip(below, above))


def test_maxt_is_that_of_students_t():
    rows = np.random.default_rng(3).normal(-0.01, 0.03, (4, 9))

    np.testing.assert_allclose(pairs.family_p(rows.tolist()), brute_family_p(rows))


def test_maxt_of_one_comparison_is_the_flip_test():
    x = draws(9, centre=-0.01)

    ((below, above),) = pairs.family_p([x.tolist()])

    assert below == pairs.flip_p(pairs.subset_means(x))
    assert above == pairs.flip_p(pairs.subset_means(-x))


def test_a_comparison_that_was_decided_or_is_all_zeros_stays_in_the_family():
    x = draws(9).tolist()

    with_others = pairs.family_p([x, [0.01, 0.02, -0.01], [0.0] * 9])

    assert with_others[0] >= pairs.family_p([x])[0]
    assert with_others[2] == (1.0, 1.0)


@pytest.mark.parametrize("correlation, last, cases, trials", [(0.0, 9, 60, 300), (0.8, 9, 60, 100), (0.0, 12, 40, 60)])
def test_a_run_of_many_unchanged_cases_has_a_false_slower_in_at_most_5_percent(correlation, last, cases, trials):
    """Noise that the budget hardly covers. By the flips alone, 60 cases at 9 pairs have a false slower in 11 % of runs.

    The look at 9 pairs spends 3 %, the look at 12 the other 2 %.
    """
    random = np.random.default_rng(4)
    wrong = 0
    for _ in range(trials):
        common, single = random.normal(0, 0.08, last), random.normal(0, 0.08, (cases, last))
        x = math.sqrt(correlation) * common + math.sqrt(1 - correlation) * single
        verdicts = judge({str(case): Comparison(row) for case, row in enumerate(x.tolist())}, last)
        wrong += any(each.kind == "slower" for each in verdicts.values())

    bound = 0.03 if last == 9 else 0.05
    print(f"{wrong} of {trials} runs")
    assert wrong <= trials * bound + 3 * math.sqrt(trials * bound * (1 - bound))


def test_a_case_that_the_flips_alone_call_slower_needs_the_agreement_of_the_run():
    """One of 40 independent cases has nine pairs below zero. That happens to any of 40 in 8 % of runs."""
    random = np.random.default_rng(5)
    case = {"case": Comparison([-0.03, -0.05, -0.04, -0.2, -0.03, -0.06, -0.05, -0.04, -0.03])}
    others = {str(index): Comparison(row) for index, row in enumerate(random.normal(0, 0.3, (40, 9)).tolist())}

    assert judge(case)["case"].kind == "slower"
    assert judge({**case, **others})["case"].kind == "undecided"


# The looks


def test_six_pairs_well_within_the_budget_are_the_same():
    result = verdict([0.01, -0.01, 0.0, 0.02, -0.02, 0.005])

    assert (result.kind, result.count, result.next_look, result.needed) == ("same", 6, None, None)


def test_no_noise_and_no_change_is_the_same():
    result = verdict([0.0] * 6)

    assert (result.kind, result.estimate, result.spread, result.smallest) == ("same", 0.0, 0.0, pytest.approx(-D))


def test_a_change_that_is_the_same_in_all_pairs_is_slower_at_nine():
    result = verdict([-0.125] * 12)

    assert (result.kind, result.count, result.interval) == ("slower", 9, (-0.125, -0.125))
    assert result.confidence == 1 - 2 / 512


def test_the_mirror_image_is_faster():
    assert verdict([0.1] * 9).kind == "faster"
    assert verdict((-draws(12, 0.05, -0.1)).tolist()).kind == "faster"


def test_one_pair_on_the_other_side_is_not_slower_at_nine_and_is_at_twelve():
    """With 1e-3 as the smallest in size, 2 of 4096 sign vectors are as low: 0.00049."""
    x = [-0.1, -0.2, 0.001, -0.3, -0.1, -0.2, -0.1, -0.2, -0.3, -0.1, -0.2, -0.3]

    assert (verdict(x[:9]).kind, verdict(x[:9]).next_look) == ("undecided", 12)
    assert (verdict(x).kind, verdict(x).count) == ("slower", 12)
    assert verdict([*x[:3], -0.2, 0.001, *x[5:]]).kind == "undecided"


def test_a_small_change_is_not_slower_however_sure():
    """All nine pairs are below zero, their median is not half the budget away, and they spread too far for same."""
    x = [-0.02, -0.01, -0.02, -0.2, -0.01, -0.3, -0.02, -0.2, -0.01]

    assert verdict(x).kind == "undecided"
    assert verdict(x, budget_percent=3).kind == "slower"


def test_pairs_before_the_first_look_decide_nothing():
    result = verdict([-0.5] * 5)

    assert (result.kind, result.next_look, result.needed) == ("undecided", 6, None)
    assert result.line().endswith("; stopped before the look at 6 pairs")


def test_no_pair_is_undecided_and_has_no_figures():
    result = verdict([])

    assert (result.kind, result.next_look, result.estimate, result.interval) == ("undecided", 6, None, None)
    assert result.line() == "undecided: no pair was measured"


def test_a_single_pair_has_an_estimate_and_no_spread():
    result = verdict([-0.1])

    assert (result.estimate, result.spread, result.smallest) == (-0.1, None, None)


def test_pairs_after_the_look_that_decided_change_nothing():
    x = [-0.1] * 9

    assert verdict(x + [0.5, 0.5, 0.5]) == verdict(x)
    assert verdict(draws(12, 0.3).tolist() + [9.0]) == verdict(draws(12, 0.3).tolist())


def test_a_verdict_stays_when_other_cases_go_on():
    first = {"a": Comparison([-0.1] * 9), "b": Comparison(draws(9, 0.3).tolist())}
    later = {**first, "b": Comparison(draws(9, 0.3).tolist() + [0.1, -0.1, 0.2])}

    assert judge(first)["a"] == judge(later)["a"]


def test_a_smaller_and_a_larger_plan():
    x = ([-0.2, -0.2, 0.05] * 7)[:20]

    assert (verdict(x, last=9).kind, verdict(x, last=9).next_look) == ("undecided", None)
    assert (verdict(x[:9], last=20).next_look, verdict(x, last=20).kind) == (20, "slower")
    with pytest.raises(ValueError, match="no plan for 10 pairs; there are plans for 9, 12, 16, 20"):
        verdict(x, last=10)


# Direction, budgets and wrong values


def test_of_a_latency_higher_is_slower():
    x = [0.1] * 9

    result = verdict(x, higher_is_better=False)

    assert (result.kind, result.estimate) == ("slower", pytest.approx(0.1))
    assert result.smallest == pytest.approx(math.log(1.05))
    assert verdict([-0.1] * 9, higher_is_better=False).kind == "faster"


def test_each_comparison_has_its_budget():
    x = (-0.07 + draws(6, 0.001)).tolist()

    verdicts = judge({"5": Comparison(x), "10": Comparison(x, budget_percent=10)})

    assert (verdicts["5"].kind, verdicts["10"].kind) == ("undecided", "same")


@pytest.mark.parametrize("budget", [0, -1, 100, math.nan])
def test_a_budget_is_above_0_and_below_100_percent(budget):
    with pytest.raises(ValueError, match=r"^a budget of .* %; it must be above 0 and below 100 %$"):
        verdict([0.0], budget_percent=budget)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_log_ratio_that_is_no_number_is_refused_in_one_line(value):
    with pytest.raises(
        ValueError, match=r"^case: log ratio 1 is -?(nan|inf); a pair without a value must be repeated$"
    ):
        verdict([0.0, value])
    with pytest.raises(ValueError, match="case: store: log ratio 0"):
        verdict([0.0], store=[value])


# The early look


def test_three_pairs_below_all_of_a_store_are_slower():
    store = draws(40, 0.02).tolist()

    result = verdict([-0.2, -0.3, -0.25], store=store)

    assert (result.kind, result.count) == ("slower", 3)
    assert result.false_alarm == pytest.approx(1 / 512 + 2 / 4096 + 1 / 12341)
    assert verdict([-0.2, -0.3, -0.25]).kind == "undecided"


def test_three_pairs_within_the_budget_or_among_the_store_are_not_slower():
    store = draws(40, 0.001).tolist()

    assert verdict([-0.02, -0.03, -0.04], store=store).kind == "undecided"
    assert verdict([-0.2, -0.3, min(store)], store=store).kind == "undecided"


def test_the_early_look_of_a_latency_is_at_the_other_end():
    store = [*draws(39, 0.001).tolist(), -0.5]

    assert verdict([0.2, 0.3, 0.25], store=store, higher_is_better=False).kind == "slower"
    assert verdict([0.2, 0.3, 0.25], store=store).kind == "undecided"


def test_the_first_look_is_at_three_only_with_a_store_of_forty():
    assert verdict([0.0], store=[0.0] * 40).next_look == 3
    assert verdict([0.0], store=[0.0] * 39).next_look == 6
    assert verdict([-0.5] * 3, store=[0.0] * 39).kind == "undecided"


def test_a_store_that_is_old_or_small_is_not_used():
    now_s = 1e9
    young = [(now_s - day * DAY_S / 2, float(day)) for day in range(40)]

    assert pairs.recent(young, now_s) == list(range(40))
    assert pairs.recent(young[:39], now_s) == []
    assert pairs.recent([*young[:39], (now_s - 31 * DAY_S, 0.0)], now_s) == []
    assert pairs.recent([*young[:39], (now_s + DAY_S, 0.0)], now_s) == []


# What the report says


def test_the_line_of_a_verdict():
    x = [-0.05, -0.06, -0.07, -0.06, -0.05, -0.06, -0.07, -0.06, -0.06]

    assert verdict(x).line() == (
        "slower: -5.8 % (99.6 % interval -6.8 to -4.9 %, 9 pairs); smallest change seen -5.0 %"
    )


def test_the_line_of_an_undecided_case_says_how_many_pairs_would_decide():
    x = [0.08, -0.08] * 6

    result = verdict(x)

    # The spread is 0.08 * sqrt(12 / 11) = 0.08356. A plan of 20 pairs needs 0.9 times that, and the budget is 0.05129.
    # 20 * (0.9 * 0.08356 / 0.05129)^2 = 42.99
    assert (result.kind, result.needed, result.next_look) == ("undecided", 43, None)
    assert result.smallest == pytest.approx(-2.0 * result.spread)
    assert result.line().endswith("; the pairs spread too far; 43 pairs would decide")


def test_a_change_at_half_the_budget_needs_the_most_pairs():
    half = verdict([-D / 2 - 0.05, -D / 2 + 0.05] * 6)
    large = verdict([-0.15 - 0.15, -0.15 + 0.15] * 6)

    assert half.needed > 40
    assert large.needed == 16 if large.spread * 1.5 <= 0.15 else 20


def simulated(noise, centre, last=12, stored=0, budget=5.0):
    """Return the kinds and the pairs of trials, by the looks of `decide`, with a store for each trial."""
    random = np.random.default_rng(2026)
    d = noise(random, last) + centre
    margins = np.full(len(d), -math.log1p(-budget / 100))
    kinds, taken = np.full(len(d), "undecided", dtype="<U9"), np.full(len(d), last)
    if stored:
        early = (d[:, :3].max(axis=1) < noise(random, stored).min(axis=1)) & (np.median(d[:, :3], axis=1) <= -margins)
        kinds[early], taken[early] = "slower", 3
    for look in pairs.looks(last)[1:]:
        open_trials = np.flatnonzero(kinds == "undecided")
        for part in np.array_split(open_trials, 1 + len(open_trials) * 2**look // 2**20):
            x = d[part, :look]
            means = pairs.subset_means(x)
            # Of one comparison, maxT is the flip test.
            family = np.stack([pairs.flip_p(means), pairs.flip_p(-means)], axis=1)
            kinds[part] = pairs.decide(x, margins[part], family, last)
            taken[part[kinds[part] != "undecided"]] = look
    return kinds, taken


def test_the_simulation_decides_as_the_product_does():
    d, stores = draws(60 * 12, 0.06, -0.03).reshape(60, 12), draws(60 * 40, 0.06, seed=2).reshape(60, 40)

    kinds, taken = simulated(lambda _, count: stores if count == 40 else d, 0.0, stored=40)

    results = [verdict(x, store=store) for x, store in zip(d.tolist(), stores.tolist())]
    assert [(each.kind, each.count) for each in results] == list(zip(kinds, taken))
    assert {"slower", "undecided", "same"} <= set(kinds)


# Noise of a pair, of a shape, and the figures of the design: false slower or faster and same without a change, slower
# at -5, -10 and -20 %, all in percent; mean pairs at 0, -10 and -20 %. 3,000 trials, a store of 60.
TRIALS, STORED = 3000, 60
CHANGES = (0.0, -0.05, -0.1, -0.2)


def normal(spread):
    return lambda random, count: random.normal(0, spread, (TRIALS, count))


def two_modes(random, count):
    return random.choice([-0.1, 0.0, 0.1], p=[0.1, 0.8, 0.1], size=(TRIALS, count)) + normal(0.02)(random, count)


def layout_coin(random, count):
    return random.choice([-0.03, 0.03], size=(TRIALS, count)) + normal(0.005)(random, count)


def heavy_tails(random, count):
    return 0.03 * random.standard_t(2, (TRIALS, count))


def another_variance(random, count):
    return normal(0.02)(random, count) * np.exp(random.normal(0, 1, (TRIALS, count)))


DESIGN = {
    "normal, 2 %": (normal(0.02), (0.00, 100, 97.6, 100, 100), (6.2, 3.1, 3.0)),
    "normal, 3 %": (normal(0.03), (0.13, 99.6, 79.7, 100, 100), (7.4, 5.0, 3.0)),
    "normal, 5 %": (normal(0.05), (0.33, 71.5, 29.5, 95.3, 100), (10.5, 8.7, 3.4)),
    "normal, 8.6 %": (normal(0.086), (0.36, 5.5, 7.0, 44.7, 99.7), (11.9, 10.9, 7.5)),
    "two modes": (two_modes, (0.10, 71.8, 39.9, 86.3, 100), (9.8, 9.7, 3.8)),
    "layout coin": (layout_coin, (0.00, 100, 81.9, 100, 100), (6.0, 3.0, 3.0)),
    "t with 2 df": (heavy_tails, (0.17, 61.1, 42.1, 82.9, 97.7), (10.1, 9.5, 6.6)),
    "each pair another variance": (another_variance, (0.07, 81.8, 63.5, 91.3, 99.2), (8.6, 8.5, 5.1)),
}


@pytest.mark.parametrize("noise", DESIGN)
def test_the_operating_characteristics_are_those_of_the_design(noise):
    draw, shares, mean_pairs = DESIGN[noise]
    runs = [simulated(draw, math.log1p(change), stored=STORED) for change in CHANGES]
    kinds = [kinds for kinds, _ in runs]

    false = np.isin(kinds[0], ("slower", "faster")).sum()
    got = [false, (kinds[0] == "same").sum(), *((each == "slower").sum() for each in kinds[1:])]

    print(noise, [f"{100 * count / TRIALS:.2f}" for count in got], [f"{taken.mean():.1f}" for _, taken in runs])
    assert false <= 0.005 * TRIALS + 3 * math.sqrt(0.005 * TRIALS)
    for count, share in zip(got, shares):
        # Both counts are binomial. One more than none or less than all is within it.
        bound = 4 * math.sqrt(2 * TRIALS * share / 100 * (1 - share / 100)) + 4
        assert abs(count - TRIALS * share / 100) <= bound
    np.testing.assert_allclose([runs[i][1].mean() for i in (0, 2, 3)], mean_pairs, atol=0.25)


def test_a_change_as_large_as_the_budget_is_called_same_in_at_most_5_percent():
    for spread in (0.005, 0.02, 0.05):
        kinds, _ = simulated(normal(spread), -D)

        assert (kinds == "same").sum() <= 0.05 * TRIALS + 3 * math.sqrt(0.05 * TRIALS)


@pytest.mark.parametrize("last", [9, 12])
def test_the_smallest_change_seen_is_seen_9_times_in_10(last):
    plan = pairs.PLANS[last]

    slower, _ = simulated(normal(0.08), -0.08 * plan.slower, last)
    same, _ = simulated(normal(0.03), 0.0, last, budget=-100 * math.expm1(-0.03 * plan.same))

    assert 0.88 < (slower == "slower").mean() < 0.95
    assert 0.88 < (same == "same").mean() < 0.95


def test_early_slower_has_the_rate_of_its_store():
    """1 / C(43, 3), on uniform noise of 3 pairs and 40 stored, in a million trials."""
    random = np.random.default_rng(6)
    # The lowest of 40 uniform numbers, and the highest of three, each from one number.
    lowest, highest = 1 - random.random(10**6) ** (1 / 40), random.random(10**6) ** (1 / 3)

    assert pairs.all_below(40, 3) == 1 / 12341
    assert abs((highest < lowest).sum() - 10**6 / 12341) < 4 * math.sqrt(10**6 / 12341)


def test_importing_the_statistics_loads_no_numpy():
    code = (
        "import sys, bench.results.pairs, bench.results.stored, bench.results.coins; sys.exit('numpy' in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

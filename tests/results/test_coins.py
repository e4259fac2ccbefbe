"""The coins of a pair: fair, seeded, the same on every machine."""

from __future__ import annotations

import random

from bench.results import coins

PAIRS = range(2000)


def fair(count):
    """Half of 2000, within 4 standard deviations."""
    return abs(count - 1000) < 4 * (2000 / 4) ** 0.5


def test_the_roles_are_fair_and_independent():
    rolled = [coins.roles(1, pair) for pair in PAIRS]

    assert fair(sum(each.candidate_first for each in rolled))
    assert fair(sum(each.padding[0] < each.padding[1] for each in rolled))
    assert {0 <= size < 4096 for each in rolled for size in each.padding} == {True}


def test_the_blocks_are_fair_and_differ_between_cases():
    a, b = ([coins.units(1, pair, case, 1)[0] for pair in PAIRS] for case in "ab")

    assert set(a) == {"ABBA", "BAAB"}
    assert fair(a.count("ABBA"))
    assert fair(sum(one == other for one, other in zip(a, b)))


def test_every_order_of_cases_is_as_likely():
    orders = ["".join(coins.order(1, pair, ["a", "b", "c"])) for pair in PAIRS]

    assert len(set(orders)) == 6
    assert all(abs(orders.count(each) - 2000 / 6) < 80 for each in set(orders))


def test_a_seed_gives_the_same_coins_and_another_attempt_others():
    state = random.getstate()

    assert coins.units(1, 2, "case", 12) == coins.units(1, 2, "case", 12)
    assert coins.order(1, 2, ["a", "b", "c"]) == coins.order(1, 2, ["c", "a", "b"])
    assert coins.roles(1, 2) == coins.roles(1, 2)
    assert coins.roles(1, 2).padding != coins.roles(1, 2, attempt=1).padding != coins.roles(2, 2).padding
    assert random.getstate() == state


def test_the_coins_of_a_seed_are_the_same_on_every_machine():
    assert coins.roles(7, 0) == coins.Roles(True, (2627, 3595))
    assert coins.units(7, 0, "case", 4) == ["ABBA", "ABBA", "ABBA", "BAAB"]

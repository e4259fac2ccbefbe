"""Learning rates, worked out by hand: runs of 100 updates, 10 to an epoch, unless a test says otherwise."""

from __future__ import annotations

import pytest

from bench.training.schedule import KINDS, Schedule, base_rate


def rates(schedule, updates, updates_per_epoch=10, total_updates=100):
    return [schedule.at(update, updates_per_epoch, total_updates) for update in updates]


def test_a_constant_rate_stays():
    assert rates(Schedule("constant", 0.8), [0, 1, 50, 99, 100]) == 5 * [0.8]


def test_a_stepped_rate_drops_with_the_first_update_of_each_epoch_named():
    schedule = Schedule("stepped", 0.8, drop_epochs=(3, 6))

    got = rates(schedule, [0, 29, 30, 59, 60, 99, 100])

    assert got == pytest.approx([0.8, 0.8, 0.08, 0.08, 0.008, 0.008, 0.008], rel=1e-12)


def test_a_stepped_rate_without_drops_stays():
    assert rates(Schedule("stepped", 0.8), [0, 99]) == [0.8, 0.8]


def test_a_drop_is_due_although_its_update_is_rounded_up():
    third = 3 * 0.1
    assert third * 10 > 3
    schedule = Schedule("stepped", 1.0, drop_epochs=(third,), drop_factor=0.5)

    assert rates(schedule, [2, 3]) == [1.0, 0.5]


def test_a_decay_is_due_although_its_update_is_rounded_up():
    assert rates(Schedule("exponential", 1.0, decay_factor=0.5, decay_epochs=3 * 0.1), [2, 3, 6]) == [1.0, 0.5, 0.25]


def test_a_cosine_falls_to_its_half_and_to_zero():
    """0.8 x (1 + cos 45 deg) / 2 = 0.4 x 1.70710678; at update 99, 0.4 x (1 - cos 1.8 deg) = 0.4 x 0.00049344."""
    got = rates(Schedule("cosine", 0.8), [0, 25, 50, 99, 100])

    assert got == pytest.approx([0.8, 0.682842712, 0.4, 0.000197376, 0.0], rel=1e-5, abs=1e-16)


def test_an_exponential_rate_falls_in_steps_of_some_epochs():
    """2.4 epochs are 24 updates; update 99 has four falls behind it."""
    got = rates(Schedule("exponential", 2.0), [0, 23, 24, 47, 48, 99])

    assert got == pytest.approx([2, 2, 1.94, 1.94, 1.8818, 2 * 0.88529281], rel=1e-9)


def test_an_exponential_rate_can_fall_with_every_update():
    """The PyTorch harness without --lr-scheduler-freq: every third of an epoch when an epoch has three updates."""
    schedule = Schedule("exponential", 1.0, decay_factor=0.5, decay_epochs=1 / 3)

    assert rates(schedule, range(8), updates_per_epoch=3) == [1, 1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64, 1 / 128]


def test_an_exponential_rate_can_fall_so_many_times_in_a_run_of_any_length():
    """EfficientNet's 146 drops over two epochs of 6405 updates: one in 87.74 updates. The 145th comes with update
    145 x 12810 / 146 = 12722.3, and the last one with the end of the run, behind its last update."""
    schedule = Schedule("exponential", 2.0, decay_factor=0.97, drops=146)

    got = rates(schedule, [0, 87, 88, 175, 176, 12722, 12723, 12809, 12810], 6405, 12810)

    last = [2 * 0.97**144, 2 * 0.0120753984, 2 * 0.0120753984, 2 * 0.0117131365]
    assert got == pytest.approx([2, 2, 1.94, 1.94, 1.8818, *last], rel=1e-8)


@pytest.mark.parametrize("updates_per_epoch, total_updates", [(10, 3500), (6405, 12810), (6405, 146), (0.5, 10000)])
def test_the_drops_of_a_run_do_not_depend_on_its_length(updates_per_epoch, total_updates):
    schedule = Schedule("exponential", 1.0, decay_factor=0.5, drops=146)

    assert schedule.at(total_updates // 2, updates_per_epoch, total_updates) == 0.5**73
    assert schedule.at(total_updates, updates_per_epoch, total_updates) == 0.5**146


def test_more_drops_than_updates_fall_several_at_once():
    assert rates(Schedule("exponential", 1.0, decay_factor=0.5, drops=6), [0, 1, 2, 3], 1, 3) == [
        1,
        1 / 4,
        1 / 16,
        1 / 64,
    ]


def test_a_drop_of_a_run_is_due_although_its_update_is_rounded_up():
    """The fourth of 10 drops in 25 updates comes with update 10."""
    assert rates(Schedule("exponential", 1.0, decay_factor=0.5, drops=10), [9, 10], 5, 25) == [1 / 8, 1 / 16]


def test_a_polynomial_rate_falls_from_the_end_of_the_warm_up_to_its_end():
    """After 20 updates, over 80: half of them are left at 60 (0.01 + 0.99 / 4), one at 99 (0.01 + 0.99 / 6400)."""
    schedule = Schedule("polynomial", 3.0, warmup_epochs=2, end_factor=0.01, power=2)

    got = rates(schedule, [0, 10, 20, 60, 99, 100])

    assert got == pytest.approx([0, 1.5, 3, 3 * 0.2575, 3 * 0.0101546875, 0.03], rel=1e-12)


def test_a_polynomial_of_power_one_is_a_line():
    schedule = Schedule("polynomial", 1.0, end_factor=0.0, power=1)

    assert rates(schedule, [0, 25, 99, 100]) == pytest.approx([1, 0.75, 0.01, 0])


def test_a_run_that_ends_in_its_warm_up_still_has_rates():
    schedule = Schedule("polynomial", 1.0, warmup_epochs=20)

    assert rates(schedule, [0, 50, 100]) == [0, 0.25, 0.5]


def test_the_warm_up_of_a_cosine_multiplies_the_cosine():
    """Five epochs: update 25 has half of the cosine's 0.682842712, update 50 all of its 0.4."""
    got = rates(Schedule("cosine", 0.8, warmup_epochs=5), [0, 25, 50])

    assert got == pytest.approx([0, 0.341421356, 0.4])


@pytest.mark.parametrize("kind", ["constant", "stepped", "cosine", "exponential"])
def test_a_warm_up_starts_at_zero_and_ends_where_the_schedule_without_one_is(kind):
    warm = Schedule(kind, 0.5, warmup_epochs=2, drop_epochs=(4,))
    cold = Schedule(kind, 0.5, drop_epochs=(4,))

    assert warm.at(0, 10, 100) == 0
    assert warm.at(20, 10, 100) == cold.at(20, 10, 100)


@pytest.mark.parametrize("updates_per_epoch, total_updates", [(10, 100), (78.2, 156), (0.3, 7), (1, 1)])
@pytest.mark.parametrize("kind", KINDS)
def test_no_rate_rises_or_leaves_its_bounds_after_the_warm_up(kind, updates_per_epoch, total_updates):
    schedule = Schedule(kind, 0.5, drop_epochs=(1, 1.5, 4))

    got = rates(schedule, range(total_updates + 1), updates_per_epoch, total_updates)

    assert got[0] <= 0.5
    assert got == sorted(got, reverse=True)
    assert got[-1] >= 0


@pytest.mark.parametrize(
    "learning_rate, exponent, global_batch, rate",
    [
        (None, -13, 16384, 2.0),
        (None, -11, 768, 0.375),
        (None, -0.5, 2, 2**0.5),
        (0.05, None, 80, 0.05),
        (4.588, -13, 3264, 4.588),
    ],
)
def test_a_rate_is_absolute_or_grows_with_the_global_batch(learning_rate, exponent, global_batch, rate):
    assert base_rate(learning_rate, exponent, global_batch) == pytest.approx(rate)


@pytest.mark.parametrize(
    "arguments, said",
    [
        ((None, None, 8), "no learning rate: neither an absolute one nor an exponent of 2"),
        ((0.0, None, 8), "learning rate 0.0 is not a positive number"),
        ((float("nan"), None, 8), "learning rate nan is not a positive number"),
        ((None, 65, 8), r"learning rate 2 \*\* 65: the exponent is not within -64 to 64"),
        ((None, float("nan"), 8), r"learning rate 2 \*\* nan: the exponent"),
        ((0.1, None, 0), "a global batch of 0: at least one image is needed"),
    ],
)
def test_an_impossible_rate_is_refused(arguments, said):
    with pytest.raises(ValueError, match=f"^{said}"):
        base_rate(*arguments)


@pytest.mark.parametrize(
    "fields, said",
    [
        ({"kind": "step"}, "no learning-rate schedule 'step'; there are constant, stepped, cosine,"),
        ({"base_rate": -1.0}, "base_rate=-1.0 is not a positive number"),
        ({"base_rate": float("inf")}, "base_rate=inf is not a positive number"),
        ({"warmup_epochs": -1}, "warmup_epochs=-1 is neither zero nor a positive number"),
        ({"warmup_epochs": float("nan")}, "warmup_epochs=nan is neither zero nor"),
        ({"drop_epochs": (4, 2)}, r"drop_epochs=\(4, 2\) do not rise from above 0"),
        ({"drop_epochs": (0, 2)}, r"drop_epochs=\(0, 2\) do not rise from above 0"),
        ({"drop_factor": 0}, "drop_factor=0 is not a positive number"),
        ({"decay_factor": 1.5}, "decay_factor=1.5 is above 1"),
        ({"decay_epochs": 0}, "decay_epochs=0 is not a positive number"),
        ({"drops": -1}, "drops=-1 is negative"),
        ({"end_factor": 2}, "end_factor=2 is above 1"),
        ({"power": 0}, "power=0 is not a positive number"),
    ],
)
def test_an_impossible_schedule_is_refused(fields, said):
    with pytest.raises(ValueError, match=f"^{said}"):
        Schedule(**{"kind": "cosine", "base_rate": 1.0, **fields})


@pytest.mark.parametrize(
    "arguments, said",
    [
        ((-1, 10, 100), "update -1 is not within 0 to 100"),
        ((101, 10, 100), "update 101 is not within 0 to 100"),
        ((0, 0, 100), "updates_per_epoch=0 is not a positive number"),
        ((0, 10, 0), "a run of 0 updates: at least one is needed"),
    ],
)
def test_an_update_outside_of_the_run_is_refused(arguments, said):
    with pytest.raises(ValueError, match=f"^{said}"):
        Schedule("cosine", 1.0).at(*arguments)

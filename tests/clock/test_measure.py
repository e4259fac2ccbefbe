"""The clock, with a clock and step times of the tests' own: nothing here waits or depends on the machine."""

from __future__ import annotations

import gc
import itertools
import statistics
import time
from types import SimpleNamespace

import pytest

from bench.cases.case import Settings
from bench.cases.errors import Invalid
from bench.clock import neighbours, sampling, surroundings
from bench.clock.sampling import QUIET_PERCENT, measure, measure_blocks, noise_percent
from bench.program import Step, repeat, throughput

pytestmark = pytest.mark.floor


class Scripted:
    """A step and its clock: `times(i)` is what step i takes. Ends a test that would run for ever."""

    LIMIT = 400_000

    def __init__(self, times):
        self.times = times
        self.now, self.runs, self.reads = 1000.0, 0, 0

    def run(self):
        self.now += self.times(self.runs)
        self.runs += 1
        self._bound(self.runs)

    def clock(self):
        self.reads += 1
        self._bound(self.reads)
        return self.now

    def measured(self, **settings):
        return measure(self.run, Settings(**settings), self.clock)

    def _bound(self, count):
        if count > self.LIMIT:
            pytest.fail(f"no end after {count} steps or readings of the clock")


def constant(seconds):
    return lambda i: seconds


def slow_start(slow, steps, fast):
    return lambda i: slow if i < steps else fast


def noisy(seconds, spread):
    """Times of two levels in long stretches, so that the medians of blocks differ by 2 x `spread`."""
    return lambda i: seconds * (1 + spread * (-1) ** (i // 350))


class Pair:
    """A group of two, whose members all do what this one does."""

    rank, count = 0, 2

    def all_gather(self, value):
        return [value, value]


@pytest.mark.parametrize("alone_s, percent", [(0.008, 20), (0.010, 0), (0.013, 0)])
def test_the_share_of_an_all_reduce_is_what_a_step_without_it_saves_and_never_negative(monkeypatch, alone_s, percent):
    samples = Scripted(constant(0.010)).measured(steps=5)
    alone = Scripted(constant(alone_s)).measured(steps=5)
    monkeypatch.setattr(surroundings, "measure", lambda run, settings, group: alone)
    program = SimpleNamespace(group=Pair(), run_without_all_reduce=None)

    found = surroundings.all_reduce_share(program, samples, Settings())

    assert found == {"all_reduce_percent": pytest.approx(percent, abs=1e-6)}


@pytest.mark.parametrize("steps", [1, 2, 7, 100])
def test_exactly_as_many_steps_are_timed_as_asked(steps):
    scripted = Scripted(constant(0.01))

    samples = scripted.measured(steps=steps)

    assert len(samples.seconds) == steps
    assert samples.steps_per_sample == 1
    assert scripted.runs == samples.warmup_steps + steps


def test_samples_are_the_times_of_the_steps_in_order():
    scripted = Scripted(lambda i: 0.5 + 0.125 * (i % 4))

    samples = scripted.measured(steps=6)

    first = samples.warmup_steps
    assert samples.seconds == [0.5 + 0.125 * (i % 4) for i in range(first, first + 6)]


def test_tiny_steps_stay_apart_when_their_number_is_given():
    samples = Scripted(constant(1e-6)).measured(steps=3)

    assert samples.steps_per_sample == 1
    assert samples.seconds == pytest.approx(3 * [1e-6], rel=1e-3)


def test_equal_steps_are_steady_after_three():
    samples = Scripted(constant(0.1)).measured(steps=1)

    # A window of one step, then one of two, and one more before the first sample.
    assert (samples.warmup_steps, samples.steady) == (4, True)
    assert samples.warmup_s == pytest.approx(0.4)


@pytest.mark.parametrize("slow, slow_steps", [(5.0, 1), (0.1, 1), (0.1, 2)])
def test_slow_first_steps_are_not_among_the_samples(slow, slow_steps):
    samples = Scripted(slow_start(slow, slow_steps, 0.01)).measured(steps=50)

    assert samples.seconds == pytest.approx(50 * [0.01])
    assert samples.warmup_steps > slow_steps


def test_a_compiler_that_takes_its_time_is_waited_for():
    """Slower by a tenth with every window until step 31: no window before is steady."""
    samples = Scripted(lambda i: 0.01 * max(1, 10 - (i + 1).bit_length() * 2)).measured(steps=5)

    assert samples.steady
    assert samples.seconds == pytest.approx(5 * [0.01])


def test_a_step_that_gets_faster_for_seconds_is_timed_and_called_unsteady():
    samples = Scripted(lambda i: 0.9**i).measured(steps=2)

    assert not samples.steady
    assert samples.warmup_s > 2
    assert samples.warmup_steps >= 10


@pytest.mark.parametrize("factor", [0.5, 0.9, 0.99])
def test_warming_up_ends_however_fast_steps_become(factor):
    """With 0.9 all steps together take one second: two seconds of warm-up never pass."""
    scripted = Scripted(lambda i: max(0.1 * factor**i, 1e-7))

    assert scripted.measured(steps=1).warmup_steps < scripted.LIMIT


class CoolsDown(Scripted):
    """A step of 0.1 ms that takes 3 ms after a pause, and members of a group that wait 1 ms for each other."""

    count, rank, idle_since = 2, 0, 1000.0

    def run(self):
        self.now += 0.003 if self.now - self.idle_since > 0.0005 else 0.0001
        self.idle_since = self.now

    def pause(self, *_, **__):
        self.now += 0.001

    def all_gather(self, value, no_timeout=False):
        self.pause()
        return [value, value]


@pytest.mark.parametrize("settings", [{"steps": 1}, {"steps": 20}, {}])
def test_the_first_sample_is_like_the_tenth_where_a_step_is_slow_after_a_pause(monkeypatch, settings):
    scripted = CoolsDown(constant(0.0))
    monkeypatch.setattr(gc, "collect", scripted.pause)

    samples = measure(scripted.run, Settings(**settings), scripted.clock, scripted)

    assert samples.seconds[0] == pytest.approx(0.0001)
    # Nor is any sample that follows a decision of the group.
    assert max(samples.seconds) == pytest.approx(0.0001)
    assert samples.seconds[min(9, len(samples.seconds) - 1)] == pytest.approx(0.0001)


def test_a_program_that_the_suite_re_creates_gets_no_step_more_than_it_made():
    scripted = Scripted(constant(0.1))

    samples = scripted.measured(steps=3, protocol="tensorflow_layers")

    assert (samples.warmup_steps, scripted.runs) == (1, 4)


@pytest.mark.parametrize("settings", [{"steps": 5}, {}])
def test_a_clock_that_does_not_move_is_an_error(settings):
    with pytest.raises(Invalid, match="the clock did not move"):
        Scripted(constant(0.0)).measured(**settings)


def test_a_clock_that_stops_after_the_warm_up_is_an_error():
    with pytest.raises(Invalid, match=r"a step took 0.0 s; the clock did not move"):
        Scripted(slow_start(0.1, 3, 0.0)).measured(steps=4)


def test_a_clock_that_goes_backward_is_an_error():
    with pytest.raises(Invalid, match="the clock did not move"):
        Scripted(slow_start(0.1, 4, -0.05)).measured(steps=4)


def test_a_least_warm_up_is_kept():
    samples = Scripted(constant(0.1)).measured(steps=1, min_warmup_s=3.0)

    assert samples.warmup_s >= 3.0


def test_a_quiet_case_ends_after_a_quarter_of_its_time():
    samples = Scripted(constant(0.001)).measured(max_time_s=2.0)

    assert sum(samples.seconds) == pytest.approx(0.5, rel=0.25)
    assert noise_percent(samples.seconds) <= QUIET_PERCENT


def test_a_noisy_case_takes_all_of_its_time_and_little_more():
    samples = Scripted(noisy(0.001, 0.1)).measured(max_time_s=2.0)

    assert noise_percent(samples.seconds) > QUIET_PERCENT
    assert 2.0 <= sum(samples.seconds) < 2.2


@pytest.mark.parametrize("rounds", [1, 5, 30])
def test_slow_steps_are_still_timed_often_enough(rounds):
    samples = Scripted(constant(3.0)).measured(min_rounds=rounds, max_time_s=1.0)

    assert len(samples.seconds) == rounds


@pytest.mark.parametrize("seconds, steps", [(30e-6, 1), (20e-6, 1), (7e-6, 3), (1e-6, 20), (1e-7, 200)])
def test_steps_too_short_for_the_clock_share_a_sample(seconds, steps):
    scripted = Scripted(constant(seconds))

    samples = scripted.measured(max_time_s=0.004)

    # The scripted clock's own rounding may make it one more.
    assert samples.steps_per_sample in (steps, steps + 1)
    assert samples.median_s == pytest.approx(seconds, rel=1e-3)
    assert scripted.runs == samples.warmup_steps + len(samples.seconds) * samples.steps_per_sample


def test_a_step_that_fails_is_not_hidden_and_leaves_the_collector_on():
    def fail(i):
        if i == 20:
            raise KeyError("step 20")
        assert not gc.isenabled()
        return 0.1

    with pytest.raises(KeyError, match="step 20"):
        Scripted(fail).measured(steps=100)

    assert gc.isenabled()


def test_the_collector_is_on_again_after_a_measurement():
    Scripted(constant(0.1)).measured(steps=2)

    assert gc.isenabled()


def test_a_collector_that_was_off_stays_off():
    gc.disable()
    try:
        Scripted(constant(0.1)).measured(steps=2)
        assert not gc.isenabled()
    finally:
        gc.enable()


@pytest.mark.parametrize(
    "seconds, percent",
    [
        ([2.0], 0),
        ([1.0, 1.0, 1.0], 0),
        # Two blocks of one: 50 x (3 - 1) / 2.
        ([1.0, 3.0], 50),
        # Six blocks of two, medians 10 .. 12.5; the median of all is 11.25: 50 x 2.5 / 11.25.
        ([10, 10, 10.5, 10.5, 11, 11, 11.5, 11.5, 12, 12, 12.5, 12.5], 100 / 9),
        # A lone outlier in a block of three moves no median.
        ([1.0] * 17 + [100.0], 0),
    ],
)
def test_noise_is_half_the_range_of_the_medians_of_six_blocks(seconds, percent):
    assert noise_percent(seconds) == pytest.approx(percent)


@pytest.mark.parametrize("count", range(1, 40))
def test_every_sample_is_in_one_block(count):
    """One slow sample in blocks of one or two shows; all alike show nothing."""
    assert noise_percent([2.0] * count) == 0
    assert noise_percent(list(map(float, range(1, count + 1)))) <= 50 * (count - 1) / ((count + 1) / 2)
    if 2 <= count <= 11:
        assert noise_percent([1.0] * (count - 1) + [9.0]) > 0


@pytest.mark.parametrize("settings, section_s", [({"steps": 5}, 1.6), ({"min_rounds": 5, "max_time_s": 0.0}, 2.0)])
def test_a_section_holds_the_pauses_between_samples(settings, section_s):
    """A step takes 0.1 s, and so does each reading of the clock: 3 ticks a sample and one more in a loop over five,
    or in each of five loops over one."""
    clock = itertools.count()

    samples = measure(lambda: next(clock), Settings(**settings), lambda: 0.1 * next(clock))

    assert samples.seconds == pytest.approx(5 * [0.2])
    assert samples.section_s == pytest.approx(section_s)


@pytest.mark.parametrize("count", [0, 1, 2, 9])
def test_a_repeated_step_runs_so_often(count):
    calls = itertools.count()

    repeat(lambda: next(calls), count)()

    assert next(calls) == count


def test_items_count_every_replica_and_iteration():
    assert Step(run=lambda: None, batch_items=8, replicas=2, iterations=4).items == 64


def test_throughput_is_items_over_seconds():
    assert throughput(64, 0.25) == 256


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan")])
def test_a_rate_without_time_is_an_error(seconds):
    with pytest.raises(ValueError, match=r"64 items took .* the clock did not move"):
        throughput(64, seconds)


class Turns:
    """The harness of one side: asks for blocks of these sizes, and keeps what each took."""

    def __init__(self, *sizes):
        self.sizes, self.blocks = list(sizes), []

    def __call__(self, block):
        self.blocks.append(block)
        return self.sizes.pop(0) if self.sizes else 0


def test_a_side_times_a_block_when_it_is_asked_to():
    scripted, turns = Scripted(constant(0.01)), Turns(3, 5)

    samples = measure_blocks(scripted.run, Settings(), turns, scripted.clock)

    assert [len(block) for block in turns.blocks] == [1, 3, 5]
    assert turns.blocks[0] == pytest.approx([0.01])
    assert samples.seconds == pytest.approx([0.01] * 8)
    assert samples.section_s == pytest.approx(0.08)


def test_the_steps_after_a_pause_are_not_counted():
    """A step is slow, five times, after each pause."""
    scripted = Scripted(lambda i: 0.0)
    since = [99]

    def run():
        scripted.now += 0.005 if since[0] < 5 else 0.001
        since[0] += 1

    def pace(block):
        since[0] = 0
        return turns(block)

    turns = Turns(4, 4, 4)
    samples = measure_blocks(run, Settings(), pace, scripted.clock)

    assert samples.seconds == pytest.approx([0.001] * 12)


def test_several_short_steps_share_a_sample_of_a_block():
    scripted, turns = Scripted(constant(3e-6)), Turns(4)

    samples = measure_blocks(scripted.run, Settings(), turns, scripted.clock)

    assert samples.steps_per_sample == 7
    # The harness chooses the number of samples by their length.
    assert turns.blocks[0] == pytest.approx([21e-6])
    assert turns.blocks[1] == pytest.approx([3e-6] * 4)


def test_what_the_cores_do_after_the_last_block_is_no_part_of_their_use(monkeypatch):
    """The other side of a pair checks its result again, on the same cores, while this side waits to end."""
    scripted, turns = Scripted(constant(0.01)), Turns(3, 5)
    monkeypatch.setattr(sampling.neighbours, "watch", lambda cores: lambda: neighbours.Use(scripted.now, 0.0, 1.0))

    def pace(block):
        scripted.now += 50.0
        return turns(block)

    samples = measure_blocks(scripted.run, Settings(), pace, scripted.clock)

    # It has waited for a turn before each of two blocks, and once after them. The clock began at 1000 s.
    assert samples.use is not None
    assert samples.use.busy_s == pytest.approx(1100, abs=1)


def test_a_side_times_its_blocks_by_a_second_clock_and_not_its_waits(monkeypatch):
    """The second clock is twice as fast as the first, as after a patch of the first."""
    scripted, turns = Scripted(constant(0.01)), Turns(3, 5)
    monkeypatch.setattr(sampling, "second_clock", lambda: 2 * scripted.now)

    def pace(block):
        scripted.now += 50.0
        return turns(block)

    samples = measure_blocks(scripted.run, Settings(), pace, scripted.clock)

    assert samples.by_clocks_s == pytest.approx((0.08, 0.16))


def test_the_warm_up_of_a_side_is_over_before_its_first_turn():
    order, turns = [], Turns(3)

    def pace(block):
        order.append("turn")
        return turns(block)

    scripted = Scripted(constant(0.01))
    measure_blocks(scripted.run, Settings(), pace, scripted.clock, warmed_up=lambda: order.append("warmed up"))

    assert order == ["warmed up", "turn", "turn"]


def test_a_side_without_a_turn_has_no_samples():
    scripted = Scripted(constant(0.01))

    with pytest.raises(Invalid, match="the clock did not move"):
        measure_blocks(scripted.run, Settings(), Turns(), scripted.clock)


def test_the_clock_agrees_with_steps_of_known_length():
    """Steps that end by another clock, of 0.1 to 0.8 ms: a straight line of slope 1 through their medians."""
    lengths_s = [0.0001, 0.0002, 0.0004, 0.0008]

    def of_length(length_s):
        def step():
            end = time.monotonic() + length_s
            while time.monotonic() < end:
                pass

        return step

    # The shortest sample is the one that nothing delayed. Longer steps are all cut by the scheduler on a busy core.
    found_s = [min(measure(of_length(length_s), Settings(steps=200)).seconds) for length_s in lengths_s]

    mean, found = statistics.fmean(lengths_s), statistics.fmean(found_s)
    slope = sum((x - mean) * (y - found) for x, y in zip(lengths_s, found_s)) / sum((x - mean) ** 2 for x in lengths_s)
    assert slope == pytest.approx(1, abs=0.01)
    assert found - slope * mean == pytest.approx(0, abs=2e-5)

"""Replicas that agree: what one of them says, all hear; who goes is missed."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest
from suite import ROOT

from bench.cases.case import Settings
from bench.cases.errors import Lost
from bench.clock.sampling import measure
from bench.group import Hub, Member


def members(count):
    """The hub and its members, each of which is to be used in a thread of its own."""
    hub = Hub(count)
    found = [None] * count

    def connect(rank):
        found[rank] = Member(hub.place(rank))

    in_threads([lambda rank=rank: connect(rank) for rank in range(count)])
    return hub, found


def in_threads(calls):
    """What the calls return or raise, in order; all at once."""
    found = [None] * len(calls)

    def kept(index):
        try:
            found[index] = calls[index]()
        except Exception as error:  # noqa: BLE001 - the caller looks at it
            found[index] = error

    threads = [threading.Thread(target=kept, args=(index,), daemon=True) for index in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return found


def test_everyone_gets_everyone_s_value_by_rank():
    hub, group = members(3)

    first = in_threads([lambda m=m: m.all_gather(10 * m.rank) for m in group])
    second = in_threads([lambda m=m: m.all_gather({"rank": m.rank}) for m in reversed(group)])

    assert first == [[0, 10, 20]] * 3
    assert second == [[{"rank": 0}, {"rank": 1}, {"rank": 2}]] * 3
    hub.close()


def test_nobody_goes_on_before_the_last_has_come():
    hub, group = members(2)
    passed = []

    def early():
        group[0].all_gather(None)
        passed.append(time.monotonic())

    thread = threading.Thread(target=early)
    thread.start()
    time.sleep(0.3)
    assert passed == []
    assert hub.waiting_for == [1]
    group[1].all_gather(None)
    thread.join(10)
    assert len(passed) == 1
    hub.close()


def test_who_is_lost_is_told_to_the_others():
    hub, group = members(3)
    group[1].close()

    found = in_threads([lambda: group[0].all_gather(1), lambda: group[2].all_gather(1)])

    assert [str(error) for error in found] == ["replica 1 of 3 is gone"] * 2
    assert all(isinstance(error, Lost) for error in found)
    hub.close()


def test_after_one_is_lost_nobody_waits_for_the_replies_of_all():
    """A rank of a launcher finishes its case then, and would wait for as long as a case may take."""
    hub, group = members(2)
    group[1].close()

    (first,) = in_threads([lambda: group[0].all_gather(1)])
    (second,) = in_threads([lambda: group[0].finish("lost")])

    assert str(first) == "replica 1 of 2 is gone"
    assert str(second) == "the other replicas are gone: the hub of their group has closed"
    hub.close()


def test_who_ends_a_case_early_is_lost_to_the_others_and_all_hear_how_it_ended():
    hub, group = members(3)

    def middle(member):
        try:
            return member.all_gather("a vote")
        except Lost as error:
            return str(error), member.finish("let down")

    found = in_threads([lambda: middle(group[0]), lambda: group[1].finish("failed"), lambda: middle(group[2])])

    ended = ["let down", "failed", "let down"]
    assert found == [("replica 1 of 3 is gone", ended), ended, ("replica 1 of 3 is gone", ended)]
    assert in_threads([lambda m=m: m.all_gather(m.rank) for m in group]) == [[0, 1, 2]] * 3
    hub.close()


def test_a_hub_that_closes_lets_nobody_wait():
    hub, group = members(2)
    threading.Timer(0.2, hub.close).start()

    (error,) = in_threads([lambda: group[0].all_gather(1)])

    assert isinstance(error, Lost)


def test_a_stranger_is_not_let_in():
    hub = Hub(1)
    place = {**hub.place(0), "key": "00" * 16}

    with pytest.raises(Exception, match=r"digest|closed|reset"):
        Member(place)
    hub.close()


# Rank 0 runs the hub, and after each exchange waits for rank 1 in a call that holds the GIL: PyDLL's do.
HOLDS_THE_GIL = """
import ctypes, json, subprocess, sys
from bench.group import Hub, Member

OTHER = '''
import json, os, sys
from bench.group import Member
member = Member(json.loads(sys.argv[1]))
for number in range(300):
    member.all_gather(number)
    os.write(1, b".")
'''

sys.setswitchinterval(1e-6)
hub = Hub(2)
member = Member(hub.place(0))
command = [sys.executable, "-c", OTHER, json.dumps(hub.place(1))]
other = subprocess.Popen(command, stdout=subprocess.PIPE)
byte = ctypes.create_string_buffer(1)
for number in range(300):
    member.all_gather(number)
    assert ctypes.PyDLL(None).read(other.stdout.fileno(), byte, 1) == 1
print("done")
"""


def test_rank_0_may_hold_the_gil_of_the_hub_s_process_until_the_others_have_heard():
    """As TensorFlow does when it joins a cluster."""
    command = [sys.executable, "-c", HOLDS_THE_GIL]

    done = subprocess.run(command, cwd=str(ROOT), stdout=subprocess.PIPE, text=True, timeout=30)

    assert done.stdout == "done\n"


class Clock:
    """Seconds by hand."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def test_replicas_of_different_speed_take_the_same_steps():
    """Else one would wait for an exchange of gradients that never comes."""
    hub, group = members(2)

    def timed(member, step_s):
        clock = Clock()

        def run():
            clock.now += step_s

        return measure(run, Settings(max_time_s=0.05), clock, member)

    slow, quick = in_threads([lambda: timed(group[0], 0.003), lambda: timed(group[1], 0.0007)])

    assert len(slow.seconds) == len(quick.seconds) >= 5
    assert (slow.warmup_steps, slow.steps_per_sample) == (quick.warmup_steps, quick.steps_per_sample)
    hub.close()

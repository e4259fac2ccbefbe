"""Locks between processes: who compiles, who times, who has which device, and that the dead hold nothing."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any, Callable, Iterator, List

import pytest
from suite import ROOT, SMALL, Suite, alive, finished, until

from bench import locks

# Holds what `text` says from the moment on that it says so, until it is told to let go by a file.
HOLDER = """
import sys, time
from pathlib import Path
from bench import locks
folder, name = Path(sys.argv[1]), sys.argv[2]
with {text}:
    (folder / f"{{name}}.has").write_text(str(time.monotonic()))
    while not (folder / f"{{name}}.go").exists():
        time.sleep(0.01)
"""


class Holders:
    """Processes that hold locks; `name` says what each has, and since when."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: List[subprocess.Popen[bytes]] = []

    def start(self, name: str, text: str) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "LAYERBENCH_CACHE": str(self.folder)}
        script = textwrap.dedent(HOLDER).format(text=text)
        command = [sys.executable, "-c", script, str(self.folder), name]
        self.processes.append(subprocess.Popen(command, cwd=str(ROOT), env=environment))
        return self.processes[-1]

    def holds(self, name: str, text: str) -> subprocess.Popen[bytes]:
        """The same, and wait until it has it."""
        process = self.start(name, text)
        self.wait(name)
        return process

    def waits(self, name: str, text: str, queue: str = "room") -> subprocess.Popen[bytes]:
        """The same, and wait until it stands in the queue."""
        before = self.tickets(queue)
        process = self.start(name, text)
        until(lambda: self.tickets(queue) > before)
        assert not self.has(name)
        return process

    def tickets(self, queue: str) -> int:
        folder = self.folder / "locks" / f"{queue}.queue"
        return max([-1, *(int(path.name) for path in folder.iterdir())] if folder.exists() else [-1])

    def has(self, name: str) -> bool:
        return (self.folder / f"{name}.has").exists()

    def since(self, name: str) -> float:
        return float((self.folder / f"{name}.has").read_text())

    def wait(self, name: str) -> None:
        until(lambda: self.has(name) and (self.folder / f"{name}.has").read_text())

    def free(self, *names: str) -> None:
        for name in names:
            (self.folder / f"{name}.go").write_text("")


@pytest.fixture
def holders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Holders]:
    monkeypatch.setenv("LAYERBENCH_CACHE", str(tmp_path))
    made = Holders(tmp_path)
    yield made
    for process in made.processes:
        process.kill()
        process.wait()


def blocks(context: Callable[..., Any], *args: Any) -> bool:
    """Whether asking for something here, now, would have to wait."""

    class Waits(Exception):
        pass

    def refuse() -> None:
        raise Waits

    try:
        with context(*args, blocked=refuse):
            return False
    except Waits:
        return True


COMPILING, TIMING = "locks.compiling()", "locks.timing()"


@pytest.mark.parametrize(
    "held, asked, waits",
    [
        (COMPILING, COMPILING, False),
        (COMPILING, TIMING, True),
        (TIMING, COMPILING, True),
        (TIMING, TIMING, True),
        (TIMING, "locks.timing_on_device()", True),
        ("locks.timing_on_device()", COMPILING, False),
        ("locks.timing_on_device()", "locks.timing_on_device()", False),
        ("locks.timing([0])", "locks.timing([1])", False),
        ("locks.timing([0, 1])", "locks.timing([1, 2])", True),
        ("locks.timing([0])", "locks.compiling([1])", False),
        ("locks.timing([0])", "locks.compiling([0])", True),
        ("locks.timing([0])", COMPILING, True),
        ("locks.timing([0])", TIMING, True),
        ("locks.alone('cuda')", "locks.alone('cuda')", True),
        ("locks.alone('cuda')", TIMING, False),
        ("locks.alone('images')", "locks.alone('images')", True),
        ("locks.alone('images')", "locks.alone('cuda')", False),
        ("locks.any_of('ipu', 3, 4)", "locks.any_of('ipu', 1, 4)", False),
        ("locks.any_of('ipu', 3, 4)", "locks.any_of('ipu', 2, 4)", True),
    ],
)
def test_who_waits_for_whom(holders: Holders, held: str, asked: str, waits: bool) -> None:
    holders.holds("other", held)
    name, _, args = asked[len("locks.") : -1].partition("(")

    assert blocks(getattr(locks, name), *eval(f"[{args}]")) is waits


@pytest.mark.parametrize("text", [COMPILING, TIMING, "locks.any_of('ipu', 4, 4)", "locks.timing([0])"])
def test_a_holder_that_is_killed_holds_nothing(holders: Holders, text: str) -> None:
    process = holders.holds("first", text)
    queue = "ipu" if "ipu" in text else "room"
    exclusive = "locks.any_of('ipu', 1, 4)" if "ipu" in text else TIMING
    holders.waits("second", exclusive, queue)

    process.send_signal(signal.SIGKILL)

    holders.wait("second")


def test_a_file_outside_the_cache_is_held_by_one_process_until_it_dies(holders: Holders, tmp_path: Path) -> None:
    process = holders.holds("first", "locks.alone_with(folder / 'kept')")

    with open(tmp_path / "kept", "rb") as file:
        with pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        process.send_signal(signal.SIGKILL)
        fcntl.flock(file, fcntl.LOCK_EX)


def test_one_that_is_killed_in_the_queue_is_passed_over(holders: Holders) -> None:
    holders.holds("first", TIMING)
    dead = holders.waits("second", TIMING)
    holders.waits("third", COMPILING)

    dead.send_signal(signal.SIGKILL)
    dead.wait()
    holders.free("first")

    holders.wait("third")
    assert not holders.has("second")


def test_a_child_that_was_forked_keeps_nothing(holders: Holders) -> None:
    """It has inherited the open file; the holder lets go all the same."""
    forks = (
        "locks.timing():\n"
        "    child = __import__('os').fork() or time.sleep(600)\n"
        "    (folder / 'child').write_text(str(child))\n"
        "with locks.alone('x')"
    )
    holders.holds("first", forks)
    child = int((holders.folder / "child").read_text())

    try:
        assert alive(child)
        assert not blocks(locks.timing)
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_timer_is_not_starved_by_compiles_that_never_end(holders: Holders) -> None:
    holders.holds("compiles1", COMPILING)
    holders.waits("timer", TIMING)
    holders.waits("compiles2", COMPILING)

    holders.free("compiles1")
    holders.wait("timer")
    holders.free("timer")
    holders.wait("compiles2")

    assert holders.since("timer") < holders.since("compiles2")


def test_whoever_came_first_is_first(holders: Holders) -> None:
    names = ["a", "b", "c", "d"]
    holders.holds("first", TIMING)
    for name in names:
        holders.waits(name, TIMING)
    holders.free("first", *names)

    for name in names:
        holders.wait(name)

    assert sorted(names, key=holders.since) == names


def test_a_request_for_all_devices_is_not_starved_by_requests_for_one(holders: Holders) -> None:
    holders.holds("small1", "locks.any_of('ipu', 1, 4)")
    holders.waits("large", "locks.any_of('ipu', 4, 4)", "ipu")
    holders.waits("small2", "locks.any_of('ipu', 1, 4)", "ipu")

    holders.free("small1")
    holders.wait("large")
    assert not holders.has("small2")
    holders.free("large")
    holders.wait("small2")


def test_two_that_want_most_devices_do_not_wait_for_each_other(holders: Holders) -> None:
    holders.holds("first", "locks.any_of('ipu', 3, 4)")
    holders.waits("second", "locks.any_of('ipu', 3, 4)", "ipu")
    holders.waits("third", "locks.any_of('ipu', 2, 4)", "ipu")

    holders.free("first", "second", "third")

    holders.wait("second")
    holders.wait("third")


def test_a_process_that_compiles_and_asks_to_time_is_told_instead_of_waiting_for_itself(holders: Holders) -> None:
    with locks.compiling(), pytest.raises(RuntimeError, match="it would wait for itself"), locks.timing():
        pass


def test_who_times_may_compile(holders: Holders) -> None:
    with locks.timing():
        assert not blocks(locks.compiling)

    assert not blocks(locks.timing)


def test_more_devices_than_there_are_is_an_error(holders: Holders) -> None:
    with pytest.raises(ValueError, match=r"5 of 4 ipu"), locks.any_of("ipu", 5, 4):
        pass


def test_nothing_is_left_in_the_queue(holders: Holders) -> None:
    with locks.compiling():
        pass
    with locks.timing(), locks.any_of("ipu", 2, 4) as numbers:
        assert numbers == [0, 1]

    assert [path.name for path in (holders.folder / "locks").glob("*.queue/*")] == []


@pytest.mark.parametrize("text", [COMPILING, TIMING])
def test_waiting_does_not_count_against_the_time_limit_of_a_case(suite: Suite, holders: Holders, text: str) -> None:
    """Beside a compile it waits for its turn to time; beside a timed section, for its turn to compile."""
    holders.folder = suite.cache
    name = f"other{len(text)}"  # the folder is shared
    holders.holds(name, text)
    before = holders.tickets("room")

    process = suite.start(*SMALL, "--case-timeout=2")
    until(lambda: holders.tickets("room") > before and process.poll() is None)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(2.5)
    holders.free(name)

    assert finished(process).returncode == 0

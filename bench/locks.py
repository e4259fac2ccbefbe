"""Locks for compiling, timing and devices, between all runs of this user on this machine.

Cases compile in parallel and are timed alone: `compiling` takes a shared lock on the machine, `timing` an exclusive
one. Both wait in the order of arrival (a ticket lock), so compiles cannot starve a timed section, and small requests
cannot starve a large one. The locks are the kernel's (flock on files in the cache folder), which frees them when a
process dies, for whatever reason.

Order   `any_of` several devices, the machine, cores, `alone` one device: always in this order, so no deadlock
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path
from typing import Callable, Iterator, List, Sequence, Set, Tuple

from bench import cache

Blocked = Callable[[], None]
SHARED, EXCLUSIVE = fcntl.LOCK_SH, fcntl.LOCK_EX
# Seconds between two attempts of `any_of`. All other waits sleep in the kernel.
POLL_S = 0.1
# The modes in which this process holds the machine's lock, so that it does not wait for itself.
_held: Set[str] = set()


def _ignore() -> None:
    pass


@contextlib.contextmanager
def compiling(cores: Sequence[int] = (), blocked: Blocked = _ignore) -> Iterator[None]:
    """Load, compile and check, while others do the same but none is timed.

    cores     the cores that the work is bound to; empty: all cores
    blocked   is called before a wait
    """
    if _held:
        yield
        return
    used = sorted(cores) or range(os.cpu_count() or 1)
    wanted = [("room", SHARED), *((f"core{core}", SHARED) for core in used)]
    with _holding("shared"), _all_of("room", wanted, blocked):
        yield


@contextlib.contextmanager
def timing(cores: Sequence[int] = (), blocked: Blocked = _ignore) -> Iterator[None]:
    """Time by the host's clock, while nothing compiles or is timed: on the machine, or with --parallel-timing on these
    `cores`.

    Raises RuntimeError if this process holds `compiling`.
    """
    if "shared" in _held:
        raise RuntimeError("this process compiles: it would wait for itself")
    if _held:
        yield
        return
    wanted = [("room", EXCLUSIVE)]
    if cores:
        wanted = [("room", SHARED), *((f"core{core}", EXCLUSIVE) for core in sorted(cores))]
    with _holding("exclusive"), _all_of("room", wanted, blocked):
        yield


@contextlib.contextmanager
def timing_on_device(blocked: Blocked = _ignore) -> Iterator[None]:
    """Time a device that runs by itself, while others compile or do the same but none is timed by the host's clock."""
    with _all_of("room", [("room", SHARED)], blocked):
        yield


@contextlib.contextmanager
def alone(name: str, blocked: Blocked = _ignore) -> Iterator[None]:
    """Hold an exclusive lock by name."""
    with _lock(name, EXCLUSIVE, blocked):
        yield


@contextlib.contextmanager
def alone_with(file: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file, inside or outside of the cache folder. Creates the file if it is missing."""
    with _flock(file, EXCLUSIVE, _ignore):
        yield


@contextlib.contextmanager
def any_of(kind: str, wanted: int, count: int, blocked: Blocked = _ignore) -> Iterator[List[int]]:
    """Hold any `wanted` of the first `count` devices of a kind, and yield their numbers.

    Only the first in the queue takes devices, so that two large requests cannot wait for each other's devices.
    Raises ValueError if `wanted` exceeds `count`.
    """
    if wanted > count:
        raise ValueError(f"{wanted} of {count} {kind}: there are not so many")
    with contextlib.ExitStack() as stack:
        numbers: List[int] = []
        with _ticket(kind, blocked) if wanted else contextlib.nullcontext():
            while len(numbers) < wanted:
                for number in range(count):
                    if number not in numbers and len(numbers) < wanted and _take_if_free(stack, f"{kind}{number}"):
                        numbers.append(number)
                if len(numbers) < wanted:
                    blocked()
                    time.sleep(POLL_S)
        yield numbers


def take_if_free(stack: contextlib.ExitStack, names: Sequence[str]) -> bool:
    """Hold exclusive locks by name until `stack` ends, if all of them are free. Does not wait."""
    with contextlib.ExitStack() as taken:
        if all([_take_if_free(taken, name) for name in names]):
            stack.enter_context(taken.pop_all())
            return True
    return False


def _take_if_free(stack: contextlib.ExitStack, name: str) -> bool:
    try:
        stack.enter_context(_lock(name, EXCLUSIVE | fcntl.LOCK_NB, _ignore))
        return True
    except BlockingIOError:
        return False


@contextlib.contextmanager
def _holding(mode: str) -> Iterator[None]:
    _held.add(mode)
    try:
        yield
    finally:
        _held.discard(mode)


@contextlib.contextmanager
def _all_of(queue: str, wanted: Sequence[Tuple[str, int]], blocked: Blocked) -> Iterator[None]:
    """Hold several locks. Waits in a queue, which it leaves once it has all of them."""
    with contextlib.ExitStack() as stack:
        with _ticket(queue, blocked):
            for name, mode in wanted:
                stack.enter_context(_lock(name, mode, blocked))
        yield


@contextlib.contextmanager
def _ticket(queue: str, blocked: Blocked) -> Iterator[None]:
    """Wait until this process is the first of a queue. A ticket is a locked file named by a number, and a process waits
    for all lower numbers.

    A file without a lock is stale: its process has died.
    """
    folder = _folder() / f"{queue}.queue"
    folder.mkdir(exist_ok=True)
    with contextlib.ExitStack() as stack:
        with _lock(f"{queue}.tickets", EXCLUSIVE, _ignore):
            before = sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())
            ticket = folder / str(before[-1] + 1 if before else 0)
            stack.enter_context(_flock(ticket, EXCLUSIVE, _ignore))
        # The file is removed before its lock is released, because a file without a lock counts as stale.
        stack.callback(_remove, ticket)
        for number in before:
            with contextlib.suppress(FileNotFoundError), _flock(folder / str(number), SHARED, blocked, create=False):
                _remove(folder / str(number))
        yield


def _lock(name: str, mode: int, blocked: Blocked) -> contextlib.AbstractContextManager[None]:
    return _flock(_folder() / f"{name}.lock", mode, blocked)


@contextlib.contextmanager
def _flock(path: Path, mode: int, blocked: Blocked, create: bool = True) -> Iterator[None]:
    file = os.open(str(path), os.O_RDWR | (os.O_CREAT if create else 0), 0o600)
    try:
        try:
            fcntl.flock(file, mode | fcntl.LOCK_NB)
        except BlockingIOError:
            if mode & fcntl.LOCK_NB:
                raise
            blocked()
            fcntl.flock(file, mode)
        try:
            yield
        finally:
            # Closing is not enough: a process forked meanwhile has the file open as well.
            fcntl.flock(file, fcntl.LOCK_UN)
    finally:
        os.close(file)


def _remove(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        path.unlink()


def _folder() -> Path:
    path = cache.folder() / "locks"
    path.mkdir(exist_ok=True)
    return path

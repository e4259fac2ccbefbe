"""Who may compile, who may time, and who has which device: locks between all runs of this user on this machine.

Compile in parallel, time alone: `compiling` is shared, `timing` excludes it and itself. Whoever waits does so in a
queue, in the order of arrival: a timed section is not starved by compiles, nor a large request by small ones. The
locks are the kernel's (flock on files in the cache's folder), so that the dead hold nothing, however they died.

Order   devices by count (`some`), the room, cores, one device (`alone`): there is no circle, so no deadlock
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
# How often somebody who wants any few of several devices looks again; all others sleep in the kernel.
POLL_S = 0.1
# How this process holds the room: it must neither wait for itself nor take what it has.
_held: Set[str] = set()


def _unsaid() -> None:
    pass


@contextlib.contextmanager
def compiling(cores: Sequence[int] = (), blocked: Blocked = _unsaid) -> Iterator[None]:
    """Load, compile and check beside others who do, and never beside a timed section.

    cores     those that the work is bound to; none: all of them
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
def timing(cores: Sequence[int] = (), blocked: Blocked = _unsaid) -> Iterator[None]:
    """Time by the host's clock while nobody compiles or times: nobody at all, or, where the user accepts others
    beside, nobody on these `cores`."""
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
def beside(blocked: Blocked = _unsaid) -> Iterator[None]:
    """Time by a device's own clock: beside compiles and others of its kind, not beside the host's clock."""
    with _all_of("room", [("room", SHARED)], blocked):
        yield


@contextlib.contextmanager
def alone(name: str, blocked: Blocked = _unsaid) -> Iterator[None]:
    """Hold one thing by name."""
    with _lock(name, EXCLUSIVE, blocked):
        yield


@contextlib.contextmanager
def alone_with(file: Path) -> Iterator[None]:
    """Hold a file, which may lie outside the cache's folder; it is made where it is not there."""
    with _flock(file, EXCLUSIVE, _unsaid):
        yield


@contextlib.contextmanager
def some(kind: str, wanted: int, count: int, blocked: Blocked = _unsaid) -> Iterator[List[int]]:
    """Hold any `wanted` of the first `count` devices of a kind, all or none, and yield their numbers.

    Only the first in the queue collects, so that two who want many never wait for each other's.
    """
    if wanted > count:
        raise ValueError(f"{wanted} of {count} {kind}: there are not so many")
    with contextlib.ExitStack() as stack:
        held: List[int] = []
        with _turn(kind, blocked) if wanted else contextlib.nullcontext():
            while len(held) < wanted:
                for number in range(count):
                    if number not in held and len(held) < wanted and _taken(stack, f"{kind}{number}"):
                        held.append(number)
                if len(held) < wanted:
                    blocked()
                    time.sleep(POLL_S)
        yield held


def taken(stack: contextlib.ExitStack, names: Sequence[str]) -> bool:
    """Hold several things by name until `stack` ends, if nobody holds one of them; do not wait."""
    with contextlib.ExitStack() as tried:
        if all([_taken(tried, name) for name in names]):
            stack.enter_context(tried.pop_all())
            return True
    return False


def _taken(stack: contextlib.ExitStack, name: str) -> bool:
    """Take a lock that is free, until `stack` ends."""
    try:
        stack.enter_context(_lock(name, EXCLUSIVE | fcntl.LOCK_NB, _unsaid))
        return True
    except BlockingIOError:
        return False


@contextlib.contextmanager
def _holding(how: str) -> Iterator[None]:
    _held.add(how)
    try:
        yield
    finally:
        _held.discard(how)


@contextlib.contextmanager
def _all_of(queue: str, wanted: Sequence[Tuple[str, int]], blocked: Blocked) -> Iterator[None]:
    """Hold several locks; wait for them as the first of a queue, which is left once they are held."""
    with contextlib.ExitStack() as stack:
        with _turn(queue, blocked):
            for name, mode in wanted:
                stack.enter_context(_lock(name, mode, blocked))
        yield


@contextlib.contextmanager
def _turn(queue: str, blocked: Blocked) -> Iterator[None]:
    """Be the first of a queue: a ticket is a locked file with a number, and one waits for all lower numbers.

    A file that nobody holds is what a dead process left.
    """
    folder = _folder() / f"{queue}.queue"
    folder.mkdir(exist_ok=True)
    with contextlib.ExitStack() as stack:
        with _lock(f"{queue}.tickets", EXCLUSIVE, _unsaid):
            before = sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())
            ticket = folder / str(before[-1] + 1 if before else 0)
            stack.enter_context(_flock(ticket, EXCLUSIVE, _unsaid))
        # Before the lock is let go: nobody is to find a ticket that is free and not stale.
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
            # Said, not only closed: a process that was forked meanwhile has the file open as well.
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

"""Replicas of one case: each is a worker on separate cores or a separate GPU; together they give one reply."""

from __future__ import annotations

import contextlib
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

from bench.cases.case import Case, Settings
from bench.cases.errors import Unavailable
from bench.job import Pace
from bench.processes.host import Host, Rendezvous
from bench.processes.pool import Died, Pool, Reply

# After one replica fails, the others have this long to notice it. Then they are killed.
GRACE_S = 5.0


def require(case: Case, settings: Settings, chosen: Optional[List[int]], host: Host) -> None:
    """Raise Unavailable if the host has too few cores or GPUs for a case."""
    cores(case, settings, chosen, host.facts["cores"])
    environment(case, 0, host)


def cores(case: Case, settings: Settings, chosen: Optional[List[int]], available: List[int]) -> List[List[int]]:
    """The cores of each replica, from those that the user has `chosen`, else from all that are `available`.

    An empty choice binds no replica: each list is empty. Raises Unavailable if there are too few cores.
    """
    if chosen == []:
        return [[] for _ in range(case.replicas)]
    usable = chosen or available
    needed = case.replicas * settings.threads
    if needed > len(usable):
        raise Unavailable(
            f"not present: {needed} cores for {case.replicas} replicas of {settings.threads}"
            f" thread{'s' if settings.threads > 1 else ''}; there are {len(usable)} (--threads, --pin)"
        )
    assigned = usable[-needed:]
    return [assigned[rank * settings.threads : (rank + 1) * settings.threads] for rank in range(case.replicas)]


def environment(case: Case, rank: int, host: Host) -> Dict[str, str]:
    """The variables that show a replica one GPU; none without CUDA. Raises Unavailable if there are too few GPUs."""
    if case.device != "cuda":
        return {}
    gpus = host.machine.gpus()
    if case.replicas > len(gpus):
        raise Unavailable(f"not present: {case.replicas} GPUs for as many replicas; there are {len(gpus)}")
    return {"CUDA_VISIBLE_DEVICES": gpus[rank]}


def request(
    pool: Pool,
    keys: Sequence[Mapping[str, Any]],
    environments: Sequence[Mapping[str, str]],
    messages: Sequence[Mapping[str, Any]],
    timeout_s: float,
    tell: Callable[[str], None],
    pace: Optional[Pace] = None,
) -> Reply:
    """Send one message to the worker of each replica. Return the reply of rank 0 if all succeed.

    Otherwise return the reply of the replica that caused the failure, with its rank. The others are notified, and
    killed after GRACE_S. All are killed when the wait is interrupted.
    """
    hub = pool.hosts.now().hub(len(keys))
    try:
        for key, environment in zip(keys, environments):
            pool.start(key, environment, tell)
        with ThreadPoolExecutor(len(keys)) as executor:
            futures = [
                executor.submit(
                    pool.request,
                    keys[rank],
                    environments[rank],
                    {**messages[rank], "place": hub.place(rank)},
                    timeout_s,
                    tell if rank == 0 else _silent,
                    pace if rank == 0 else None,
                )
                for rank in range(len(keys))
            ]
            try:
                late = _settle(futures, hub)
            finally:
                # Also when the wait was interrupted: the threads of the executor end with their workers.
                if not all(future.done() and _succeeded(future) for future in futures):
                    hub.close()
                    _end(pool, keys)
    finally:
        hub.close()
    return _answer(futures, late)


def _silent(phase: str) -> None:
    pass


def _settle(futures: Sequence[Future[Reply]], hub: Rendezvous) -> List[int]:
    """Wait until all are done, or until GRACE_S after the first failure.

    Returns the ranks that the others waited for when that failure was noticed.
    """
    pending = set(futures)
    deadline = None
    late: List[int] = []
    while pending and (deadline is None or time.monotonic() < deadline):
        done, pending = wait(pending, 0.5, FIRST_COMPLETED)
        if deadline is None and not all(_succeeded(future) for future in done):
            deadline = time.monotonic() + GRACE_S
            late = hub.waiting_for
    return late


def _succeeded(future: Future[Reply]) -> bool:
    return future.exception() is None and future.result()["kind"] == "record"


def _answer(futures: Sequence[Future[Reply]], late: Sequence[int]) -> Reply:
    """The reply of rank 0, or the most informative failure; of equals, that of a rank the others waited for."""
    if all(_succeeded(future) for future in futures):
        return futures[0].result()
    replies: List[Tuple[Tuple[int, bool], Reply]] = []
    for rank, future in enumerate(futures):
        error = future.exception()
        if error is not None and not isinstance(error, Died):
            raise error
        reply = {"kind": "died", "text": str(error)} if error is not None else future.result()
        if reply["kind"] != "unavailable":
            reply = {**reply, "text": f"replica {rank} of {len(futures)}: {reply.get('text', '')}"}
        replies.append(((ORDER.index(reply["kind"]), rank not in late), reply))
    return min(replies, key=lambda ranked: ranked[0])[1]


# Kinds of replies, the most informative first. "died" also covers a worker that was killed because another failed.
ORDER = ("unavailable", "wrong", "error", "died", "invalid", "lost", "record")


def _end(pool: Pool, keys: Sequence[Mapping[str, Any]]) -> None:
    for key in keys:
        with contextlib.suppress(OSError):
            pool.end(key)

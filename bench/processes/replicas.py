"""Replicas of one case: a worker each, on cores or a GPU of its own, that start together and answer as one."""

from __future__ import annotations

import contextlib
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

from bench.cases.case import Case, Settings
from bench.cases.errors import Unavailable
from bench.processes.host import Host, Rendezvous
from bench.processes.pool import Died, Pool, Reply

# How long the others have to notice that one replica is gone, before they are ended.
GRACE_S = 5.0


def require(case: Case, settings: Settings, chosen: Optional[List[int]], host: Host) -> None:
    """Raise Unavailable where there are not enough cores or GPUs for a case."""
    cores(case, settings, chosen, host.facts["cores"])
    environment(case, 0, host)


def cores(case: Case, settings: Settings, chosen: Optional[List[int]], there: List[int]) -> List[List[int]]:
    """The cores of each replica, of those that were `chosen`, or else of all that are `there`; empty where none was:
    not bound.

    Raises Unavailable where there are not enough.
    """
    if chosen == []:
        return [[] for _ in range(case.replicas)]
    usable = chosen or there
    needed = case.replicas * settings.threads
    if needed > len(usable):
        raise Unavailable(
            f"not present: {needed} cores for {case.replicas} replicas of {settings.threads}"
            f" thread{'s' if settings.threads > 1 else ''}; there are {len(usable)} (--threads, --pin)"
        )
    own = usable[-needed:]
    return [own[rank * settings.threads : (rank + 1) * settings.threads] for rank in range(case.replicas)]


def environment(case: Case, rank: int, host: Host) -> Dict[str, str]:
    """What a replica sees of the GPUs: one. Raises Unavailable where there are not enough."""
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
) -> Reply:
    """Ask a worker for each replica, and return what rank 0 replies when all of them went well.

    Otherwise the reply, or Died, is that of the first that failed by itself, and names its rank. The others are
    told, and ended after GRACE_S; so are all of them when the wait is interrupted.
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
                )
                for rank in range(len(keys))
            ]
            try:
                late = _settle(futures, hub)
            finally:
                # Also when the wait was interrupted: the threads of the executor end with their workers.
                if not all(future.done() and _went_well(future) for future in futures):
                    hub.close()
                    _end(pool, keys)
    finally:
        hub.close()
    return _answer(futures, late)


def _silent(phase: str) -> None:
    pass


def _settle(futures: Sequence[Future[Reply]], hub: Rendezvous) -> List[int]:
    """Wait until all are done, or so long after one has failed; return the ranks that the others waited for then."""
    left = set(futures)
    deadline = None
    late: List[int] = []
    while left and (deadline is None or time.monotonic() < deadline):
        done, left = wait(left, 0.5, FIRST_COMPLETED)
        if deadline is None and not all(_went_well(future) for future in done):
            deadline = time.monotonic() + GRACE_S
            late = hub.waiting_for
    return late


def _went_well(future: Future[Reply]) -> bool:
    return future.exception() is None and future.result()["kind"] == "record"


def _answer(futures: Sequence[Future[Reply]], late: Sequence[int]) -> Reply:
    """The reply of rank 0, or the failure that tells most, of one that the others waited for."""
    if all(_went_well(future) for future in futures):
        return futures[0].result()
    found: List[Tuple[Tuple[int, bool], Reply]] = []
    for rank, future in enumerate(futures):
        error = future.exception()
        if error is not None and not isinstance(error, Died):
            raise error
        reply = {"kind": "died", "text": str(error)} if error is not None else future.result()
        if reply["kind"] != "unavailable":
            reply = {**reply, "text": f"replica {rank} of {len(futures)}: {reply.get('text', '')}"}
        found.append(((ORDER.index(reply["kind"]), rank not in late), reply))
    return min(found, key=lambda each: each[0])[1]


# What tells more stands first. A worker that was ended for another's sake has died as well.
ORDER = ("unavailable", "wrong", "error", "died", "lost", "record")


def _end(pool: Pool, keys: Sequence[Mapping[str, Any]]) -> None:
    for key in keys:
        with contextlib.suppress(OSError):
            pool.end(key)

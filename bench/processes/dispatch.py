"""Sends a case to the workers that run it: one, or one for each replica."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence

from bench.cases.case import Case, Settings
from bench.cases.errors import Unavailable
from bench.devices import load as load_device
from bench.job import Pace, silent
from bench.processes import replicas
from bench.processes.pool import Died, Pool, Reply


def send(
    pool: Pool,
    case: Case,
    settings: Settings,
    message: Mapping[str, Any],
    timeout_s: float,
    pinned: Optional[Sequence[int]] = None,
    tell: Callable[[str], None] = silent,
    pace: Optional[Pace] = None,
) -> Reply:
    """Send a message to the workers of a case and return the reply. A worker that ended is a reply as well.

    pinned   the cores that the user has chosen; None: none were chosen; empty: no worker is bound
    pace     the turns of the case, if it is one side of a pair
    Raises HostLost.
    """
    environment: Dict[str, str] = pool.hosts.now().machine.environment(case.backend, settings.plain(), case.device)
    try:
        if case.replicas > 1 and not load_device(case.device).replicates:
            return _to_replicas(pool, case, settings, message, timeout_s, pinned, tell, pace, environment)
        return pool.request(key(case.backend, case.device, settings), environment, message, timeout_s, tell, pace)
    except Unavailable as error:
        return {"kind": "unavailable", "text": str(error)}
    except Died as error:
        return {"kind": "died", "text": str(error)}


# A library measures the roofline in this time at most.
CALIBRATION_TIMEOUT_S = 600.0


def calibrated(
    pool: Pool, case: Case, settings: Settings, timeout_s: float, tell: Callable[[str], None]
) -> Dict[str, Any]:
    """The calibration of the pool's host for a case. Libraries that have not measured it yet do that first.

    timeout_s   the longest time that a case may take; a library may take longer
    """
    machine = pool.hosts.now().machine
    where = (case.device, case.precision, settings.threads, settings.cores)
    for library in machine.uncalibrated(*where):
        what = dict(zip(("library", "device", "precision", "threads", "cores"), (library, *where)))
        # The roofline has no rates of a library that fails. Cases of that library report the error.
        _calibrate(pool, what, settings, max(timeout_s, CALIBRATION_TIMEOUT_S), tell)
    return dict(machine.known_calibration(*where))


def _calibrate(
    pool: Pool, what: Mapping[str, Any], settings: Settings, timeout_s: float, tell: Callable[[str], None]
) -> Reply:
    """Let a library measure the roofline, in a process of its own."""
    environment = pool.hosts.now().machine.environment(what["library"], settings.plain(), what["device"])
    own = {**key("calibration", what["device"], settings), "compile_cores": []}
    try:
        return pool.request(own, environment, {"do": "calibrate", "what": what}, timeout_s, tell)
    except Died as error:
        return {"kind": "died", "text": str(error)}
    finally:
        pool.end(own)


def key(name: str, device: str, settings: Settings) -> Dict[str, Any]:
    """The facts by which the pool finds a worker that can be reused."""
    return {
        "name": name,
        "device": device,
        "threads": settings.threads,
        "cores": settings.cores,
        "compile_cores": settings.compile_cores,
    }


def _to_replicas(
    pool: Pool,
    case: Case,
    settings: Settings,
    message: Mapping[str, Any],
    timeout_s: float,
    pinned: Optional[Sequence[int]],
    tell: Callable[[str], None],
    pace: Optional[Pace],
    environment: Mapping[str, str],
) -> Reply:
    """Send a message to one worker for each replica. Raises Unavailable if there are not enough cores or GPUs."""
    host = pool.hosts.now()
    chosen: Optional[List[int]] = None if pinned is None else list(pinned)
    by_rank = [
        replace(settings, cores=cores, compile_cores=[])
        for cores in replicas.cores(case, settings, chosen, host.facts["cores"])
    ]
    keys = [key(case.backend, case.device, of_replica) for of_replica in by_rank]
    return replicas.request(
        pool,
        [{**of_rank, "rank": rank, "of": case.replicas} for rank, of_rank in enumerate(keys)],
        [{**environment, **replicas.environment(case, rank, host)} for rank in range(case.replicas)],
        [{**message, "settings": of_replica.plain()} for of_replica in by_rank],
        timeout_s,
        tell,
        pace,
    )

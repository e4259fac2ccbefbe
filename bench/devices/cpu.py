"""The CPU of this machine."""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import re
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence

from bench import lease as locks
from bench.devices import _kernels
from bench.precision import PRECISIONS


def absent() -> Optional[str]:
    return None


@contextlib.contextmanager
def lease(cores: Sequence[int] = ()) -> Iterator[None]:
    """Hold the CPU against every other run of this user: two cases timed at once measure each other."""
    with locks.timing(cores):
        yield


def describe() -> Dict[str, Any]:
    return {"model": _model(), "cores": len(usable_cores()), "machine": platform.machine()}


def peak(precision: str, threads: int) -> Dict[str, Any]:
    try:
        return _kernels.with_torch("cpu", PRECISIONS[precision].compute, threads)
    except (ImportError, OSError):  # not installed, or not for this machine
        return _kernels.with_numpy()


@functools.lru_cache(maxsize=None)
def usable_cores() -> List[int]:
    """One logical CPU of each physical core that this process may use."""
    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    seen, cores = set(), []
    for cpu in allowed:
        siblings = _siblings(cpu)
        if siblings not in seen:
            seen.add(siblings)
            cores.append(cpu)
    return cores


def default_threads(usable: Sequence[int]) -> int:
    """All physical cores, but one of two: on two shared cores a second spinning thread once made a GRU
    step 250 times slower, and the harness needs a core as well."""
    return 1 if len(usable) <= 2 else len(usable)


def default_cores(threads: int, usable: List[int]) -> List[int]:
    """The cores that a worker is bound to: the last ones, since the first serves most interrupts.
    None when every core is used anyway."""
    return usable[-threads:] if threads < len(usable) else []


def bind(cores: Sequence[int]) -> None:
    """Bind every thread of this process to some cores; new ones inherit it."""
    for task in os.listdir("/proc/self/task") if hasattr(os, "sched_setaffinity") else ():
        with contextlib.suppress(OSError):  # it has ended
            os.sched_setaffinity(int(task), cores)


def _siblings(cpu: int) -> str:
    try:
        return Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text().strip()
    except OSError:
        return str(cpu)


def _model() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found.group(1).strip() if found else platform.processor() or platform.machine()

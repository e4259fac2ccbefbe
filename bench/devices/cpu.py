"""The CPU of this machine."""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import re
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, Optional, Sequence, Set

from bench import locks, quota

# An x86 core's highest flops per cycle, by flag in /proc/cpuinfo: two fused multiply-adds a cycle on vectors of 8 or
# 16 numbers (fp32) or 32 (fp16, pairs of bf16), or AMX's tile of 16 x 16 x 32 in 16 cycles.
# Source: Intel 64 and IA-32 Architectures Optimization Reference Manual, 2.1 and 20; AMD's cores have no more.
_ALL = ("float32", "float16", "bfloat16")
FLOPS_PER_CYCLE = (
    ("fma", _ALL, 32),
    ("avx512f", _ALL, 64),
    ("avx512_fp16", ("float16",), 128),
    ("avx512_bf16", ("bfloat16",), 128),
    ("amx_bf16", ("bfloat16",), 1024),
    ("amx_fp16", ("float16",), 1024),
)
# Processors, by vendor and family, that take two cycles for 64 bytes of a vector: Zen 4.
# Source: AMD, Software Optimization Guide for the Zen 4 Microarchitecture (57647), 2.11.
HALF_VECTORS = {("AuthenticAMD", "25")}
# What tells one processor from another in /proc/cpuinfo, and how it is written: of x86, then of Arm.
NUMBERS = {
    "cpu family": "family",
    "model": "model",
    "stepping": "stepping",
    "CPU implementer": "implementer",
    "CPU variant": "variant",
    "CPU part": "part",
    "CPU revision": "revision",
}
# Two loads and a store of 64 bytes, in the first cache.
BYTES_PER_CYCLE = 192
# Where the clock cannot be measured: the highest that is sold.
HIGHEST_CLOCK_HZ = 6.2e9
# A measured clock may rise while a case is timed, and a library leaves out the products with padding, which count as
# FLOP: a padded 3x3 convolution of 14x14 pixels reached 34 a cycle on Zen 4, of which 31 were computed.
CLOCK_MARGIN = 1.5


def absent() -> Optional[str]:
    return None


@contextlib.contextmanager
def lease(cores: Sequence[int] = ()) -> Iterator[None]:
    """Hold the CPU: no other run of this user times or compiles, because cases that run at once disturb each other."""
    with locks.timing(cores):
        yield


def describe() -> Dict[str, Any]:
    return {
        "model": _model(),
        "cores": len(usable_cores()),
        "machine": platform.machine(),
        "quota": quota.cores(),
    }


def limit(dtype: str, threads: int, clock_hz: Optional[float]) -> Optional[Dict[str, float]]:
    """The FLOP and bytes per second that `threads` cores cannot exceed; None: the processor is unknown.

    clock_hz   the highest clock that was measured; None: unknown, and the highest of any processor on the market counts
    """
    flags = set(cpuinfo("flags").split())
    if "fma" not in flags:
        return None
    per_cycle = max(flops for flag, types, flops in FLOPS_PER_CYCLE if flag in flags and dtype in types)
    if "avx512f" in flags and (cpuinfo("vendor_id"), cpuinfo("cpu family")) in HALF_VECTORS:
        per_cycle //= 2
    hz = clock_hz * CLOCK_MARGIN if clock_hz else HIGHEST_CLOCK_HZ
    return {"flops": threads * per_cycle * hz, "bytes": threads * BYTES_PER_CYCLE * hz}


@functools.lru_cache(maxsize=None)
def usable_cores() -> List[int]:
    """One logical CPU of each physical core that this process may use; with a quota of CPU time, as many of the last
    as it can keep busy."""
    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    first_of: Dict[str, int] = {}
    for cpu in allowed:
        first_of.setdefault(_siblings(cpu), cpu)
    cores, granted = list(first_of.values()), quota.cores()
    return cores if granted is None else cores[-max(1, int(granted)) :]


def default_threads(usable: Sequence[int]) -> int:
    """All physical cores, but one core of two: the harness needs a core, and on two shared cores a second spinning
    thread once made a GRU step 250 times slower."""
    return 1 if len(usable) <= 2 else len(usable)


def default_cores(threads: int, usable: List[int]) -> List[int]:
    """The cores that a worker is bound to: the last ones, because the first serves most interrupts. Empty, which binds
    to none, if the worker uses every core."""
    return usable[-threads:] if threads < len(usable) else []


def bind(cores: Sequence[int]) -> None:
    """Bind every thread of this process to these cores. New threads inherit it."""
    for thread in threads():
        with contextlib.suppress(OSError):  # the thread has ended
            os.sched_setaffinity(thread, cores)


def threads() -> List[int]:
    """The threads of this process, by the kernel's numbers; none where they cannot be bound."""
    return [int(name) for name in os.listdir("/proc/self/task")] if hasattr(os, "sched_setaffinity") else []


def elsewhere(cores: Sequence[int], threads: Iterable[int]) -> List[int]:
    """The cores, other than these, on which some threads of this process may run."""
    others: Set[int] = set()
    for thread in threads:
        with contextlib.suppress(OSError):  # the thread has ended
            others |= os.sched_getaffinity(thread) - set(cores)
    return sorted(others)


def _siblings(cpu: int) -> str:
    try:
        return Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text().strip()
    except OSError:
        return str(cpu)


def _model() -> str:
    """The name of the processor and its numbers. The name alone does not tell: hypervisors call AMD's Zen 1, 4 and 5
    "AMD EPYC", and may show a microcode of their own."""
    name = cpuinfo("model name") or platform.processor() or platform.machine()
    numbers = [f"{told} {cpuinfo(key)}" for key, told in NUMBERS.items() if cpuinfo(key)]
    return f"{name} ({', '.join(numbers)})" if numbers else name


def cpuinfo(name: str) -> str:
    """The first value of a name in /proc/cpuinfo; empty if it has none."""
    try:
        line = re.search(rf"^{name}\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        line = None
    return line.group(1).strip() if line else ""

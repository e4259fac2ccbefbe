"""Resident memory of this process, from the kernel (Linux); None where it cannot be had."""

from __future__ import annotations

import contextlib
import ctypes
import gc
from pathlib import Path
from typing import Optional


def floor_bytes() -> Optional[int]:
    """What this process holds before a case is compiled, once what earlier cases have freed is given back."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # only glibc has it
        ctypes.CDLL(None).malloc_trim(0)
    return resident_bytes()


def forget_peak() -> bool:
    """Let the kernel measure the peak from here; False: it does not, and its peak is that of the whole process."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
        return True
    return False


def peak_bytes() -> Optional[int]:
    return _status_bytes("VmHWM")


def resident_bytes() -> Optional[int]:
    return _status_bytes("VmRSS")


def _status_bytes(name: str) -> Optional[int]:
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith(f"{name}:")).split()[1])
    return None

"""The clock of a core, measured: what the kernel says of it is a constant in virtual machines.

A chain of 32-bit multiplications, each of which needs the last one's result, takes three cycles a link on every x86
core since 2008, whatever else the core can do at once
(latency of IMUL r32, r32 in Intel's and AMD's optimization guides).
"""

from __future__ import annotations

import ctypes
import mmap
import platform
from time import perf_counter
from typing import Callable, Optional

CYCLES_PER_LINK = 3
LINKS = 16
# About a millisecond.
LOOPS = 60_000
ROUNDS = 5

# uint64_t count in rdi: mov eax, 3; then, until count is 0: 16 x imul eax, eax; dec rdi; jnz; at last ret.
_BODY = LINKS * b"\x0f\xaf\xc0" + b"\x48\xff\xcf"
_CODE = b"\xb8\x03\x00\x00\x00" + _BODY + b"\x75" + bytes([256 - len(_BODY) - 2]) + b"\xc3"


def hz() -> Optional[float]:
    """Cycles per second of the core that this thread runs on, the highest of a few rounds; None where it is not x86 or
    the system lets no process run such code."""
    if platform.machine() not in ("x86_64", "AMD64") or platform.system() != "Linux":
        return None
    try:
        page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    except OSError:
        return None
    page.write(_CODE)
    chain = ctypes.CFUNCTYPE(None, ctypes.c_uint64)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
    return max(_round(chain) for _ in range(ROUNDS))


def _round(chain: Callable[[int], None]) -> float:
    start = perf_counter()
    chain(LOOPS)
    return LOOPS * LINKS * CYCLES_PER_LINK / (perf_counter() - start)

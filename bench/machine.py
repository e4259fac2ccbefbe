"""Facts of this machine and of the installed libraries that change a rate. A baseline has them in its records."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any, Dict, Optional, Sequence

from bench.devices import cpu

GOVERNORS = "cpu[0-9]*/cpufreq/scaling_governor"


@functools.lru_cache(maxsize=None)
def facts() -> Dict[str, Any]:
    """The CPU, whatever device computes, and what else of the machine changes a rate; None: not known."""
    described = cpu.describe()
    return {
        "cpu": described["model"],
        "microcode": cpu.cpuinfo("microcode") or None,
        "cores": described["cores"],
        "kernel": platform.release(),
        "governor": governor(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
    }


def governor(folder: Path = Path("/sys/devices/system/cpu")) -> Optional[str]:
    """The names of the governors of the cores' clocks, each once; None: the kernel shows none."""
    names = set()
    for path in folder.glob(GOVERNORS):
        with contextlib.suppress(OSError):
            names.add(path.read_text().strip())
    return ",".join(sorted(names)) or None


@functools.lru_cache(maxsize=None)
def _version(distribution: str) -> Optional[str]:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(distribution)
    return None


def libraries(distributions: Sequence[str]) -> Dict[str, str]:
    """The versions of those of these distributions that are installed, and of numpy. Nothing is loaded."""
    versions = {name: _version(name) for name in ("numpy", *distributions)}
    return {name: version for name, version in versions.items() if version is not None}

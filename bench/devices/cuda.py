"""The first CUDA GPU that this process sees."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from typing import Any, Dict, Iterator, List, Optional

from bench import cache
from bench.devices import _kernels
from bench.precision import PRECISIONS


def absent() -> Optional[str]:
    return None if _gpus() else "no CUDA device; nvidia-smi finds none"


@contextlib.contextmanager
def lease() -> Iterator[None]:
    """Hold the GPU, and the CPU, whose clock and launches a step's time holds."""
    with cache.lock("cpu"), cache.lock("cuda0"):
        yield


def describe() -> Dict[str, Any]:
    name, driver, memory = _gpus()[0]
    return {"model": name, "driver": driver, "memory": memory, "count": len(_gpus())}


def peak(precision: str, threads: int) -> Dict[str, Any]:
    return _kernels.with_torch("cuda", PRECISIONS[precision].compute, threads)


def _gpus() -> List[List[str]]:
    if shutil.which("nvidia-smi") is None:
        return []
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    found = subprocess.run(query, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=60)
    if found.returncode != 0:
        return []
    return [[field.strip() for field in line.split(",")] for line in found.stdout.splitlines() if line.strip()]

"""The first CUDA GPU that this process sees."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from typing import Any, Dict, Iterator, List, Optional, Sequence

from bench import locks


def absent() -> Optional[str]:
    return None if _gpus() else "no CUDA device; nvidia-smi finds none"


@contextlib.contextmanager
def lease(cores: Sequence[int] = ()) -> Iterator[None]:
    """Hold the GPU and the CPU: the CPU launches the kernels, and its clock times the steps."""
    with locks.timing(cores), locks.alone("cuda"):
        yield


def describe() -> Dict[str, Any]:
    name, driver, memory = _gpus()[0]
    return {"model": name, "driver": driver, "memory": memory, "count": len(_gpus())}


def visible() -> List[str]:
    """The GPUs of this process, in the notation of CUDA_VISIBLE_DEVICES."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name for name in named.split(",") if name.strip()]
    return [str(index) for index in range(len(_gpus()))]


def _gpus() -> List[List[str]]:
    if shutil.which("nvidia-smi") is None:
        return []
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    done = subprocess.run(query, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=60)
    if done.returncode != 0:
        return []
    return [[field.strip() for field in line.split(",")] for line in done.stdout.splitlines() if line.strip()]

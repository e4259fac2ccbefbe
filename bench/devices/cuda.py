"""The first CUDA GPU that this process sees."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from typing import Any, Dict, Iterator, List, Optional, Sequence

from bench import locks

# The facts of a GPU, and their names in nvidia-smi. An administrator may lower the last one.
FACTS = {
    "model": "name",
    "driver": "driver_version",
    "memory": "memory.total",
    "max_clock": "clocks.max.sm",
    "power_limit": "power.limit",
}
# Distributions with the kernels that frameworks run on a GPU.
LIBRARIES = ("nvidia-cudnn-cu12", "nvidia-cudnn-cu13", "nvidia-cublas-cu12", "nvidia-cublas")


def absent() -> Optional[str]:
    return None if _gpus() else "no CUDA device; nvidia-smi finds none"


@contextlib.contextmanager
def lease(cores: Sequence[int] = ()) -> Iterator[None]:
    """Hold the GPU and the CPU: the CPU launches the kernels, and its clock times the steps."""
    with locks.timing(cores), locks.alone("cuda"):
        yield


def describe() -> Dict[str, Any]:
    gpus = _gpus()
    return {**dict(zip(FACTS, gpus[0])), "count": len(gpus)}


def visible() -> List[str]:
    """The GPUs of this process, in the notation of CUDA_VISIBLE_DEVICES."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name for name in named.split(",") if name.strip()]
    return [str(index) for index in range(len(_gpus()))]


def _gpus() -> List[List[str]]:
    if shutil.which("nvidia-smi") is None:
        return []
    query = ["nvidia-smi", f"--query-gpu={','.join(FACTS.values())}", "--format=csv,noheader"]
    done = subprocess.run(query, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=60)
    if done.returncode != 0:
        return []
    return [[field.strip() for field in line.split(",")] for line in done.stdout.splitlines() if line.strip()]

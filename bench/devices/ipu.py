"""Graphcore IPUs. No backend of this suite runs on them yet: every case skips and says so."""

from __future__ import annotations

import contextlib
import os
from typing import Any, Dict, Iterator, Optional


def absent() -> Optional[str]:
    return None if os.environ.get("POPLAR_SDK_ENABLED") else "no IPU; POPLAR_SDK_ENABLED is not set"


@contextlib.contextmanager
def lease() -> Iterator[None]:
    yield


def describe() -> Dict[str, Any]:
    return {"model": "IPU", "sdk": os.environ.get("POPLAR_SDK_ENABLED", "")}


def peak(precision: str, threads: int) -> Dict[str, Any]:
    raise ValueError("the peak of an IPU is not measured")

"""A slow-down that is put into the steps of one side, so that it is known what a comparison sees.

It comes from a variable of the environment of the worker: neither the harness nor the clock knows of it.
"""

from __future__ import annotations

import os
from time import perf_counter
from typing import Callable

VARIABLE = "LAYERBENCH_SLOWDOWN_PERCENT"


def slowed(run: Callable[[], None]) -> Callable[[], None]:
    """A version of `run` that computes on until it has taken longer by the percentage; without one, `run` itself."""
    percent = float(os.environ.get(VARIABLE) or 0)
    if not percent:
        return run

    def slowed() -> None:
        start = perf_counter()
        run()
        end = perf_counter()
        end += (end - start) * percent / 100
        while perf_counter() < end:
            pass

    return slowed

"""What a process does before the clock: it starts, imports a framework, compiles, and takes its first two steps."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Any, Dict, Iterator, Optional

from bench import backends
from bench.cases.errors import Broken
from bench.clock import memory
from bench.job import Job
from bench.program import Program

# The column of the start in /proc/self/stat, in ticks since the system started, behind the name of the program.
STARTED = 19

# Seconds from the creation of this worker until it was ready; None: it has run a case, or this is no worker.
_ready_after_s: Optional[float] = None


def ready() -> None:
    """Note that this worker can take its first request now."""
    global _ready_after_s
    _ready_after_s = age_s()


def age_s() -> Optional[float]:
    """Seconds since this process was created, to a hundredth, from the kernel (Linux); None: not known."""
    with contextlib.suppress(OSError, IndexError, ValueError, AttributeError):
        columns = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        started_s = int(columns[STARTED]) / os.sysconf("SC_CLK_TCK")
        return time.clock_gettime(time.CLOCK_BOOTTIME) - started_s
    return None


@contextlib.contextmanager
def timing(job: Job, name: str) -> Iterator[None]:
    """Note in a job how long the block takes, as this field of the record."""
    began_s = time.perf_counter()
    yield
    job.took[name] = time.perf_counter() - began_s


def imported(job: Job, engine: backends.Backend) -> str:
    """The version of a framework, which is loaded. Raises Broken if it does not load."""
    global _ready_after_s
    started_s, _ready_after_s = _ready_after_s, None
    try:
        with timing(job, "import_s"):
            version = engine.version()
    except ImportError as error:
        raise Broken(f"{job.case.backend} is installed and does not load: {error}") from None
    job.took["process_start_s"] = started_s
    if started_s is None:
        # An earlier case of this process may have imported it.
        job.took["import_s"] = None
    return version


def fields(job: Job, program: Program) -> Dict[str, Any]:
    """The fields of a record that say what came before the clock. A program that has run once runs once more."""
    if len(program.first_steps_s) == 1:
        program.run_noted()
    # A program that has never run, as those of some SDKs, has no inputs yet.
    first_s, second_s = program.first_steps_s or (None, None)
    return {
        **job.took,
        "first_step_s": first_s,
        "second_step_s": second_s,
        "memory_floor_bytes": job.memory_floor_bytes,
        "memory_loaded_bytes": memory.resident_bytes(),
    }

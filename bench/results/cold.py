"""The cold path: what a process spends before its second step, with empty and with filled caches of the framework."""

from __future__ import annotations

import statistics
from typing import Any, Dict, List, Mapping, Optional, Sequence

# The phases of a process, in order, by the fields of a record. The first step is a part of `compile_s`.
PHASES = ("process_start_s", "import_s", "graph_s", "weights_s", "compile_s", "second_step_s")
MEMORY = ("memory_floor_bytes", "memory_loaded_bytes")
FIELDS = (*PHASES, "first_step_s", *MEMORY)
COLD, WARM = "cold", "warm"
CACHES = (COLD, WARM)

# What one process reported, by field; None: not known.
Process = Mapping[str, Optional[float]]


def total_s(process: Process) -> Optional[float]:
    """Seconds from the start of a process to the end of its first step; None if a part is not known."""
    parts = [process[name] for name in PHASES[:-1]]
    return None if None in parts else sum(part for part in parts if part is not None)


def known(processes: Sequence[Process], name: str) -> List[float]:
    """The values of a field, or of `total_s`, in the processes that know it."""
    values = [total_s(process) if name == "total_s" else process[name] for process in processes]
    return [value for value in values if value is not None]


def summary(processes: Sequence[Process], name: str) -> Dict[str, Any]:
    """The median and range of a field, or of `total_s`; empty if no process knows it."""
    values = known(processes, name)
    if not values:
        return {}
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}

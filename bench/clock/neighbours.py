"""What other processes, and other machines on the same host, took of a case's cores while it was timed.

The kernel counts the busy time of each core and the time that a hypervisor gave to others (steal), in hundredths of a
second; what this process did not use itself was somebody else's.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Callable, List, Optional, Sequence, Tuple

STAT = Path("/proc/stat")
# More than this, and the machine was disturbed. Below, the kernel's count of a quarter of a second is too coarse.
MOST_PERCENT = 10.0
# Columns of a line of /proc/stat: user, nice, system, (idle, iowait,) irq, softirq, steal.
STEAL = 8
BUSY = (1, 2, 3, 6, 7, STEAL)


def watch(cores: List[int]) -> Callable[[], Optional[float]]:
    """Return a function that says what share of the cores, in percent, others have had since; None: it is not known.

    cores   those of the case; none: all of the machine
    """
    share = _share(cores, BUSY, time.process_time)
    return lambda: share()[0]


def steal(cores: List[int]) -> Callable[[], Tuple[Optional[float], float]]:
    """Return a function that says what share of the cores, in percent, a hypervisor has given to others since; None: it
    is not known; and the seconds since."""
    return _share(cores, (STEAL,), lambda: 0.0)


def _share(
    cores: List[int], columns: Sequence[int], own: Callable[[], float]
) -> Callable[[], Tuple[Optional[float], float]]:
    """Return a function that gives these columns' share of the cores' time since, in percent, without this process's
    `own` seconds; and the seconds since."""
    counted_s, own_s, start_s = _counted_s(cores, columns), own(), time.monotonic()

    def share() -> Tuple[Optional[float], float]:
        now_s, passed_s = _counted_s(cores, columns), time.monotonic() - start_s
        if counted_s is None or now_s is None or passed_s <= 0:
            return None, passed_s
        others_s = now_s - counted_s - (own() - own_s)
        return max(0.0, 100 * others_s / (passed_s * (len(cores) or os.cpu_count() or 1))), passed_s

    return share


def _counted_s(cores: List[int], columns: Sequence[int]) -> Optional[float]:
    """Seconds that the cores spent, since the system started, in what these columns count."""
    names = {f"cpu{core}" for core in cores} or {"cpu"}
    try:
        lines = [line.split() for line in STAT.read_text().splitlines()]
    except OSError:
        return None
    found = [sum(int(line[c]) for c in columns) for line in lines if line and line[0] in names and len(line) > STEAL]
    return sum(found) / os.sysconf("SC_CLK_TCK") if len(found) == len(names) else None

"""What other processes, and other machines on the same host, took of a case's cores while it was timed.

The kernel counts the busy time of each core and the time that a hypervisor gave to others (steal), in hundredths of a
second; what this process did not use itself was somebody else's.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Callable, List, Optional

STAT = Path("/proc/stat")
# More than this, and the machine was disturbed. Below, the kernel's count of a quarter of a second is too coarse.
MOST_PERCENT = 10.0
# Columns of a line of /proc/stat: user, nice, system, (idle, iowait,) irq, softirq, steal.
BUSY = (1, 2, 3, 6, 7, 8)


def watch(cores: List[int]) -> Callable[[], Optional[float]]:
    """Return a function that says what share of the cores, in percent, others have had since; None: it is not known.

    cores   those of the case; none: all of the machine
    """
    busy_s, own_s, start_s = _busy_s(cores), time.process_time(), time.monotonic()

    def share() -> Optional[float]:
        now_s = _busy_s(cores)
        if busy_s is None or now_s is None:
            return None
        others_s = now_s - busy_s - (time.process_time() - own_s)
        passed_s = (time.monotonic() - start_s) * (len(cores) or os.cpu_count() or 1)
        return max(0.0, 100 * others_s / passed_s) if passed_s > 0 else None

    return share


def _busy_s(cores: List[int]) -> Optional[float]:
    """Seconds that the cores were busy or stolen since the system started."""
    names = {f"cpu{core}" for core in cores} or {"cpu"}
    try:
        lines = [line.split() for line in STAT.read_text().splitlines()]
    except OSError:
        return None
    found = [sum(int(line[column]) for column in BUSY) for line in lines if line and line[0] in names and len(line) > 8]
    return sum(found) / os.sysconf("SC_CLK_TCK") if len(found) == len(names) else None

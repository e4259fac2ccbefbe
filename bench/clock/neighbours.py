"""What other processes, and other machines on the same host, took of a case's cores while it was timed.

The kernel counts the busy time of each core and the time that a hypervisor gave to others (steal), in hundredths of a
second; what this process did not use itself was somebody else's.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Callable, List, NamedTuple, Optional

STAT = Path("/proc/stat")
# More than this, and the machine was disturbed. Below, the kernel's count of a quarter of a second is too coarse.
MOST_PERCENT = 10.0
# Columns of a line of /proc/stat: user, nice, system, (idle, iowait,) irq, softirq, steal.
BUSY = (1, 2, 3, 6, 7, 8)


class Use(NamedTuple):
    """What became of the time of some cores, in seconds of one core.

    busy_s     computing, for anybody, or stolen by the hypervisor
    own_s      computing for this process
    passed_s   all of it
    """

    busy_s: float
    own_s: float
    passed_s: float


def watch(cores: List[int]) -> Callable[[], Optional[Use]]:
    """Return a function that says how the cores have been used since; None: it is not known.

    cores   those of the case; none: all of the machine
    """
    busy_s, own_s, start_s = _busy_s(cores), time.process_time(), time.monotonic()

    def use() -> Optional[Use]:
        now_s = _busy_s(cores)
        passed_s = (time.monotonic() - start_s) * (len(cores) or os.cpu_count() or 1)
        if busy_s is None or now_s is None or passed_s <= 0:
            return None
        return Use(now_s - busy_s, time.process_time() - own_s, passed_s)

    return use


def others_percent(use: Optional[Use], known_s: float = 0.0) -> Optional[float]:
    """The share of the cores, in percent, that others than this process had; None: it is not known.

    known_s   seconds of another process that are no disturbance: the other side of a pair
    """
    return None if use is None else max(0.0, 100 * (use.busy_s - use.own_s - known_s) / use.passed_s)


def _busy_s(cores: List[int]) -> Optional[float]:
    """Seconds that the cores were busy or stolen since the system started."""
    names = {f"cpu{core}" for core in cores} or {"cpu"}
    try:
        lines = [line.split() for line in STAT.read_text().splitlines()]
    except OSError:
        return None
    found = [sum(int(line[column]) for column in BUSY) for line in lines if line and line[0] in names and len(line) > 8]
    return sum(found) / os.sysconf("SC_CLK_TCK") if len(found) == len(names) else None

"""What other processes, and other machines on the same host, took of a case's cores while it was timed.

The kernel counts the busy time of each core and the time that a hypervisor gave to others (steal), in hundredths of a
second; what this process did not use itself was somebody else's.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Callable, List, NamedTuple, Optional, Sequence, Tuple

STAT = Path("/proc/stat")
# More than this, and the machine was disturbed. Below, the kernel's count of a quarter of a second is too coarse.
MOST_PERCENT = 10.0
# Columns of a line of /proc/stat: user, nice, system, (idle, iowait,) irq, softirq, steal.
STEAL = 8
BUSY = (1, 2, 3, 6, 7, STEAL)


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
    busy_s, own_s, start_s = _counted_s(cores, BUSY), time.process_time(), time.monotonic()

    def use() -> Optional[Use]:
        now_s = _counted_s(cores, BUSY)
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


def steal(cores: List[int]) -> Callable[[], Tuple[Optional[float], float]]:
    """Return a function that says what share of the cores, in percent, a hypervisor has given to others since; None: it
    is not known; and the seconds since."""
    stolen_s, start_s = _counted_s(cores, (STEAL,)), time.monotonic()

    def share() -> Tuple[Optional[float], float]:
        now_s, passed_s = _counted_s(cores, (STEAL,)), time.monotonic() - start_s
        if stolen_s is None or now_s is None or passed_s <= 0:
            return None, passed_s
        return 100 * (now_s - stolen_s) / (passed_s * (len(cores) or os.cpu_count() or 1)), passed_s

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

"""Is the time what the record will say? What is read before and after the timed section, and the bounds.

A case that is beyond a bound is INVALID: it has no rate and is not stored. The bounds lie far above what a busy
neighbour does: that only marks a record as disturbed. docs/methodology.md has them all in one table.
"""

from __future__ import annotations

import contextlib
import resource
import threading
from pathlib import Path
from time import perf_counter
from typing import Callable, Iterator, List, Optional

from bench import quota
from bench.cases.case import Settings
from bench.clock import neighbours
from bench.clock.sampling import BLOCKS, Samples, autocorrelation, drift_percent, goes_one_way, noise_percent
from bench.devices import cpu

# Of warm-up and timed section: a quota that is just met stops a thread for moments.
THROTTLED_PERCENT = 1.0
# Of the cores in the timed section. A guest that shares its host well has below 1 %.
STOLEN_PERCENT = 25.0
# Of the cores in warm-up and timed section, steal included. One busy process on the case's only core takes half, and a
# run with a lower priority than its neighbours had 71 %.
OTHERS_PERCENT = 90.0
# Below this, the kernel's count of hundredths of a second shows no share.
SHORTEST_S = 0.5
# Each took a read of the disk, of about 0.1 to 10 ms. A few are of code that was not needed before.
SWAPPED_IN = 10
# Between the two clocks. The kernel corrects one of them, by at most 0.05 %.
CLOCK_PERCENT = 1.0
# Between the two reads of the clocks a thread may have to wait for its core.
CLOCK_SLACK_S = 0.02
# By how much the steps become slower, or faster, from the first to the last third of the samples, if six blocks of them
# all go that way. Good runs on a shared machine had up to 34 %.
DRIFT_PERCENT = 100.0
# How many independent samples tell as much as the samples do, at least. Good runs had 10, mostly hundreds. Very quiet
# samples may follow each other as closely, so the noise has to be above the other bound as well.
INDEPENDENT = 2.0
WANDERING_PERCENT = 25.0
# A core throttled for its heat goes down to its lowest clock; from the highest to the nominal one is less than half.
SLOWED_CLOCK = 0.5


class Watch:
    """The timed section from its start: `reasons` says why its time is not what the record will say; none: it is.

    compiles   how often the program has been compiled so far
    """

    def __init__(self, settings: Settings, decoding: bool, compiles: Callable[[], int]) -> None:
        self.settings, self.decoding, self.compiles = settings, decoding, compiles
        self.reasons: List[str] = []
        self.stopped_s, self.start_s = quota.throttled_s(), perf_counter()
        self.compiled: Optional[int] = None
        self.warmed_up(count=False)

    def warmed_up(self, count: bool = True) -> None:
        """The warm-up is over: compiling, steal and swap count from here."""
        self.compiled = self.compiles() if count else None
        self.stolen, self.faults, self.swapped = neighbours.steal(self.settings.cores), _major_faults(), _swapped_in()

    def end(self) -> None:
        """Add the reasons that the system shows."""
        found = [self._placed(), self._stopped(), self._recompiled(), self._stolen(), self._swapped()]
        self.reasons += [reason for reason in found if reason]

    def _placed(self) -> str:
        others = _elsewhere(self.settings, self.decoding)
        if not others:
            return ""
        wanted, real = (",".join(map(str, cores)) for cores in (self.settings.cores, others))
        return f"it is bound to core {wanted} (--pin), and a thread of it could run on core {real}"

    def _stopped(self) -> str:
        passed_s = (perf_counter() - self.start_s) * self.settings.threads
        share = (quota.throttled_s() - self.stopped_s) / passed_s if passed_s > 0 else 0.0
        if 100 * share <= THROTTLED_PERCENT:
            return ""
        granted = quota.cores()
        of = "" if granted is None else f" of {granted:g} cores"
        return f"the CPU quota{of} of its cgroup stopped its threads for {100 * share:.0f} % of the time"

    def _recompiled(self) -> str:
        times = 0 if self.compiled is None else self.compiles() - self.compiled
        return f"it was compiled {times} time{'s' if times > 1 else ''} while it was timed" if times else ""

    def _stolen(self) -> str:
        percent, passed_s = self.stolen()
        if passed_s < SHORTEST_S or (percent or 0) <= STOLEN_PERCENT:
            return ""
        return f"a hypervisor took {percent:.0f} % of its cores' time (steal)"

    def _swapped(self) -> str:
        pages = min(_major_faults() - self.faults, _swapped_in() - self.swapped)
        return f"{pages} pages of it were read back from swap while it was timed" if pages >= SWAPPED_IN else ""


@contextlib.contextmanager
def watched(settings: Settings, decoding: bool, compiles: Callable[[], int] = lambda: 0) -> Iterator[Watch]:
    """Time within this context; its `reasons` are complete at its end. Threads that may run elsewhere than on the
    case's cores are brought back first.

    decoding   other threads of this process decode images, on cores where none computes
    """
    if not decoding and _elsewhere(settings, decoding):
        cpu.bind(settings.cores)
    watch = Watch(settings, decoding, compiles)
    yield watch
    watch.end()


def of_samples(samples: Samples, others_percent: Optional[float] = None) -> List[str]:
    """The reasons that the samples themselves show. Where others took of the cores, that explains why they wander, and
    the record is disturbed."""
    reasons = []
    by_clock_s, by_second_s = samples.by_clocks_s
    apart_s = abs(by_clock_s - by_second_s)
    if apart_s > CLOCK_SLACK_S and 100 * apart_s > CLOCK_PERCENT * by_second_s:
        reasons.append(f"its clock says {by_clock_s:.3g} s for samples that took {by_second_s:.3g} s by a second clock")
    count = len(samples.seconds)
    if count < 10 * BLOCKS or (others_percent or 0) > neighbours.MOST_PERCENT:
        return reasons
    times = 1 + (drift_percent(samples.seconds) or 0.0) / 100
    if max(times, 1 / times) > 1 + DRIFT_PERCENT / 100 and goes_one_way(samples.seconds):
        change = "slower" if times > 1 else "faster"
        reasons.append(f"its steps became {max(times, 1 / times):.1f} times {change} while it was timed")
    correlation = autocorrelation(samples.seconds) or 0.0
    independent = count * (1 - correlation) / (1 + correlation)
    if independent < INDEPENDENT and noise_percent(samples.seconds) > WANDERING_PERCENT:
        reasons.append(
            f"its {count} samples tell as much as {independent:.1f} independent ones, since each is as the last"
        )
    return reasons


def of_machine(others_percent: Optional[float], passed_s: float, *clocks: Optional[float]) -> List[str]:
    """The reasons that the machine shows.

    others_percent   what others took of the cores in the `passed_s` seconds of warm-up and timed section
    clocks           cycles per second of a core before and after them; None: not known
    """
    reasons = []
    if passed_s >= SHORTEST_S and others_percent is not None and others_percent > OTHERS_PERCENT:
        reasons.append(f"others took {others_percent:.0f} % of its cores' time")
    before, after = clocks
    if before and after and min(before, after) < SLOWED_CLOCK * max(before, after):
        reasons.append(f"its core's clock was {before / 1e9:.2f} GHz before it was timed, and {after / 1e9:.2f} after")
    return reasons


def _elsewhere(settings: Settings, decoding: bool) -> List[int]:
    """The cores that the case is not bound to, and on which its threads may run; none where it is not bound."""
    threads = [threading.get_native_id()] if decoding else cpu.threads()
    return cpu.elsewhere(settings.cores, threads) if settings.cores else []


def _major_faults() -> int:
    """How often this process has waited for a page from the disk."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_majflt


def _swapped_in() -> int:
    """The pages that the system has read back from swap; 0: not known, or none."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/vmstat").read_text().splitlines()
        return next((int(line.split()[1]) for line in lines if line.startswith("pswpin ")), 0)
    return 0

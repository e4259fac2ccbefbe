"""What must hold while a case is timed: its threads stay on their cores, and no quota stops them.

A time that was measured otherwise is right for something else than the record says, so the case is invalid.
"""

from __future__ import annotations

import contextlib
import threading
from time import perf_counter
from typing import Iterator, List

from bench import quota
from bench.cases.case import Settings
from bench.cases.errors import Invalid
from bench.devices import cpu

# Of warm-up and timed section: a quota that is just met stops a thread for moments.
THROTTLED_PERCENT = 1.0


@contextlib.contextmanager
def required(settings: Settings, decoding: bool) -> Iterator[None]:
    """Time within this context. Raises Invalid at its end if a thread may run elsewhere than on the case's cores, or if
    a quota stopped the threads for more than THROTTLED_PERCENT of the time.

    decoding   other threads of this process decode images, on cores where none computes
    """
    if not decoding and _elsewhere(settings, decoding):
        cpu.bind(settings.cores)
    stopped_s, start_s = quota.throttled_s(), perf_counter()
    yield
    share = (quota.throttled_s() - stopped_s) / (perf_counter() - start_s) / settings.threads
    others = _elsewhere(settings, decoding)
    if others:
        wanted, real = (",".join(map(str, cores)) for cores in (settings.cores, others))
        raise Invalid(f"it is bound to core {wanted} (--pin), and a thread of it could run on core {real}")
    if 100 * share > THROTTLED_PERCENT:
        granted = quota.cores()
        of = "" if granted is None else f" of {granted:g} cores"
        raise Invalid(f"the CPU quota{of} of its cgroup stopped its threads for {100 * share:.0f} % of the time")


def _elsewhere(settings: Settings, decoding: bool) -> List[int]:
    """The cores that the case is not bound to, and on which its threads may run; none where it is not bound."""
    threads = [threading.get_native_id()] if decoding else cpu.threads()
    return cpu.elsewhere(settings.cores, threads) if settings.cores else []

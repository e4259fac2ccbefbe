"""What this machine can do, measured once and kept: the roofline, and the time of the canary."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Optional

from bench import cache, devices
from bench.cache import fingerprint
from bench.clock import canary

Calibration = Dict[str, Any]
PEAK = {"flops", "bandwidth_bytes_per_s", "library", "limit"}


def known(device_name: str, precision: str, threads: int, cores: List[int]) -> Optional[Calibration]:
    """`peak` and `canary_s` of a device, a precision and so many threads, bound to `cores`; None: not measured yet, or
    by a version of the suite that kept them by other names."""
    kept = cache.read(_name(device_name, precision, threads, cores))
    whole = kept is not None and set(kept) == {"peak", "canary_s"} and set(kept["peak"]) >= PEAK
    return kept if whole else None


def keep_peak(device_name: str, precision: str, threads: int, cores: List[int], peak: Dict[str, Any]) -> None:
    """Keep a peak that a case has raised."""
    kept = known(device_name, precision, threads, cores)
    if kept is not None:
        cache.write(_name(device_name, precision, threads, cores), {**kept, "peak": peak})


def measured(
    device_name: str, precision: str, threads: int, cores: List[int], again: bool, begun: Callable[[], None]
) -> Calibration:
    """Calibrate, in a process that has loaded no framework, while nobody else times or compiles.

    again   also where it is known; the best of both is kept: a slow minute of the machine must not lower its peak
    begun   is called when the wait for the others is over
    """
    with devices.load(device_name).lease():
        # Another process may have calibrated while this one waited.
        old = known(device_name, precision, threads, cores)
        if old is not None and not again:
            return old
        begun()
        canary_s = min(sorted(canary.seconds(threads))[canary.ROUNDS // 2] for _ in range(3))
        new: Calibration = {"peak": devices.load(device_name).peak(precision, threads), "canary_s": canary_s}
        if old is not None and old["peak"]["library"] == new["peak"]["library"]:
            new["canary_s"] = min(old["canary_s"], new["canary_s"])
            new["peak"]["flops"] = max(old["peak"]["flops"], new["peak"]["flops"])
            before, rates = (each["peak"]["bandwidth_bytes_per_s"] for each in (old, new))
            rates.update({size: max(rate, before.get(size, 0)) for size, rate in rates.items()})
        cache.write(_name(device_name, precision, threads, cores), new)
        return new


def _name(device_name: str, precision: str, threads: int, cores: List[int]) -> str:
    what = {"device": devices.load(device_name).describe(), "cores": cores}
    return f"calibration-{device_name}-{precision}-t{threads}-{fingerprint(what)}"

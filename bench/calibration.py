"""What this machine can do, measured once and kept: the roofline, and the time of the canary."""

from __future__ import annotations

from typing import Any, Callable, Dict, Mapping, Optional

from bench import cache, device
from bench.case import Case, Settings
from bench.record import fingerprint

Ask = Callable[[Mapping[str, Any]], Mapping[str, Any]]


def known(case: Case, settings: Settings, ask: Ask) -> Dict[str, Any]:
    """Return `peak` and `canary_s` for a case's device, precision and threads; measure what is not kept.

    ask   sends a request to a worker that has loaded no framework, and returns its reply
    """
    found = _kept(case, settings)
    if found is not None:
        return found
    with device.load(case.device).lease():
        # Another process may have calibrated while this one waited.
        return _kept(case, settings) or _measured(case, settings, ask)


def measured(case: Case, settings: Settings, ask: Ask) -> Dict[str, Any]:
    """Calibrate now, and keep the best of what is found and what was known: a slow minute of the
    machine must not lower its peak."""
    with device.load(case.device).lease():
        return _measured(case, settings, ask)


def _kept(case: Case, settings: Settings) -> Optional[Dict[str, Any]]:
    found = cache.read(_name(case, settings))
    return found if found is not None and set(found) == {"peak", "canary_s"} else None


def _measured(case: Case, settings: Settings, ask: Ask) -> Dict[str, Any]:
    request = {"do": "peak", "device": case.device, "precision": case.precision, "threads": settings.threads}
    reply = ask(request)
    new = {"peak": reply["peak"], "canary_s": reply["canary_s"]}
    old = cache.read(_name(case, settings))
    if old is not None and set(old) == set(new) and old["peak"]["library"] == new["peak"]["library"]:
        new["canary_s"] = min(old["canary_s"], new["canary_s"])
        new["peak"]["flops"] = max(old["peak"]["flops"], new["peak"]["flops"])
        for size, bandwidth in new["peak"]["bandwidth"].items():
            new["peak"]["bandwidth"][size] = max(bandwidth, old["peak"]["bandwidth"].get(size, 0))
    cache.write(_name(case, settings), new)
    return new


def _name(case: Case, settings: Settings) -> str:
    what = {"device": device.load(case.device).describe(), "cores": settings.cores}
    return f"calibration-{case.device}-{case.precision}-t{settings.threads}-{fingerprint(what)}"

"""What this machine can do, measured once and kept: the roofline, and the time of the canary."""

from __future__ import annotations

from typing import Any, Callable, Dict, Mapping

from bench import cache, device
from bench.case import Case, Settings
from bench.record import fingerprint

Ask = Callable[[Mapping[str, Any]], Mapping[str, Any]]


def known(case: Case, settings: Settings, ask: Ask) -> Dict[str, Any]:
    """Return `peak` and `canary_s` for a case's device, precision and threads; measure what is not kept.

    ask   sends a request to a worker that has loaded no framework, and returns its reply
    """
    found = cache.read(_name(case, settings))
    if found is None or set(found) != {"peak", "canary_s"}:
        return measured(case, settings, ask)
    return found


def measured(case: Case, settings: Settings, ask: Ask) -> Dict[str, Any]:
    """Calibrate now, and keep the best of what is found and what was known: a slow minute of the
    machine must not lower its peak."""
    request = {"do": "peak", "device": case.device, "precision": case.precision, "threads": settings.threads}
    with device.load(case.device).lease():
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

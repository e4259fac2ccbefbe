"""The roofline of a device: the best rates that any installed library reaches, by `bench/calibration.py`.

Roofline   flops                   FLOP per second
           bandwidth_bytes_per_s   by the size of the working set in bytes (as text, smallest first)
           sources                 what reached each of these: a library and its kernel, or a case that was above it
"""

from __future__ import annotations

from typing import Any, Dict, Mapping

Roofline = Dict[str, Any]

LEVELS = (1 << 18, 1 << 22, 1 << 26, 1 << 29)


def empty() -> Roofline:
    return {"flops": 0.0, "bandwidth_bytes_per_s": dict.fromkeys(map(str, LEVELS), 0.0), "sources": {}}


def level(roofline: Mapping[str, Any], moved: float) -> str:
    """The largest measured working set that is not larger than a batch's, or the smallest; none: empty."""
    sizes = sorted(roofline["bandwidth_bytes_per_s"], key=int)
    fitting = [size for size in sizes if int(size) <= moved] or sizes[:1]
    return fitting[-1] if fitting else ""


def raised(roofline: Mapping[str, Any], flops: float, bandwidth: float, moved: float, source: str) -> Roofline:
    """The roofline, raised to the rates of a program: FLOP and bytes per second, on a working set of `moved` bytes."""
    sources, rates = dict(roofline["sources"]), dict(roofline["bandwidth_bytes_per_s"])
    if flops > roofline["flops"]:
        sources["flops"] = source
    size = level(roofline, moved)
    if size and bandwidth > rates[size]:
        rates[size], sources[size] = bandwidth, source
    return {
        **roofline,
        "flops": max(flops, roofline["flops"]),
        "bandwidth_bytes_per_s": rates,
        "sources": sources,
    }


def best(one: Mapping[str, Any], other: Mapping[str, Any]) -> Roofline:
    """The higher of two rooflines, rate by rate."""
    result = raised(one, other["flops"], 0.0, 0.0, other["sources"].get("flops", ""))
    for size, rate in other["bandwidth_bytes_per_s"].items():
        result = raised(result, 0.0, rate, int(size), other["sources"].get(size, ""))
    return result

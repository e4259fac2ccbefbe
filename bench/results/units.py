"""Numbers with their units, for a person."""

from __future__ import annotations

from typing import Optional

NO_RATE = "-"


def rate(value: Optional[float]) -> str:
    """A rate with four significant digits; a dash for None."""
    if value is None:
        return NO_RATE
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def seconds(value: float) -> str:
    """A time with its unit: 81.2 us, 4.05 ms, 1.3 s."""
    for factor, unit in ((1e9, "ns"), (1e6, "us"), (1e3, "ms")):
        rounded = float(f"{value * factor:.3g}")
        if rounded < 1000:
            return f"{rounded:g} {unit}"
    return f"{value:.3g} s" if value < 1000 else f"{value:,.0f} s"


def size(count: float) -> str:
    """A number of bytes with its unit: 256 KiB, 1.5 GiB."""
    for factor, unit in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if count >= factor:
            return f"{count / factor:,.3g} {unit}" if count < 1000 * factor else f"{count / factor:,.0f} {unit}"
    return f"{count:.0f} bytes"


def si(value: float, unit: str) -> str:
    """A number with a unit, such as 28.4 GFLOP/s."""
    text = short(value)
    return f"{text[:-1]} {text[-1]}{unit}" if text[-1].isalpha() else f"{text} {unit}"


def short(value: float) -> str:
    """A number for an axis, with at most three digits: 0.5, 20, 1.5k, 3M."""
    for factor, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 0.9995 * factor:
            return f"{value / factor:.3g}{unit}"
    return f"{value:.3g}"

"""Distributions of the latency of one batch, on an axis that gives the tail its room."""

from __future__ import annotations

import math
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

from bench.report import cases, quantiles
from bench.report.content import Block, Cell, Column, Figure, Note, Section, Table
from bench.report.drawing import Plot, Scale, logarithmic, style
from bench.report.reading import Result, Run, newest, number, text
from bench.results import units
from bench.results.fields import nearest_rank
from bench.results.record import Record

POSITION = 50
MOST = 12
RANKS = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999}
NAMES = {"p50": "p50", "p90": "p90", "p99": "p99", "p999": "p99.9"}
TOO_FEW = "too few"
# The shares at which a line is drawn.
CURVE = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999)


class Percentile(NamedTuple):
    """One percentile of a case, in seconds.

    value   that of the record; None: too few
    low, high   the ends of its interval; None: too few samples for this end
    """

    value: Optional[float]
    low: Optional[float]
    high: Optional[float]

    @property
    def known(self) -> bool:
        """Whether both ends are known, without which the value says little."""
        return self.value is not None and self.low is not None and self.high is not None


def section(runs: Sequence[Run]) -> Optional[Section]:
    """Pictures of the smallest batch of each case, where latency counts most, and a table of all."""
    results = [result for result in newest(runs) if number(result.record, "latency_p50_s")]
    if not results:
        return None
    smallest = [_smallest(group) for group in cases.grouped(results, cases.GROUP).values()]
    drawn = [group for group in smallest if any(_samples(result) for result in group)]
    axes = cases.differing([result.record for group in drawn for result in group]) if drawn else []
    blocks: List[Block] = []
    if drawn:
        pictures = [_picture(group, cases.label(group[0].record, axes)) for group in drawn[:MOST]]
        blocks.append(Figure(pictures, _caption(len(drawn)), _table(results)))
    else:
        blocks += [
            Note("The file has no samples (--benchmark-save-data stores them), so there are no intervals."),
            _table(results),
        ]
    return Section("Latency", blocks)


def _caption(groups: int) -> str:
    caption = (
        "Latency of one batch up to each percentile, of the smallest batch size. A vertical bar is the 95 % interval of"
        " p50, p90, p99 or p99.9 (binomial, as if steps were independent). Hollow marks: too few samples for its"
        " upper end."
    )
    return f"{caption} The first {MOST} of {groups} are drawn." if groups > MOST else caption


def _smallest(group: Sequence[Result]) -> List[Result]:
    batch = min(number(result.record, "batch_size") or 0 for result in group)
    return [result for result in group if number(result.record, "batch_size") == batch]


def _samples(result: Result) -> List[float]:
    """The latencies in order; empty if the samples are not those of single batches."""
    ordered, p50 = sorted(result.samples), number(result.record, "latency_p50_s")
    single = number(result.record, "steps_per_sample") == 1
    same = ordered and p50 and math.isclose(nearest_rank(ordered, 0.5), p50, rel_tol=1e-9)
    return ordered if single and same else []


def percentiles(result: Result) -> Dict[str, Percentile]:
    """The percentiles of a case by name, with their intervals if the file has the samples."""
    ordered = _samples(result)
    found = {}
    for name, share in RANKS.items():
        low, high = quantiles.interval(ordered, share) if ordered else (None, None)
        found[name] = Percentile(number(result.record, f"latency_{name}_s"), low, high)
    return found


def _tail(share: float) -> float:
    """The place of a percentile: each further nine has the same room."""
    return -math.log10(1 - share)


def _picture(group: Sequence[Result], label: str) -> str:
    plot = Plot(f"Latency distribution: {label}", label)
    known = {text(result.record, "backend"): result for result in group if _samples(result)}
    curves = {backend: _curve(_samples(result)) for backend, result in sorted(known.items())}
    values = [value for curve in curves.values() for _, value in curve]
    for result in known.values():
        values += [end for each in percentiles(result).values() for end in (each.low, each.high) if end]
    last = max(share for curve in curves.values() for share, _ in curve)
    plot.x = Scale(0.0, max(1.3, _tail(last) + 0.12), plot.LEFT, plot.RIGHT)
    plot.y = logarithmic(values, plot.BOTTOM, plot.top, 1.15)
    plot.legend(list(curves))
    shares = [share for share in (0.5, 0.9, 0.99, 0.999, 0.9999) if _tail(share) <= plot.x.high]
    plot.axes("percentile", "latency of a batch", _percentile, units.seconds, [_tail(share) for share in shares])
    for index, (backend, curve) in enumerate(curves.items()):
        look = style(backend)
        plot.line([(plot.x(_tail(share)), plot.y(value)) for share, value in curve], look.colour)
        for name, each in percentiles(known[backend]).items():
            if each.value is None:
                continue
            # Side by side, so that bars do not cover each other.
            x = plot.x(_tail(RANKS[name])) + 3.0 * (index - (len(curves) - 1) / 2)
            said = f"{backend}, {NAMES[name]}: {units.seconds(each.value)}"
            if not each.known:
                plot.mark(x, plot.y(each.value), look, f"{said}, {TOO_FEW} samples for an interval", "o")
                continue
            plot.whisker(x, plot.y(each.low or 0), plot.y(each.high or 0), look.colour)
            spread = f"interval {units.seconds(each.low or 0)} to {units.seconds(each.high or 0)}"
            plot.mark(x, plot.y(each.value), look, f"{said}, {spread}")
    return plot.svg()


def _percentile(place: float) -> str:
    return f"p{100 * (1 - 10**-place):.6g}"


def _curve(ordered: Sequence[float]) -> List[Tuple[float, float]]:
    """Shares and latencies, up to the last share that the samples reach."""
    return [(share, nearest_rank(ordered, share)) for share in CURVE if share <= 1 - 1 / len(ordered)] or [
        (0.5, nearest_rank(ordered, 0.5))
    ]


def _table(results: Sequence[Result]) -> Table:
    axes = cases.differing([result.record for result in results])
    columns = [Column("case"), Column("framework"), Column("samples", number=True)]
    for name in NAMES.values():
        columns += [Column(name, number=True), Column("95 % interval", number=True, hint=f"of {name}")]
    rows = []
    for result in results:
        record = result.record
        cells = [_case(record, axes), Cell(text(record, "backend"), look=record["backend"])]
        cells.append(Cell(text(record, "samples")))
        for each in percentiles(result).values():
            cells += _cells(each, bool(_samples(result)))
        rows.append(cells)
    return Table(columns, rows)


def _case(record: Record, axes: Sequence[str]) -> Cell:
    return Cell(cases.label(record, axes), case=record["id"])


def _cells(each: Percentile, sampled: bool) -> List[Cell]:
    """The value and its interval. Without an upper end there is no interval, and the value is not to be trusted."""
    value = Cell(TOO_FEW if each.value is None else units.seconds(each.value))
    if not sampled:
        return [value, Cell("no samples")]
    if each.low is None or each.high is None:
        return [value, Cell(TOO_FEW)]
    return [value, Cell(f"{units.seconds(each.low)} to {units.seconds(each.high)}")]

"""Verdicts of --against and of baselines: the estimate and its interval against the budget, and what would be seen."""

from __future__ import annotations

import time
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from bench.report import cases
from bench.report.content import Block, Cell, Column, Figure, Note, Section, Table
from bench.report.drawing import Rows, linear, parts
from bench.report.reading import Run, number, shortened, text
from bench.results.self_check import SLOWDOWNS, highest_rate
from bench.results.verdict import SLOWER, UNDECIDED, margin, percent

POSITION = 25
# The verdicts that are drawn, and the rows of one picture.
MOST, ROWS = 60, 20
# Changes beyond these are drawn at the edge, in percent.
WIDEST = (-60.0, 150.0)
KINDS = ("slower", "undecided", "same", "faster", "broken", "changed", "new")


class Line(NamedTuple):
    """The verdict of one metric of one case, with its id and its short name. Changes are in percent."""

    case: str
    name: str
    spec: str
    metric: str
    kind: str
    text: str
    estimate: Optional[float] = None
    low: Optional[float] = None
    high: Optional[float] = None
    smallest: Optional[float] = None
    budget: Optional[float] = None
    source: str = ""
    pairs: Tuple[float, ...] = ()

    @property
    def label(self) -> str:
        return self.name if self.metric == "rate" else f"{self.name} ({self.metric})"


def section(runs: Sequence[Run]) -> Optional[Section]:
    """The verdicts of the newest run; None if it has none and no self-check."""
    run = next((run for run in reversed(runs) if run.verdicts or run.self_check), None)
    if run is None:
        return None
    labels = _labels(run)
    lines = [line for verdict in run.verdicts for line in _lines(verdict, labels)]
    lines.sort(key=lambda line: (KINDS.index(line.kind) if line.kind in KINDS else len(KINDS), line.estimate or 0.0))
    blocks: List[Block] = []
    drawn = [line for line in lines if line.estimate is not None]
    if drawn:
        widest = max(len(line.label) for line in drawn)
        pictures = [_picture(part, widest) for part in parts(drawn[:MOST], ROWS)]
        blocks.append(Figure(pictures, _caption(lines, run), _table(lines), brief=True))
    elif lines:
        blocks += [Note(_caption(lines, run)), _table(lines)]
    blocks += [Note(line.text) for line in lines if line.kind == UNDECIDED and line.text][:MOST]
    blocks += _self_check(run.self_check)
    return Section("Verdicts", blocks) if blocks else None


def _labels(run: Run) -> Dict[str, str]:
    """The names of the cases of a run, without what all of them share, by their ids."""
    records = [result.record for result in run.results]
    axes = [*cases.differing(records), "backend"] if records else []
    return {text(record, "id"): cases.label(record, axes) for record in records}


def _lines(verdict: Mapping[str, Any], labels: Mapping[str, str]) -> List[Line]:
    """A line for the rate, and one for each other metric that is slower."""
    metrics = verdict.get("metrics")
    metrics = metrics if isinstance(metrics, dict) else {}
    case = text(verdict, "id")
    head = (case, labels.get(case, case), text(verdict, "spec"))
    found = []
    for metric, each in metrics.items():
        if isinstance(each, dict) and (metric == "rate" or each.get("kind") == SLOWER):
            found.append(_line(head, shortened(metric, 20), each, verdict))
    if not found:
        kind = text(verdict, "verdict", 20)
        found.append(Line(*head, "rate", kind, text(verdict, "text", 400)))
    return found


def _line(head: Tuple[str, str, str], metric: str, each: Mapping[str, Any], verdict: Mapping[str, Any]) -> Line:
    bounds = each.get("interval")
    ends = {"low": bounds[0], "high": bounds[1]} if isinstance(bounds, (list, tuple)) and len(bounds) == 2 else {}
    ratios = verdict.get("log_ratios")
    pairs = [number(pair, metric) for pair in ratios if isinstance(pair, dict)] if isinstance(ratios, list) else []
    count = number(each, "count")
    kind = text(each, "kind", 20) if metric != "rate" else text(verdict, "verdict", 20) or text(each, "kind", 20)
    return Line(
        *head,
        metric,
        kind,
        text(verdict, "text", 400),
        _percent(number(each, "estimate")),
        _percent(number(ends, "low")) if number(each, "confidence") else None,
        _percent(number(ends, "high")) if number(each, "confidence") else None,
        _percent(number(each, "smallest")),
        number(each, "budget_percent"),
        "" if count is None else f"{count:.0f} {text(each, 'unit', 20)}",
        tuple(percent(ratio) for ratio in pairs if ratio is not None and abs(ratio) < 20),
    )


def _percent(log_ratio: Optional[float]) -> Optional[float]:
    return None if log_ratio is None or abs(log_ratio) > 20 else percent(log_ratio)


def _caption(lines: Sequence[Line], run: Run) -> str:
    counts = {kind: sum(line.kind == kind for line in lines) for kind in KINDS}
    said = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)
    specs = ", ".join(dict.fromkeys(line.spec for line in lines if line.spec))
    parts = [f"{said}{f' (against {specs})' if specs else ''}."]
    if any(line.low is not None for line in lines):
        parts.append(
            "A bar is the interval that holds the true change, with the estimate in it; a dot is a pair; the band is"
            " the budget; the hook is the smallest loss that is seen 9 times in 10."
        )
    check = _rate_of_check(run.self_check)
    return " ".join([*parts, check] if check else parts)


def _rate_of_check(found: Mapping[str, Any]) -> str:
    """How often a self-check on this machine was wrong, and when it was made."""
    false, trials, when = (number(found, name) for name in ("false", "comparisons", "when_s"))
    if false is None or not trials or when is None or not 0 <= when < 1e11:
        return ""
    most = 100 * highest_rate(int(false), int(trials)) if trials <= 10**5 and false >= 0 else 100.0
    return (
        f"Self-check of {time.strftime('%Y-%m-%d', time.gmtime(when))}: {false:.0f} of {trials:.0f} comparisons without"
        f" a change were called slower or faster, so at most {most:.2g} %."
    )


def _picture(lines: Sequence[Line], widest: int) -> str:
    picture = Rows("Change of each case, with its interval and the budget", [line.label for line in lines], widest)
    values = [0.0]
    for line in lines:
        known = [line.estimate, line.low, line.high, line.smallest, *line.pairs]
        values += [value for value in known if value is not None]
        values += [-line.budget, line.budget] if line.budget else []
    low, high = max(WIDEST[0], min(values)), min(WIDEST[1], max(values))
    picture.x = linear([low, high], picture.left + 4, picture.right - 4, zero=False)
    for index, line in enumerate(lines):
        _band(picture, line, index)
    picture.axis("change of the rate, in percent: faster to the right", _signed)
    picture.rule(picture.x(0.0), picture.TOP, picture.x(0.0), picture.bottom, "z")
    for index, line in enumerate(lines):
        _row(picture, line, index)
    entries = [("budget", None, "band"), ("slower", None, "v-slower"), ("faster", None, "v-faster")]
    picture.legend([*entries, ("same", None, "v-same"), ("undecided", None, "v-undecided")])
    return picture.svg()


def _band(picture: Rows, line: Line, index: int) -> None:
    """The budget of a case: a rate may fall to it, or rise by as much."""
    if line.budget is not None and 0 < line.budget < 100:
        most = margin(line.budget)
        top = picture.TOP + picture.row * index
        ends = (picture.x.clipped(percent(-most)), picture.x.clipped(percent(most)))
        picture.band(ends[0], top + 3, ends[1], top + picture.row - 3)


def _row(picture: Rows, line: Line, index: int) -> None:
    middle, x = picture.middle(index), picture.x.clipped
    for number_of, change in enumerate(line.pairs, 1):
        # Up and down in turn, so that pairs of the same change do not hide each other.
        picture.dot(x(change), middle + 4 * ((number_of % 3) - 1), f"{line.label}, pair {number_of}: {change:+.1f} %")
    name = f"{line.label}: {line.kind}, {_signed(line.estimate or 0.0)}"
    if line.low is not None and line.high is not None:
        name += f", interval {_signed(line.low)} to {_signed(line.high)}"
        picture.box(x(line.low), middle - 4, x(line.high), middle + 4, f"v-{_kind(line)} i", name)
    if line.smallest is not None:
        left = x(line.smallest)
        picture.rule(left, middle - 7, left, middle + 7, "hook")
    place = x(line.estimate or 0.0)
    picture.box(place - 1.5, middle - 8, place + 1.5, middle + 8, f"v-{_kind(line)}", name)


def _kind(line: Line) -> str:
    return line.kind if line.kind in KINDS else "undecided"


def _signed(value: float) -> str:
    return f"{value:+.3g} %" if abs(value) >= 0.05 else "0 %"


def _table(lines: Sequence[Line]) -> Table:
    columns = [Column("case"), Column("verdict"), Column("change", number=True), Column("interval", number=True)]
    columns += [Column("budget", number=True), Column("from"), Column("would see", number=True)]
    rows = []
    for line in lines:
        span = "" if line.low is None or line.high is None else f"{line.low:+.1f} to {line.high:+.1f} %"
        rows.append(
            [
                Cell(line.label, case=line.case),
                Cell(line.kind, bad=line.kind in ("slower", "broken")),
                Cell("" if line.estimate is None else f"{line.estimate:+.1f} %"),
                Cell(span),
                Cell("" if line.budget is None else f"{line.budget:g} %"),
                Cell(line.source),
                Cell("" if line.smallest is None else f"{line.smallest:+.1f} %"),
            ]
        )
    return Table(columns, rows)


def _self_check(found: Mapping[str, Any]) -> List[Block]:
    """The findings of a self-check: false verdicts, and which slow-downs were seen, for each case."""
    by_case = found.get("cases")
    if not isinstance(by_case, dict) or not by_case:
        return []
    columns = [Column("case"), Column("unchanged", number=True), Column("false", number=True)]
    columns += [Column(f"{slowdown:g} % seen", number=True) for slowdown in SLOWDOWNS]
    columns += [Column("spread of pairs", number=True), Column("would see", number=True)]
    rows = [_findings(shortened(name), each) for name, each in sorted(by_case.items()) if isinstance(each, dict)]
    said = _rate_of_check(found)
    return [*([Note(said)] if said else []), Table(columns, rows)]


def _findings(case: str, each: Mapping[str, Any]) -> List[Cell]:
    counts = each.get("counts")
    counts = counts if isinstance(counts, dict) else {}

    def of(slowdown: float) -> Dict[str, float]:
        found = counts.get(f"{slowdown:g}")
        found = found if isinstance(found, dict) else {}
        return {name: number(found, name) or 0.0 for name in ("comparisons", "slower", "faster")}

    false = of(0.0)["slower"] + of(0.0)["faster"]
    spread, smallest = number(each, "spread"), number(each, "smallest_percent")
    cells = [Cell(case), Cell(f"{of(0.0)['comparisons']:.0f}")]
    cells.append(Cell(f"{false:.0f}", bad=false > 0))
    for slowdown in SLOWDOWNS:
        seen = of(slowdown)
        cells.append(Cell(f"{seen['slower']:.0f} of {seen['comparisons']:.0f}"))
    cells.append(Cell("" if spread is None else f"{100 * spread:.2g} %"))
    cells.append(Cell("" if smallest is None else f"-{smallest:.2g} %"))
    return cells

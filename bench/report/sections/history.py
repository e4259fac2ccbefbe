"""History: the rate of each case over the runs of a folder, its steps, and what else came, went or was accepted."""

from __future__ import annotations

from typing import Any, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from bench.report import cases
from bench.report.content import Block, Cell, Column, Figure, Heading, Note, Section, Table
from bench.report.drawing import CHARACTER, Plot, Rows, Scale, Style, fitting, linear, plain, style
from bench.report.entries import Entry
from bench.report.history import History, Series, Step, date, short
from bench.report.reading import Run, shortened, text
from bench.results import units
from bench.results.change_points import FALSE_ALARM
from bench.results.verdict import percent

POSITION = 60
# A history has at least so many runs.
RUNS_LEAST = 3
# Cases with steps that have a picture of their own, and the marks in it. The others are rows of one picture.
DETAILED, MARKS = 8, 40
# The rows of one picture, and the points of a row's line.
ROWS, LINE = 40, 60
# A row shows at least this change from the median, in percent, so that noise does not look like a change.
SPAN_LEAST = 5.0
# The faults and the baselines that are listed.
LISTED = 12
FLAG = Style(5, "down")


class Mark(NamedTuple):
    """Consecutive points of a series in one mark: the median of their rates, and what the whisker shows."""

    first: int
    last: int
    rate: float
    low: float
    high: float
    counted: bool


def section(runs: Sequence[Run]) -> Optional[Section]:
    """Runs that were read whole have no history: `of_history` is made from an index of all runs."""
    return None


def of_history(history: History) -> Optional[Section]:
    """None if there are too few runs."""
    if len(history.runs) < RUNS_LEAST:
        return None
    stepped = [series for series in history.series if series.steps]
    blocks: List[Block] = [_counted(history, stepped), *_notes(history)]
    if stepped:
        blocks.append(_steps(stepped))
    blocks += [_detail(series) for series in stepped[:DETAILED]]
    if len(stepped) > DETAILED:
        blocks.append(Note(f"{len(stepped) - DETAILED} more cases with steps are rows of the next picture."))
    blocks += _all(history)
    blocks += _changes(history)
    return Section("History", blocks)


def _counted(history: History, stepped: Sequence[Series]) -> Note:
    count, steps = len(history.series), sum(len(series.steps) for series in stepped)
    found = f"{steps} step{'s' if steps != 1 else ''} in {len(stepped)} of them" if steps else "no step in them"
    return Note(
        f"{len(history.runs)} runs from {date(history.runs[0].time_s)} to {date(history.runs[-1].time_s)},"
        f" {count} series of cases, {found}. Of unchanged cases whose runs are independent,"
        f" {100 * FALSE_ALARM:g} % have a step by chance."
    )


def _notes(history: History) -> List[Block]:
    notes: List[Block] = [Note(shortened(note, 400)) for note in history.notes]
    faults = history.faults
    if faults:
        which = "; ".join(shortened(fault) for fault in faults[:LISTED])
        more = f"; and {len(faults) - LISTED} more" if len(faults) > LISTED else ""
        notes.append(Note(f"{len(faults)} files cannot be used: {which}{more}.", bad=True))
    return notes


def _steps(stepped: Sequence[Series]) -> Table:
    """A row for each step, the latest first."""
    found = [(series, step) for series in stepped for step in series.steps]
    found.sort(key=lambda each: -float(each[0].points["time_s"][each[1].after]))
    rows = []
    for series, step in found:
        before, after = series.run(step.before), series.run(step.after)
        rows.append(
            [
                _name(series),
                _framework(series),
                Cell(f"{step.change_percent:+.1f} %", bad=step.point.size < 0),
                Cell(f"{percent(step.point.low):+.1f} to {percent(step.point.high):+.1f} %"),
                *_range(before, after),
                Cell(shortened("; ".join(step.changed)) or "nothing that is recorded"),
                Cell(str(len(series.points) - step.after)),
            ]
        )
    return Table(
        [
            Column("case"),
            Column("framework"),
            Column("change", number=True, hint="of the median rate, from the level before to the level after"),
            Column("interval", hint="holds the true change in 95 % of steps"),
            Column("last run before"),
            Column("first run after", hint="with the run before, 95 % of such ranges hold the step"),
            Column("what changed between them"),
            Column("runs since", number=True),
        ],
        rows,
    )


def _range(before: Entry, after: Entry) -> List[Cell]:
    """The last run before a step and the first after it: days, and times where they are of one day."""
    days = [date(run.time_s)[:10] for run in (before, after)]
    shown = [date(run.time_s) for run in (before, after)] if days[0] == days[1] else days
    return [Cell(f"{when}, {short(run)}") for when, run in zip(shown, (before, after))]


def _name(series: Series) -> Cell:
    return Cell(_label(series), case=series.id)


def _label(series: Series) -> str:
    others = [name for name in ("mode", "precision", "replicas") if series.key[name] not in ("inference", "fp32", 1)]
    return cases.label(series.key, ["workload", "size", "batch_size", *others])


def _framework(series: Series) -> Cell:
    backend = text(series.key, "backend", 40)
    return Cell(backend, look=backend)


def _detail(series: Series) -> Figure:
    """The rates of one case with whiskers, its levels and steps, ticks of software and flags of baselines."""
    label, backend = _label(series), text(series.key, "backend", 40)
    item = text(series.key, "item", 20)
    plot = Plot(f"History of {label}, {backend}", f"{label}, {backend}")
    marks = _marks(series, MARKS)
    ends = [value for mark in marks for value in (mark.rate, mark.low, mark.high)]
    plot.x = Scale(-0.5, len(series.history.runs) - 0.5, plot.LEFT + 8, plot.RIGHT - 8)
    plot.y = linear(_without_extremes(ends), plot.BOTTOM, plot.top, zero=False)
    for step in series.steps:
        _band(plot, series, step)
    plot.axes("runs", f"{item}s / s", lambda run: _day(series.history, run), plain, _run_ticks(series.history))
    look = style(backend)
    for mark in marks:
        x = plot.x(float(np.mean(series.runs[[mark.first, mark.last]])))
        if mark.high > mark.low:
            plot.whisker(x, plot.y.clipped(mark.low), plot.y.clipped(mark.high), look.colour)
        plot.mark(x, plot.y.clipped(mark.rate), look, _told(series, mark, item), "" if mark.counted else "o")
    for first, last, level in series.levels:
        y = plot.y.clipped(level)
        plot.rule(plot.x(float(series.runs[first])), y, plot.x(float(series.runs[last])), y, "z")
    for position, what in series.ticks:
        x = plot.x(float(series.runs[position]) - 0.5)
        plot.box(x - 1, plot.BOTTOM - 9, x + 1, plot.BOTTOM, "dot", f"software changed: {shortened(what)}")
    for run, told in _flags(series):
        plot.mark(plot.x(run), plot.top + 4, FLAG, told)
    return Figure([plot.svg()], _caption(series, len(marks), label, backend), _events(series))


def _caption(series: Series, marks: int, label: str, backend: str) -> str:
    whiskers = "of the steps of a run, from the first to the third quartile"
    if marks < len(series.points):
        whiskers = f"of {-(-len(series.points) // MARKS)} runs, from the slowest to the fastest"
    return (
        f"{label}, {backend}: median rates, with whiskers {whiskers}. Lines are levels, a shaded band is where a step"
        " can lie. Hollow: disturbed or not steady. A short bar on the axis: software changed; a flag: a baseline."
    )


def _band(plot: Plot, series: Series, step: Step) -> None:
    x1, x2 = plot.x(float(series.runs[step.before])), plot.x(float(series.runs[step.after]))
    changed = f"; {shortened('; '.join(step.changed))}" if step.changed else ""
    plot.box(x1, plot.top, x2, plot.BOTTOM, "band", f"step of {step.size}{changed}")


def _marks(series: Series, most: int) -> List[Mark]:
    """The points of a series in at most about `most` marks, none of which has points of two levels."""
    counted: Any = np.zeros(len(series.points), bool)
    counted[series.counted] = True
    known = np.flatnonzero(np.isfinite(series.points["rate"]))
    cuts = [int(np.searchsorted(known, series.counted[step.point.index])) for step in series.steps]
    size = -(-len(known) // most)
    return [
        _mark(series, level[start : start + size], counted)
        for level in np.split(known, cuts)
        for start in range(0, len(level), size)
    ]


def _mark(series: Series, positions: Any, counted: Any) -> Mark:
    """Uncounted points are left out where there are counted ones."""
    used = positions[counted[positions]]
    used = used if len(used) else positions
    points = series.points[used]
    rate = float(np.median(points["rate"]))
    # The whisker of one run is that of its steps.
    ends = ("low", "high") if len(positions) == 1 else ("rate", "rate")
    span = float(points[ends[0]].min()), float(points[ends[1]].max())
    low, high = span if span[0] <= rate <= span[1] else (rate, rate)
    return Mark(int(positions[0]), int(positions[-1]), rate, low, high, bool(counted[used[0]]))


def _told(series: Series, mark: Mark, item: str) -> str:
    """What a mark says to those who point at it or do not see it."""
    when = date(series.run(mark.first).time_s)
    if mark.last > mark.first:
        when = f"{mark.last - mark.first + 1} runs from {when}"
    return f"{when}, {short(series.run(mark.last))}: {units.rate(mark.rate)} {item}s/s"


def _without_extremes(values: Sequence[float]) -> List[float]:
    """The values without those far from the others: a few runs on a busy machine do not flatten the picture."""
    low, high = map(float, np.quantile(values, (0.05, 0.95)))
    return [value for value in values if 2 * low - high <= value <= 2 * high - low]


def _run_ticks(history: History) -> List[float]:
    """The indices of the runs that have a tick: about six."""
    count = len(history.runs)
    return sorted({round(index) for index in np.linspace(0, count - 1, min(count, 6)).tolist()})


def _day(history: History, run: float) -> str:
    """The tick of a run: its day, or its time if all runs are of one day."""
    whole = [date(history.runs[index].time_s) for index in (0, -1, int(run))]
    return whole[2][5:10] if whole[0][:10] != whole[1][:10] else whole[2][11:16]


def _flags(series: Series) -> List[Tuple[float, str]]:
    """The baselines that were accepted for a case: between which runs, who and why."""
    names = {name for name, _ in series.names}
    times = [run.time_s for run in series.history.runs]
    found = []
    for accepted in series.history.accepted:
        if names & set(accepted["cases"]):
            run = float(np.searchsorted(times, accepted["time_s"])) - 0.5
            told = f"baseline, {accepted['when']}, {accepted['who']}: {accepted['why']}"
            found.append((min(run, len(times) - 0.5), shortened(told)))
    return found


def _events(series: Series) -> Table:
    """The levels of a series, and what happened to it, in the order of time."""
    rows: List[Tuple[float, List[Cell]]] = []
    item = text(series.key, "item", 20)
    for first, last, level in series.levels:
        when = float(series.points["time_s"][first])
        what = f"{last - first + 1} points until {date(series.run(last).time_s)}: {units.rate(level)} {item}s/s"
        rows.append((when, [Cell("level"), Cell(what)]))
    for position, changed in series.ticks[-LISTED:]:
        rows.append((float(series.points["time_s"][position]), [Cell("software"), Cell(shortened(changed))]))
    for run, told in _flags(series)[-LISTED:]:
        entry = series.history.runs[int(max(run, 0))]
        rows.append((entry.time_s, [Cell("baseline"), Cell(told)]))
    rows.sort(key=lambda row: row[0])
    columns = [Column("when"), Column("what"), Column("value")]
    return Table(columns, [[Cell(date(when)), *cells] for when, cells in rows])


def _all(history: History) -> List[Block]:
    """Every case as a row with a line, those with steps first."""
    shown = [series for series in history.series if len(series.counted)]
    blocks: List[Block] = [Heading("All cases")] if shown else []
    for start in range(0, len(shown), ROWS):
        part = shown[start : start + ROWS]
        caption = (
            "Rate over the runs, each row around its own median; the range of the row is on the right. A dash below"
            " is a step. Times of runs are the same in all rows."
        )
        blocks.append(Figure([_lines(history, part)], caption, _table(part)))
    return blocks


def _lines(history: History, shown: Sequence[Series]) -> str:
    labels = [f"{_label(series)} {text(series.key, 'backend', 40)}" for series in shown]
    picture = Rows("Rate of each case over the runs", labels)
    picture.x = Scale(-0.5, len(history.runs) - 0.5, picture.left, picture.right - 96)
    picture.axis("runs", lambda run: _day(history, run), _run_ticks(history))
    for index, series in enumerate(shown):
        _row(picture, series, picture.middle(index))
    return picture.svg()


def _row(picture: Rows, series: Series, middle: float) -> None:
    """One case: a line around its median, and the range of the row."""
    marks = [mark for mark in _marks(series, LINE) if mark.counted]
    centre = float(np.median(series.points["rate"][series.counted]))
    changes = [percent(float(np.log(mark.rate / centre))) for mark in marks]
    span = max(SPAN_LEAST, *(abs(change) for change in _without_extremes(changes)))
    y = Scale(-span, span, middle + 10, middle - 10)
    look = style(text(series.key, "backend", 40))
    points = [
        (picture.x(float(np.mean(series.runs[[mark.first, mark.last]]))), y.clipped(change))
        for mark, change in zip(marks, changes)
    ]
    if len(points) == 1:
        picture.dot(*points[0], f"{_label(series)}: {units.rate(series.levels[-1][2])}")
    else:
        picture.line(points, look.colour, "thin")
    for step in series.steps:
        x1, x2 = (picture.x(float(series.runs[position])) for position in (step.before, step.after))
        picture.box(x1 - 2, middle + 9, x2 + 2, middle + 12, "v-slower" if step.point.size < 0 else "v-faster")
    told = f"{units.rate(series.levels[-1][2])} ± {span:.0f} %"
    picture.text(picture.right - 88, middle + 4, fitting(told, 14 * CHARACTER), "n")


def _table(shown: Sequence[Series]) -> Table:
    rows = []
    for series in shown:
        level = series.levels[-1][2]
        rows.append(
            [
                _name(series),
                _framework(series),
                Cell(str(len(series.points))),
                Cell(date(series.run(0).time_s)),
                Cell(date(series.run(len(series.points) - 1).time_s)),
                Cell(units.rate(level)),
                Cell(f"{_noise(series):.2g} %"),
                Cell(str(len(series.steps))),
            ]
        )
    heads = ("runs", "first", "last", "rate now", "between runs", "steps")
    columns = [Column(head, number=head not in ("first", "last")) for head in heads]
    return Table([Column("case"), Column("framework"), *columns], rows)


def _noise(series: Series) -> float:
    """Half the range of the middle half of the rates of the last level, in percent of its median."""
    first, last, level = series.levels[-1]
    counted = series.counted[(series.counted >= first) & (series.counted <= last)]
    low, high = map(float, np.quantile(series.points["rate"][counted], (0.25, 0.75)))
    return 50 * (high - low) / level


def _changes(history: History) -> List[Block]:
    """Cases that came, went or were renamed, and the baselines that were accepted."""
    blocks: List[Block] = []
    rows = [
        *([*_who(series), Cell("renamed"), Cell(_renamings(series))] for series in history.renamed),
        *([*_who(series), Cell("came"), _at(history, int(series.runs[0]))] for series in history.came),
        *([*_who(series), Cell("went"), _at(history, int(series.runs[-1]))] for series in history.went),
    ]
    if rows:
        columns = [Column("case"), Column("framework"), Column("what"), Column("first or last run")]
        blocks += [Heading("Cases that came, went or were renamed"), Table(columns, rows)]
    if history.accepted:
        columns = [Column("when"), Column("who"), Column("why"), Column("cases", number=True)]
        accepted = [
            [
                *(Cell(shortened(str(each[name]))) for name in ("when", "who", "why")),
                Cell(str(len(each["cases"]))),
            ]
            for each in history.accepted[-LISTED:]
        ]
        blocks += [Heading("Baselines"), Table(columns, accepted)]
    return blocks


def _who(series: Series) -> List[Cell]:
    return [_name(series), _framework(series)]


def _at(history: History, run: int) -> Cell:
    entry = history.runs[run]
    return Cell(f"{date(entry.time_s)}, {short(entry)}")


def _renamings(series: Series) -> str:
    parts = [shortened(series.names[0][0], 80)]
    for name, position in series.names[1:]:
        parts.append(f"{shortened(name, 80)} from {date(series.run(position).time_s)}")
    return ", then ".join(parts)

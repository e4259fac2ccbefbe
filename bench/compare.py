"""`python -m bench.compare A.json B.json`: the results of two files side by side, and what else differs between them.

A ratio is no verdict: two processes of the same code differ. A verdict is shown for a case only where the files have
the processes that the exact rule of stored baselines needs (`bench/results/stored.py`).
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Iterator, List, NoReturn, Optional, Sequence

from rich.box import ASCII2, SIMPLE_HEAD, Box
from rich.table import Table
from rich.text import Text

from bench.report import cases, reading
from bench.report.reading import Run, newest, newest_invalid, number, shortened, text
from bench.results import baseline, fingerprints, table, units
from bench.results.record import Record, is_valid
from bench.results.stored import FRESH_LEAST, OCCASIONS_LEAST, STORED_LEAST
from bench.results.verdict import SLOWER, Verdict

# Two processes of the same code differ by as much on a shared machine: docs/baselines.md.
INDISTINGUISHABLE_PERCENT = 20
BUDGET_PERCENT = 5.0
# The cases that a note names.
NAMED = 4


@dataclass(frozen=True)
class Pair:
    """A case that both files have: its records, and what differs between them besides."""

    a: Record
    b: Record

    @property
    def differences(self) -> List[fingerprints.Difference]:
        return fingerprints.differences(self.b, self.a)

    @property
    def ratio(self) -> Optional[float]:
        """The rate of B over that of A; None: one of them has no rate, or they compute different things."""
        a, b = (number(record, "items_per_s") if is_valid(record) else None for record in (self.a, self.b))
        return b / a if a and b and self.a.get("graph") == self.b.get("graph") else None

    @property
    def verdict(self) -> Optional[Verdict]:
        """By the rule of stored baselines, with A as the stored side; None: the processes are not enough for it."""
        match = baseline.match(self.b, [self.a])
        if self.ratio is None or match is None or not match.comparable or match.lack or self.processes[1] < FRESH_LEAST:
            return None
        return baseline.judge(self.b, match, BUDGET_PERCENT)

    @property
    def processes(self) -> List[int]:
        """The processes of each side."""
        return [len(baseline.processes_of(record)) for record in (self.a, self.b)]


def main(arguments: Optional[List[str]] = None) -> int:
    """Print the comparison. Returns the exit code; 4: an argument is wrong."""
    parser = _Parser(
        "python -m bench.compare",
        description="Two files of results side by side. There is no verdict on"
        " one process a side: for that, use --against, or --baseline with several processes.",
    )
    for name in ("A", "B"):
        parser.add_argument(name, metavar=f"{name}.json", help="a file of --benchmark-json or --benchmark-autosave")
    given = parser.parse_args(arguments)
    try:
        runs = [reading.read(Path(name)) for name in (given.A, given.B)]
    except ValueError as error:
        sys.stderr.write(f"{shortened(str(error), 500)}\n")
        return 4
    for run, name in zip(runs, (given.A, given.B)):
        if not _records(run):
            sys.stderr.write(f"{name} has no result of layerbench\n")
            return 4
    color = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    width = shutil.get_terminal_size((100, 24)).columns
    sys.stdout.write(rendered(runs[0], runs[1], width, sys.stdout.encoding or "ascii", color))
    return 0


class _Parser(argparse.ArgumentParser):
    """Wrong arguments exit with 4, as they do in pytest."""

    def error(self, message: str) -> NoReturn:
        self.exit(4, f"{self.prog}: {message}\n")


def _records(run: Run) -> Dict[str, Record]:
    """The record of each case, with those that are INVALID."""
    records = [*(result.record for result in newest([run])), *newest_invalid([run])]
    return {record["id"]: record for record in records}


def rendered(a: Run, b: Run, width: int, encoding: str = "utf-8", color: bool = False) -> str:
    """The comparison as text of at most `width` columns, if no name is longer, in characters that `encoding` has."""
    records = _records(a), _records(b)
    pairs = [Pair(record, records[1][name]) for name, record in records[0].items() if name in records[1]]
    lines = [f"{name}: {shortened(run.name, 80)}, {run.when}, {_commit(run)}" for name, run in (("A", a), ("B", b))]
    notes = [*_notes(pairs), *_only("A", records[0], records[1]), *_only("B", records[1], records[0])]
    parts = [textwrap.fill(line, width, subsequent_indent="  ", break_on_hyphens=False) for line in (*lines, *notes)]
    if pairs:
        box = SIMPLE_HEAD if encoding.lower().startswith("utf") else ASCII2
        parts[2:2] = _fitting(pairs, width, box, color)
    return "\n".join(parts).encode(encoding, "replace").decode(encoding) + "\n"


def _fitting(pairs: Sequence[Pair], width: int, box: Box, color: bool) -> List[str]:
    """The table as lines: with the names of cases in a column, or else in a line above each row, without the noise."""
    names = _names(pairs)
    whole = table.printed(_table(pairs, names, True, box), color)
    if max(len(Text.from_ansi(line).plain) for line in whole) <= width:
        return whole
    lines = table.printed(_table(pairs, None, False, box), color)
    header = len(lines) - len(pairs)
    named = [line for name, row in zip(names, lines[header:]) for line in (name, f"  {row}")]
    return [*(f"  {line}" for line in lines[:header]), *named]


def _names(pairs: Sequence[Pair]) -> List[str]:
    axes = cases.differing([pair.a for pair in pairs])
    return [f"{cases.label(pair.a, axes)} {text(pair.a, 'backend', 40)}" for pair in pairs]


def _commit(run: Run) -> str:
    commit = text(run.commit, "id", 60)[:12] or "no commit"
    return f"{commit}{' with changes' if run.commit.get('dirty') is True else ''}"


def _table(pairs: Sequence[Pair], names: Optional[Sequence[str]], wide: bool, box: Box) -> Table:
    """A row for each case.

    names   of the cases, for a column of their own
    wide    with the noise of both sides
    """
    grid = Table(box=box, padding=(0, 1), collapse_padding=True, pad_edge=False, show_edge=False)
    verdicts = any(pair.verdict for pair in pairs)
    if names:
        grid.add_column("case", no_wrap=True)
    for head in ("A items/s", "noise", "B items/s", "noise", "B / A"):
        if wide or head != "noise":
            grid.add_column(head, justify="right", no_wrap=True)
    if verdicts:
        grid.add_column("verdict", no_wrap=True)
    for index, pair in enumerate(pairs):
        ratio = "-" if pair.ratio is None else f"{pair.ratio:.3f}"
        cells = [*_side(pair.a, wide), *_side(pair.b, wide), f"{ratio}{'*' if pair.differences else ' '}"]
        verdict = pair.verdict
        cells += [verdict.kind if verdict else ""] if verdicts else []
        cells = [names[index], *cells] if names else cells
        grid.add_row(*map(Text, cells), style="red" if verdict and verdict.kind == SLOWER else None)
    return grid


def _side(record: Record, wide: bool) -> List[str]:
    """The cells of one side: its rate, and its noise."""
    known, noise = number(record, "items_per_s"), number(record, "noise_percent")
    rate = units.rate(known) if is_valid(record) else "INVALID"
    mark = "!" if record.get("disturbed") is True else " "
    return [rate, *([f"{'' if noise is None else f'{noise:.1f}%'}{mark}"] if wide else [])]


def _notes(pairs: Sequence[Pair]) -> Iterator[str]:
    """What else differs, and what the figures can and cannot say."""
    confounded: Dict[str, List[str]] = {}
    for pair in pairs:
        for difference in pair.differences:
            confounded.setdefault(shortened(str(difference)), []).append(pair.a["id"])
    for what, names in confounded.items():
        if what.startswith("graph "):
            yield f"* another graph, so no ratio: {_named(names, pairs)}"
        else:
            yield f"* a difference can come from this as well: {what}: {_named(names, pairs)}"
    if any(record.get("disturbed") is True for pair in pairs for record in (pair.a, pair.b)):
        yield "! the machine was disturbed while the case was timed"
    yield from _carried(pairs)


def _carried(pairs: Sequence[Pair]) -> Iterator[str]:
    """What the processes of the two sides carry."""
    decided = [pair.verdict for pair in pairs if pair.verdict is not None]
    if decided:
        most = max(verdict.false_alarm for verdict in decided)
        yield (
            f"verdict: by the order of all processes, with a budget of {BUDGET_PERCENT:g} %;"
            f" an unchanged case is called slower in {100 * most:.2g} % at most"
        )
    single = sum(max(pair.processes) == 1 for pair in pairs)
    others = len(pairs) - single - len(decided)
    if single:
        which = "" if single == len(pairs) else f" ({single} of {len(pairs)} cases)"
        yield (
            f"one process a side{which}: differences below {INDISTINGUISHABLE_PERCENT} % are not distinguishable"
            " from those between two processes of the same code; --against compares in pairs of fresh processes"
        )
    if others > 0:
        yield (
            f"{others} case{'s' if others > 1 else ''} without a verdict: it takes {STORED_LEAST} processes of"
            f" {OCCASIONS_LEAST} occasions in A, {FRESH_LEAST} processes in B, and no other difference"
        )


def _named(names: Sequence[str], pairs: Sequence[Pair]) -> str:
    """Some names, or that it is all cases."""
    if len(names) == len(pairs):
        return "all cases" if len(pairs) > 1 else shortened(names[0])
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(map(shortened, names[:NAMED])) + more


def _only(side: str, own: Dict[str, Record], other: Dict[str, Record]) -> Iterator[str]:
    """The cases of one file that the other does not have."""
    for name in own:
        if name not in other:
            yield f"only in {side}: {shortened(name)}"


if __name__ == "__main__":
    sys.exit(main())

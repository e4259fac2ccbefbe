"""Run the CPU line of every command of the READMEs, one after another, and report the result of each.

A line that trains runs a second time on generated TFRecords in a temporary folder. Commands with the same line share a
run. The results so far are written to --out after every line.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, TextIO

from bench.cache import write_whole

ROOT = Path(__file__).resolve().parent.parent
PYTHON = [sys.executable, "-m"]
INTERRUPTED = 130
# Seconds that an interrupted run has to end.
END_TIMEOUT_S = 30.0
# Lines of the log that are shown of a failed run.
SHOWN_LINES = 25
GENERATED, REAL = "--data generated", "--data real --data-dir {}"
# Pictures for the second run of a line that trains.
TFRECORDS = "--images 16 --classes 4 --size 96x72 --format tfrecord"
COLUMNS = ("command", "result", "passed", "skipped", "failed", "exit code", "seconds", "line")


@dataclass(frozen=True)
class Line:
    """One command line of the suite.

    command    README, number of the original command there, and name of the line
    side       ipu, ours (any device) or cpu
    expect     the cases that it selects
    original   the original command
    """

    command: str
    side: str
    line: str
    expect: Mapping[str, Any]
    original: str


@dataclass(frozen=True)
class Task:
    """One run: the names of its commands, and its line, in which {} is the folder of TFRecords."""

    commands: str
    line: str


@dataclass(frozen=True)
class Result:
    """The result of a run. A line has run only if a test passed."""

    commands: str
    line: str
    passed: int
    skipped: int
    failed: int
    exit_code: int
    seconds: float

    @property
    def ran(self) -> bool:
        return self.exit_code == 0 and self.failed == 0 and self.passed > 0

    @property
    def word(self) -> str:
        return "ran" if self.ran else "failed" if self.failed or self.exit_code else "only skips"

    @property
    def row(self) -> List[str]:
        counts = (self.passed, self.skipped, self.failed, self.exit_code, round(self.seconds))
        return [self.commands, self.word, *map(str, counts), self.line]


def main(lines: Sequence[Line], only: Optional[str], out: Optional[Path]) -> int:
    """Returns exit code 0 if every line ran, 1 if one did not, 2 if there is nothing to run, 130 after Ctrl-C."""
    try:
        tasks = chosen(tasks_of(lines), only)
        require_writable(out)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    results: List[Result] = []
    interrupted = False
    with tempfile.TemporaryDirectory(prefix="layerbench-") as folder:
        try:
            for task in tasks:
                tell(f"[{len(results) + 1}/{len(tasks)}] {task.commands}: {task.line.format('DIR')}")
                results.append(run(task, Path(folder)))
                write(out, results, len(tasks))
                tell(f"    {summary(results[-1])}; {left(results, len(tasks))}")
        except KeyboardInterrupt:
            interrupted = True
    tell("\n" + table(results))
    if interrupted:
        tell(f"interrupted: {len(results)} of {len(tasks)} lines are done")
        return INTERRUPTED
    failed = [result for result in results if not result.ran]
    seconds = sum(result.seconds for result in results)
    tell(f"{len(results) - len(failed)} of {len(results)} lines ran, {minutes(seconds)}")
    return 1 if failed else 0


def tasks_of(lines: Sequence[Line]) -> List[Task]:
    """The runs, in the order of the page."""
    commands_of: Dict[str, List[str]] = {}
    for line in lines:
        if line.side != "cpu":
            continue
        commands_of.setdefault(line.line, []).append(line.command)
        if "--mode training" in line.line and GENERATED in line.line:
            real = line.line.replace(GENERATED, REAL)
            commands_of.setdefault(real, []).append(f"{line.command} on TFRecords")
    return [Task(", ".join(commands), line) for line, commands in commands_of.items()]


def chosen(tasks: List[Task], only: Optional[str]) -> List[Task]:
    """The tasks that match --only. Raises ValueError if there are none, and for an invalid pattern."""
    try:
        matching = [task for task in tasks if re.search(only or "", f"{task.commands}: {task.line}")]
    except re.error as error:
        raise ValueError(f"--only {only}: no regular expression: {error}") from None
    if not matching:
        raise ValueError(f"--only {only}: found in none of {len(tasks)} lines; commands are 000/1 lstm, 002/3 ...")
    return matching


def require_writable(out: Optional[Path]) -> None:
    """Raise ValueError for a file that cannot be written."""
    if out is not None and out.suffix not in (".json", ".md"):
        raise ValueError(f"--out {out}: a file that ends in .json or .md is needed")
    if out is not None and not os.access(out.absolute().parent, os.W_OK):
        raise ValueError(f"--out {out}: there is no folder {out.absolute().parent} to write to")


def run(task: Task, folder: Path) -> Result:
    """Run one line as a user would, from the root of the checkout."""
    start = time.monotonic()
    report, log, images = folder / "report.xml", folder / "log.txt", folder / "imagenet"
    if report.exists():
        report.unlink()
    code = 0
    with log.open("w") as file:
        if "{}" in task.line and not images.exists():
            code = _process([*PYTHON, "scripts.make_images", *TFRECORDS.split(), "--out", str(images)], file)
        if code == 0:
            line = shlex.split(task.line.format(images))
            code = _process([*PYTHON, *line, "-q", f"--junitxml={report}"], file)
    counts = _counts(report)
    result = Result(task.commands, task.line.format("DIR"), *counts, code, time.monotonic() - start)
    if not result.ran:
        tell("\n".join(f"    | {text}" for text in log.read_text(errors="replace").splitlines()[-SHOWN_LINES:]))
    return result


def _process(command: List[str], file: TextIO) -> int:
    """Run a command and return its exit code. Ctrl-C is forwarded to the command once, so that it can clean up."""
    process = subprocess.Popen(
        command, cwd=str(ROOT), stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
    )
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
        raise


def _counts(report: Path) -> List[int]:
    """The numbers of passed, skipped and failed tests; zeros if the run wrote no report."""
    if not report.exists():
        return [0, 0, 0]
    suites = list(ElementTree.parse(str(report)).getroot().iter("testsuite"))
    keys = ("tests", "skipped", "failures", "errors")
    tests, skipped, failures, errors = (sum(int(suite.get(key, 0)) for suite in suites) for key in keys)
    return [tests - skipped - failures - errors, skipped, failures + errors]


def summary(result: Result) -> str:
    counts = f"{result.passed} passed, {result.skipped} skipped, {result.failed} failed"
    return f"{result.word}: {counts}, exit code {result.exit_code}, {result.seconds:.0f} s"


def left(results: List[Result], count: int) -> str:
    """An estimate of the remaining time, from the mean time of a line."""
    mean_s = sum(result.seconds for result in results) / len(results)
    return f"about {minutes(mean_s * (count - len(results)))} left"


def minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def table(results: List[Result]) -> str:
    """The table for a terminal. It has no column for the lines, which are printed before."""
    rows = [list(COLUMNS[:-1]), *(result.row[:-1] for result in results)]
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def markdown(results: List[Result]) -> str:
    rows = [list(COLUMNS), ["---"] * len(COLUMNS), *([*result.row[:-1], f"`{result.line}`"] for result in results)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def write(out: Optional[Path], results: List[Result], count: int) -> None:
    if out is None:
        return
    if out.suffix == ".md":
        text = markdown(results)
    else:
        rows = [{**asdict(result), "result": result.word} for result in results]
        text = json.dumps({"lines": count, "done": len(results), "results": rows}, indent=2) + "\n"
    write_whole(out.absolute(), text.encode())


def tell(text: str) -> None:
    print(text, flush=True)

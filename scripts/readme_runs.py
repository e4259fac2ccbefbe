"""Run the lines for a CPU of every command of the READMEs, one after another, and say what came of each.

A line that trains runs a second time on TFRecords, which are made for it in a temporary folder. Commands whose lines
are the same share one run. What is done is written to --out after every line, so that an interruption loses nothing.
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
from typing import TYPE_CHECKING, Dict, List, Optional, Sequence, TextIO

from bench.cache import write_whole

if TYPE_CHECKING:
    from scripts.readme_commands import Line

ROOT = Path(__file__).resolve().parent.parent
PYTHON = [sys.executable, "-m"]
INTERRUPTED = 130
# How long an interrupted run has to end, and what is shown of one that failed.
PATIENCE_S, SHOWN = 30.0, 25
GENERATED, REAL = "--data generated", "--data real --data-dir {}"
# Pictures for the second run of a line that trains.
TFRECORDS = "--images 16 --classes 4 --size 96x72 --format tfrecord"
COLUMNS = ("command", "result", "passed", "skipped", "failed", "exit code", "seconds", "line")


@dataclass(frozen=True)
class Task:
    """One run: the commands that it stands for, and its line, in which {} is the folder of TFRecords."""

    commands: str
    line: str


@dataclass(frozen=True)
class Result:
    """What came of a run. A line of which nothing passed has not run."""

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
    """Exit code 0 where every line ran, 1 where one did not, 2 where there is nothing to run, 130 after Ctrl-C."""
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
    lost = [result for result in results if not result.ran]
    tell(f"{len(results) - len(lost)} of {len(results)} lines ran, {minutes(sum(each.seconds for each in results))}")
    return 1 if lost else 0


def tasks_of(lines: Sequence[Line]) -> List[Task]:
    """The runs, in the order of the page."""
    named: Dict[str, List[str]] = {}
    for line in lines:
        if line.side != "cpu":
            continue
        named.setdefault(line.line, []).append(line.command)
        if "--mode training" in line.line and GENERATED in line.line:
            named.setdefault(line.line.replace(GENERATED, REAL), []).append(f"{line.command} on TFRecords")
    return [Task(", ".join(commands), line) for line, commands in named.items()]


def chosen(tasks: List[Task], only: Optional[str]) -> List[Task]:
    """The tasks that --only leaves. Raises ValueError where these are none, and for what is no pattern."""
    try:
        found = [task for task in tasks if re.search(only or "", f"{task.commands}: {task.line}")]
    except re.error as error:
        raise ValueError(f"--only {only}: no regular expression: {error}") from None
    if not found:
        raise ValueError(f"--only {only}: found in none of {len(tasks)} lines; commands are 000/1 lstm, 002/3 ...")
    return found


def require_writable(out: Optional[Path]) -> None:
    """Raise ValueError for a file that could not be written in the end."""
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
        tell("\n".join(f"    | {text}" for text in log.read_text(errors="replace").splitlines()[-SHOWN:]))
    return result


def _process(command: List[str], file: TextIO) -> int:
    """The exit code. Ctrl-C is handed on once, so that what runs can put away what it has begun."""
    process = subprocess.Popen(
        command, cwd=str(ROOT), stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
    )
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
        raise


def _counts(report: Path) -> List[int]:
    """How many passed, were skipped, failed; zeros where the run came to none."""
    if not report.exists():
        return [0, 0, 0]
    suites = list(ElementTree.parse(str(report)).getroot().iter("testsuite"))
    told = {key: sum(int(suite.get(key, 0)) for suite in suites) for key in ("tests", "skipped", "failures", "errors")}
    failed = told["failures"] + told["errors"]
    return [told["tests"] - told["skipped"] - failed, told["skipped"], failed]


def summary(result: Result) -> str:
    counts = f"{result.passed} passed, {result.skipped} skipped, {result.failed} failed"
    return f"{result.word}: {counts}, exit code {result.exit_code}, {result.seconds:.0f} s"


def left(results: List[Result], count: int) -> str:
    """How long the others take, if they take as long as those that are done."""
    each = sum(result.seconds for result in results) / len(results)
    return f"about {minutes(each * (count - len(results)))} left"


def minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def table(results: List[Result]) -> str:
    """The table for a terminal: without the lines, which are long and stand above."""
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
        found = [{**asdict(result), "result": result.word} for result in results]
        text = json.dumps({"lines": count, "done": len(results), "results": found}, indent=2) + "\n"
    write_whole(out.absolute(), text.encode())


def tell(text: str) -> None:
    print(text, flush=True)

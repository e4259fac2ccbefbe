"""The runner of the README's lines: what it runs, what it says of each, and what an interruption leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List

import pytest
from suite import until

from scripts import readme_commands, readme_runs
from scripts.readme_commands import Line
from scripts.readme_runs import Result

# Takes the place of `python -m pytest`: does what its line says, and reports as pytest does.
FAKE = """
import re, signal, sys, time
from pathlib import Path
words = sys.argv[1:]
if words[0] == "scripts.make_images":
    Path(words[words.index("--out") + 1]).mkdir()
    raise SystemExit
said = dict(re.findall(r"--(passed|skipped|failed|exit|sleep)=(\\d+)", " ".join(words)))
counts = {key: int(said.get(key, 0)) for key in ("passed", "skipped", "failed")}
if "sleep" in said:
    Path("started").touch()
    try:
        time.sleep(int(said["sleep"]))
    except KeyboardInterrupt:
        Path("interrupted").touch()
        raise SystemExit(2)
print("of a run:", *words)
report = [word for word in words if word.startswith("--junitxml=")][0].partition("=")[2]
if "exit" not in said or said["exit"] != "4":
    tests = sum(counts.values())
    told = f"tests='{tests}' skipped='{counts['skipped']}' failures='{counts['failed']}' errors='0'"
    Path(report).write_text(f"<testsuites><testsuite {told}/></testsuites>")
raise SystemExit(int(said.get("exit", 1 if counts["failed"] else 0)))
"""


@pytest.fixture(autouse=True)
def _fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "fake.py"
    script.write_text(FAKE)
    monkeypatch.setattr(readme_runs, "PYTHON", [sys.executable, str(script)])
    monkeypatch.setattr(readme_runs, "ROOT", tmp_path)


def lines(**by_command: str) -> List[Line]:
    return [Line(name, "cpu", f"pytest bench {args}", {}, "") for name, args in by_command.items()]


def results(path: Path) -> List[Dict[str, Any]]:
    found: List[Dict[str, Any]] = json.loads(path.read_text())["results"]
    return found


@pytest.mark.parametrize(
    "args, word, code",
    [
        ("--passed=2 --skipped=1", "ran", 0),
        ("--passed=2 --failed=1", "failed", 1),
        ("--skipped=3", "only skips", 1),
        ("--exit=4", "failed", 1),
        ("--passed=1 --exit=3", "failed", 1),
    ],
)
def test_a_line_ran_where_something_passed_and_nothing_failed(args: str, word: str, code: int, tmp_path: Path) -> None:
    out = tmp_path / "out.json"

    assert readme_runs.main(lines(one=args), None, out) == code

    (found,) = results(out)
    assert found["result"] == word


def test_every_line_is_run_and_stands_in_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.md"

    code = readme_runs.main(lines(a="--passed=2", b="--failed=1", c="--passed=1 --skipped=4"), None, out)

    told = capsys.readouterr().out
    assert code == 1
    assert [line for line in told.splitlines() if line.startswith("[")] == [
        "[1/3] a: pytest bench --passed=2",
        "[2/3] b: pytest bench --failed=1",
        "[3/3] c: pytest bench --passed=1 --skipped=4",
    ]
    assert "    ran: 2 passed, 0 skipped, 0 failed, exit code 0, " in told
    assert "    | of a run: pytest bench --failed=1" in told
    assert told.splitlines()[-1].startswith("2 of 3 lines ran, ")
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in out.read_text().splitlines()]
    assert [row[:6] + row[7:] for row in rows[2:]] == [
        ["a", "ran", "2", "0", "0", "0", "`pytest bench --passed=2`"],
        ["b", "failed", "0", "0", "1", "1", "`pytest bench --failed=1`"],
        ["c", "ran", "1", "4", "0", "0", "`pytest bench --passed=1 --skipped=4`"],
    ]


def test_only_leaves_the_commands_and_lines_in_which_it_is_found(tmp_path: Path) -> None:
    out = tmp_path / "out.json"

    assert readme_runs.main(lines(a="--passed=1", b="--passed=2", c="--passed=3"), "^b|=3", out) == 0

    assert [found["commands"] for found in results(out)] == ["b", "c"]


def test_a_line_that_trains_runs_on_tfrecords_as_well(tmp_path: Path) -> None:
    out = tmp_path / "out.json"

    assert readme_runs.main(lines(a="--mode training --data generated --passed=1"), None, out) == 0

    assert [(found["commands"], found["line"]) for found in results(out)] == [
        ("a", "pytest bench --mode training --data generated --passed=1"),
        ("a on TFRecords", "pytest bench --mode training --data real --data-dir DIR --passed=1"),
    ]


def test_commands_of_the_same_line_share_a_run(tmp_path: Path) -> None:
    out = tmp_path / "out.json"

    readme_runs.main(lines(a="--passed=1", b="--passed=1"), None, out)

    assert [found["commands"] for found in results(out)] == ["a, b"]


def test_every_line_for_a_cpu_of_the_page_is_run() -> None:
    page = list(readme_commands.lines(readme_commands.load()))

    tasks = readme_runs.tasks_of(page)

    named = {name for task in tasks for name in task.commands.split(", ")}
    commands = {line.command for line in page if line.side == "cpu"}
    assert len(commands) == 39
    training = {line.command for line in page if line.side == "cpu" and "--mode training" in line.line}
    assert named == commands | {f"{name} on TFRecords" for name in training}
    assert len(training) == 10
    assert all("--epochs" in task.line and "--steps 2" in task.line for task in tasks if "TFRecords" in task.commands)


@pytest.mark.parametrize(
    "only, out, told",
    [
        ("nothing", None, "error: --only nothing: found in none of 1 lines; commands are 000/1 lstm, 002/3 ..."),
        ("(", None, "error: --only (: no regular expression: "),
        (None, "out.txt", "error: --out out.txt: a file that ends in .json or .md is needed"),
        (None, "/nowhere/at/all/out.md", "error: --out /nowhere/at/all/out.md: there is no folder /nowhere/at/all"),
    ],
)
def test_what_cannot_be_is_one_line_and_nothing_is_run(
    only: Any, out: Any, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = readme_runs.main(lines(a="--passed=1"), only, Path(out) if out else None)

    assert code == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(told)
    assert shown.err.count("\n") == 1


RUN = """
import signal, sys
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path.insert(0, {root!r})
from scripts import readme_runs
from scripts.readme_commands import Line
readme_runs.PYTHON, readme_runs.ROOT = [sys.executable, {fake!r}], Path({folder!r})
said = {{"a": "--passed=1", "b": "--sleep=60"}}
lines = [Line(name, "cpu", "pytest bench " + args, {{}}, "") for name, args in said.items()]
raise SystemExit(readme_runs.main(lines, None, Path({folder!r}) / "out.json"))
"""


def test_ctrl_c_ends_the_line_that_runs_and_prints_the_table_of_what_is_done(
    tmp_path: Path,
) -> None:
    code = RUN.format(root=str(readme_commands.ROOT), fake=str(tmp_path / "fake.py"), folder=str(tmp_path))
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True)
    until(lambda: (tmp_path / "started").exists())

    os.kill(process.pid, signal.SIGINT)
    told, _ = process.communicate(timeout=60)

    assert process.returncode == 130
    assert (tmp_path / "interrupted").exists()
    assert told.splitlines()[-1] == "interrupted: 1 of 2 lines are done"
    assert "a        ran" in told
    assert [found["commands"] for found in results(tmp_path / "out.json")] == ["a"]


def test_the_time_that_is_left_is_as_long_a_line_as_the_others_took() -> None:
    done = [Result("a", "", 1, 0, 0, 0, 10.0), Result("b", "", 1, 0, 0, 0, 30.0)]

    assert readme_runs.left(done, 4) == "about 40 s left"
    assert readme_runs.left(done, 11) == "about 3 min left"
    assert readme_runs.left(done, 2) == "about 0 s left"


@pytest.mark.runs
def test_a_real_line_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readme_runs, "PYTHON", [sys.executable, "-m"])
    monkeypatch.setattr(readme_runs, "ROOT", readme_commands.ROOT)
    monkeypatch.setenv("LAYERBENCH_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "out.json"

    code = readme_runs.main(lines(dense="-k dense --units 8 --backend numpy --steps 2"), None, out)

    assert code == 0
    (found,) = results(out)
    assert (found["passed"], found["skipped"], found["failed"], found["exit_code"]) == (1, 0, 0, 0)

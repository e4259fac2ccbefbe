"""Cases that crash, hang or lie, and runs that are interrupted: contained, said in a line, nothing left behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path
from typing import Any, Callable, Dict, List, Set, Tuple

import pytest
from suite import EMPTIES_JSON, SMALL, Result, Suite, alive, case_id, finished, until

from bench.processes import pool

# Each backend goes wrong at batch size 1, after it has said so on stderr, and is sound at batch size 2.
AT_ONE = """
if case.batch_size == 1:
    def wrong():
        for line in range(9):
            print("complaint", line, file=sys.stderr, flush=True)
{fault}
    program.run_resident = wrong
"""
FAULTS: Dict[str, str] = {
    "exits": "os._exit(3)",
    "killed": "os.kill(os.getpid(), signal.SIGKILL)",
    "segfaults": "os.kill(os.getpid(), signal.SIGSEGV)",
    "hangs": "while True: time.sleep(1)",
    "raises": 'raise RuntimeError("the oven is too hot")',
    "leaves": "sys.exit(5)",
}
LIES: Dict[str, str] = {
    "false": 'program.outputs = lambda: {"output": outputs()["output"] * 1.01}',
    "nan": 'program.outputs = lambda: {"output": outputs()["output"] * float("nan")}',
    "reshaped": 'program.outputs = lambda: {"output": outputs()["output"].T}',
    "taller": 'program.outputs = lambda: {"output": outputs()["output"].repeat(2, axis=0)}',
    "mistyped": 'program.compute_dtype = "float16"',
    "one_off": "import numpy\nprogram.outputs = lambda: {'output': outputs()['output'] + (numpy.arange(8) == 3) * 0.1}",
}
SAID: Dict[str, List[str]] = {
    "exits": ["the worker exited with 3", "stderr: complaint 8"],
    "killed": ["the worker was killed by SIGKILL", "stderr: complaint 8"],
    "segfaults": ["the worker was killed by SIGSEGV", "stderr: complaint 8"],
    "hangs": ["no result after 2 s (--case-timeout)", "the worker was killed"],
    "raises": ["RuntimeError: the oven is too hot"],
    "leaves": ["SystemExit: 5"],
    "false": ["wrong result, not recorded", "output is off by"],
    "nan": ["wrong result, not recorded", "output is not finite"],
    "reshaped": ["wrong result, not recorded", "output has shape (8, 1)"],
    "taller": ["wrong result, not recorded", "output has shape (2, 8)"],
    "mistyped": ["wrong result, not recorded", "ran float16 arithmetic"],
    "one_off": ["wrong result, not recorded", "output"],
}
DEADLY = ("exits", "killed", "segfaults", "hangs")

# At the batch size given it tells that it hangs, and hangs.
HANG_AT = """
if case.batch_size == {batch_size}:
    def hang():
        (Path(__file__).parents[2] / "hanging").write_text(str(os.getpid()))
        while True:
            time.sleep(1)
    program.run_resident = hang
"""


def at_one(fault: str) -> str:
    return AT_ONE.format(fault="\n".join("        " + line for line in fault.splitlines()))


@pytest.fixture(scope="module")
def faulty(new_suite: Callable[[], Suite]) -> Tuple[Suite, Result]:
    """One run of every faulty backend, at both batch sizes."""
    suite = new_suite()
    for name, fault in FAULTS.items():
        suite.add_backend(name, at_one(fault))
    for name, lie in LIES.items():
        suite.add_backend(name, "if case.batch_size == 1:\n" + "\n".join("    " + each for each in lie.splitlines()))
    names = ",".join([*FAULTS, *LIES])
    result = suite.run(
        *SMALL,
        f"--backend={names}",
        "--batch-size=1,2",
        "--case-timeout=2",
        "--processes=1",
        "--benchmark-json=run.json",
        "--benchmark-autosave",
        "--baseline=./base.json",
        "--baseline-accept=why",
        "-rA",
        "--durations=40",
    )
    return suite, result


def said_of(result: Result, backend: str) -> str:
    """What the run printed under the heading of a backend's failed case."""
    heading = re.compile(rf"^_+ test_layer\[{re.escape(case_id(backend, 1))}\] _+$")
    lines = result.stdout.splitlines()
    start = next(at for at, line in enumerate(lines) if heading.match(line))
    end = next(at for at in range(start + 1, len(lines)) if re.match(r"^(_{3,}|={3,}) ", lines[at]))
    return "\n".join(lines[start:end])


@pytest.mark.parametrize("name", SAID)
def test_a_faulty_case_fails_and_says_how(faulty: Tuple[Suite, Result], name: str) -> None:
    _, result = faulty

    text = said_of(result, name)

    assert result.outcomes()[case_id(name, 1)] == "FAILED"
    assert [each for each in SAID[name] if each not in text] == [], text


@pytest.mark.parametrize("name", sorted({*SAID} - {"raises", "leaves"}))
def test_no_traceback_of_ours_is_shown_for_a_fault_of_the_case(faulty: Tuple[Suite, Result], name: str) -> None:
    assert "Traceback" not in said_of(faulty[1], name)


@pytest.mark.parametrize("name", SAID)
def test_the_next_case_of_a_faulty_backend_passes(faulty: Tuple[Suite, Result], name: str) -> None:
    assert faulty[1].outcomes()[case_id(name, 2)] == "PASSED"


@pytest.mark.parametrize("name", DEADLY)
def test_a_worker_that_died_is_replaced(faulty: Tuple[Suite, Result], name: str) -> None:
    seen = faulty[0].workers()

    assert set(seen[case_id(name, 1)]).isdisjoint(seen[case_id(name, 2)])


def test_a_worker_that_only_lied_is_kept_warm(suite: Suite) -> None:
    name, lie = sorted(LIES.items())[0]
    suite.add_backend(name, "if case.batch_size == 1:\n" + "\n".join("    " + each for each in lie.splitlines()))

    result = suite.run(*SMALL, f"--backend={name}", "--batch-size=1,2")

    seen = suite.workers()
    assert result.returncode == 1
    assert seen[case_id(name, 1)] == seen[case_id(name, 2)]


@pytest.mark.parametrize("name", DEADLY)
def test_a_death_is_told_once(faulty: Tuple[Suite, Result], name: str) -> None:
    assert said_of(faulty[1], name).count(SAID[name][0]) == 1


def test_a_failed_case_adds_no_warning(faulty: Tuple[Suite, Result]) -> None:
    assert "warning" not in faulty[1].text.lower()


def test_only_the_last_lines_of_stderr_are_shown(faulty: Tuple[Suite, Result]) -> None:
    text = said_of(faulty[1], "exits")

    assert "complaint 8" in text
    assert "complaint 3" not in text


def test_a_failed_case_is_nowhere_in_what_is_stored_or_shown(faulty: Tuple[Suite, Result]) -> None:
    suite, result = faulty
    sound = sorted(case_id(name, 2) for name in SAID)
    saved = next((suite.root / ".benchmarks").rglob("*.json"))

    assert result.returncode == 1
    assert sorted(suite.ids("run.json")) == sound
    assert sorted(suite.ids(str(saved))) == sound
    assert sorted(suite.ids("base.json")) == sound
    table = result.stdout[result.stdout.index("layerbench: dense") :]
    assert sorted(re.findall(r"^ (\w+) +[\d,.]+ +(?:[\d.]+ +)?row", table, re.MULTILINE)) == sorted(SAID)


def test_a_worker_ends_with_the_run(faulty: Tuple[Suite, Result]) -> None:
    pids = {pid for found in faulty[0].workers().values() for pid in found}

    assert pids
    until(lambda: not any(map(alive, pids)), 10)


def interrupted(suite: Suite, stop: Callable[[subprocess.Popen[str]], Any], *args: str) -> Tuple[Result, Set[int]]:
    """Start three cases, `stop` the run in the second, and return its result and its workers' pids."""
    suite.add_backend("hangs", HANG_AT.format(batch_size=2))
    process = suite.start(*SMALL, "--backend=hangs", "--batch-size=1,2,3", "--benchmark-json=run.json", *args)
    try:
        until(lambda: (suite.root / "hanging").exists() or process.poll() is not None)
        pids = {pid for found in suite.workers().values() for pid in found}
        assert pids
        assert all(map(alive, pids))
        stop(process)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return finished(process, 60), pids


def test_ctrl_c_keeps_what_was_measured_and_leaves_no_process(suite: Suite) -> None:
    # As a terminal does it: to every process of the foreground group.
    result, pids = interrupted(suite, lambda process: os.killpg(process.pid, signal.SIGINT))

    assert result.returncode == 2, result.text
    assert suite.ids("run.json") == [case_id("hangs", 1)]
    until(lambda: not any(map(alive, pids)), 10)


def test_ctrl_c_in_process_keeps_what_was_measured(suite: Suite) -> None:
    result, _ = interrupted(suite, lambda process: os.killpg(process.pid, signal.SIGINT), "--in-process")

    assert result.returncode == 2, result.text
    assert suite.ids("run.json") == [case_id("hangs", 1)]


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM"])
def test_a_run_that_is_killed_leaves_no_process_and_no_half_file(suite: Suite, name: str) -> None:
    suite.add("run.json", '{"earlier": true}')

    result, pids = interrupted(suite, lambda process: process.send_signal(getattr(signal, name)))

    assert result.returncode != 0
    until(lambda: not any(map(alive, pids)), 10)
    # pytest-benchmark 4 empties the file before any of our code runs.
    assert EMPTIES_JSON or suite.read("run.json") == {"earlier": True}


def test_what_a_worker_started_ends_with_it(suite: Suite) -> None:
    suite.add_backend(
        "parent",
        """
        import subprocess
        if case.batch_size == 1:
            def hang():
                child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
                (Path(__file__).parents[2] / "child").write_text(str(child.pid))
                child.wait()
            program.run_resident = hang
        """,
    )

    result = suite.run(*SMALL, "--backend=parent", "--batch-size=1", "--case-timeout=2")

    assert result.returncode == 1, result.text
    child = int((suite.root / "child").read_text())
    until(lambda: not alive(child), 10)


def test_a_worker_that_prints_to_stdout_does_not_break_the_run(suite: Suite) -> None:
    suite.add_backend("talks", 'print("hello")\nos.write(1, b"hello from C\\n")')

    result = suite.run(*SMALL, "--backend=talks", "--benchmark-json=run.json")

    assert result.returncode == 0, result.text
    assert suite.ids("run.json") == ["dense-u8-inference-b32-fp32-x1-talks-cpu"]


def test_calibration_does_not_count_against_the_time_limit_of_a_case(suite: Suite, tmp_path: Path) -> None:
    """Eleven kernels of a fifth of a second each take longer than this limit. One library measures them."""
    path = suite.root / "bench" / "calibration.py"
    text = path.read_text()
    everyone, shortest = "return sorted(by_package.values())", "SECONDS_A_KERNEL = 0.001"
    assert everyone in text
    assert shortest in text
    path.write_text(text.replace(everyone, "return ['numpy']").replace(shortest, "SECONDS_A_KERNEL = 0.2"))

    result = suite.run(*SMALL, "--case-timeout=2", LAYERBENCH_CACHE=str(tmp_path))

    assert result.returncode == 0, result.text


def test_two_runs_at_once_in_one_folder_both_save_and_never_time_at_once(suite: Suite) -> None:
    args = (*SMALL, "--batch-size=1,2,3,4", "--benchmark-autosave", "--benchmark-max-time=0.2")

    both = [suite.start(*args), suite.start(*args)]
    results = [finished(process) for process in both]

    assert [result.returncode for result in results] == [0, 0], results
    files = sorted((suite.root / ".benchmarks").rglob("*.json"))
    assert [path.name[:5] for path in files] == ["0001_", "0002_"]
    records: List[Dict[str, Any]] = [e["extra_info"] for path in files for e in suite.read(str(path))["benchmarks"]]
    assert len(records) == 8
    timed = sorted((record["started_s"], record["ended_s"]) for record in records)
    assert [(a, b) for a, b in zip(timed, timed[1:]) if a[1] > b[0]] == []


def test_a_run_leaves_nothing_in_the_temporary_folder(suite: Suite, tmp_path: Path) -> None:
    result = suite.run(*SMALL, TMPDIR=str(tmp_path))

    assert result.returncode == 0, result.text
    assert sorted(tmp_path.iterdir()) == []


def test_the_cause_of_a_native_abort_is_told_before_its_last_frames() -> None:
    frames = [f"frame {number}" for number in range(60)]
    lines = [
        "loading",
        "terminate called after throwing an instance of 'std::runtime_error'",
        "  what():  boom",
        *frames,
    ]

    assert pool.told(lines) == [*lines[1:3], *frames[-5:]]
    assert pool.told(frames) == frames[-5:]


def test_the_line_with_which_tensorflow_ends_a_process_is_a_cause() -> None:
    fatal = "2026-01-01 00:00:00.1: F tensorflow/executor.cc:992] An infeed dataset iterator has failed"

    assert pool.told([fatal, *"abcdefgh"]) == [fatal, *"defgh"]

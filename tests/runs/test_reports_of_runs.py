"""--report: written at the end of a run, whatever became of its cases; refused before it if it cannot be."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Callable

import pytest
from suite import SMALL, TWO, Suite

from bench.report import __main__, reading, sections

ID = "dense-u8-inference-b1-fp32-x1-numpy-cpu"
WRONG = "program.outputs = lambda *given: [value + 1 for value in outputs(*given)]"


def facts(path: Path) -> str:
    """The text of a Markdown report without what differs from run to run."""
    return re.sub(r"(?m)^.*(layerbench report|command \||date \|).*$", "", path.read_text())


def test_a_run_writes_a_page_and_markdown_and_says_where(shared: Suite) -> None:
    files = ("--report=page.html,short.md", "--benchmark-json=out.json")

    result = shared.run(*SMALL, "--benchmark-only", "--batch-size=1,2", *files)

    assert result.returncode == 0, result.text
    for name in ("page.html", "short.md"):
        assert re.search(rf"layerbench: report: \S*/{name} \(\d+ kB\)", result.stdout)
    page = (shared.root / "page.html").read_text()
    assert page.startswith("<!DOCTYPE html>")
    assert page.count("<tr id=") == 2
    assert "2 of 2 cases valid." in page
    assert f"--report={'page.html,short.md'}" in page
    assert not list(shared.root.glob(".*.html*"))


def test_the_report_of_the_stored_file_is_the_same(shared: Suite) -> None:
    shared.run(*SMALL, "--benchmark-only", "--report=run.md", "--benchmark-json=out.json")

    code = __main__.main([str(shared.root / "out.json"), "-o", str(shared.root / "file.md")])

    assert code == 0
    assert facts(shared.root / "file.md") == facts(shared.root / "run.md")
    command = reading.read(shared.root / "out.json").command
    assert command.startswith("pytest bench ")
    assert "--report=run.md" in command


def test_failed_and_skipped_cases_are_in_the_report_with_their_reasons(suite: Suite) -> None:
    suite.add_backend("wrong", WRONG)

    result = suite.run(*SMALL, "--benchmark-only", "--backend=numpy,wrong,popart", "--report=r.md")

    text = (suite.root / "r.md").read_text()
    assert result.returncode == 1
    assert re.search(r"1 of \d cases valid; .*1 failed", text), text
    assert "**failed**" in text


def test_a_run_without_a_case_writes_a_report_that_says_so(shared: Suite) -> None:
    shared.run(*SMALL, "--benchmark-disable", "--report=r.html")

    assert "No case was measured." in (shared.root / "r.html").read_text()


def test_the_summary_of_a_job_gets_the_markdown(shared: Suite) -> None:
    summary = shared.root / "summary.md"
    summary.write_text("before\n")

    args = (*SMALL, "--benchmark-only", "--in-process", "--report=r.html")

    result = shared.run(*args, GITHUB_STEP_SUMMARY=str(summary))

    text = summary.read_text()
    assert text.startswith("before\n## layerbench report")
    assert "1 of 1 case valid." in text
    assert "$GITHUB_STEP_SUMMARY" in result.stdout


def test_without_the_option_there_is_no_summary(shared: Suite) -> None:
    summary = shared.root / "none.md"

    shared.run(*SMALL, "--benchmark-only", "--in-process", GITHUB_STEP_SUMMARY=str(summary))

    assert not summary.exists()


def test_processes_of_xdist_share_one_report(suite: Suite) -> None:
    pytest.importorskip("xdist")

    result = suite.run(*SMALL, *TWO, "--batch-size=1,2", "--report=r.html")

    assert result.returncode == 0, result.text
    assert "2 of 2 cases valid." in (suite.root / "r.html").read_text()
    assert result.stdout.count("layerbench: report:") == 1


def test_a_comparison_is_in_the_report_and_in_the_file(suite: Suite) -> None:
    args = (
        *SMALL,
        "--batch-size=1",
        "--benchmark-only",
        "--against=same",
        "--pairs=9",
        "--budget=30",
        "--benchmark-max-time=0.02",
        "--undecided=pass",
    )

    suite.run(*args, "--report=r.md", "--benchmark-json=out.json")

    (verdict,) = reading.read(suite.root / "out.json").verdicts
    assert verdict["id"] == ID
    assert len(verdict["log_ratios"]) >= 6
    assert "### Verdicts" in (suite.root / "r.md").read_text()
    assert "verdicts" in sections.build([reading.read(suite.root / "out.json")])


def test_a_verdict_of_a_baseline_is_in_the_report_and_in_the_file(history: Suite) -> None:
    history.store("run.json", 2.0)

    met = (*SMALL, "--benchmark-only", "--baseline=./run.json", "--processes=1")

    history.run(*met, "--report=r.md", "--benchmark-json=out.json")

    verdicts = reading.read(history.root / "out.json").verdicts
    assert [verdict["spec"] for verdict in verdicts] == ["baseline run.json"] * len(verdicts)
    assert verdicts
    assert "baseline run.json" in (history.root / "r.md").read_text()


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("r.pdf", "'r.pdf': a report is a file that ends with .html or .md"),
        ("nowhere/r.html", "--report: no folder nowhere"),
        ("a.md,nowhere/r.html", "--report: no folder nowhere"),
        ("/proc/r.html", "/proc"),
    ],
)
def test_a_report_that_cannot_be_written_is_refused_before_anything_is_measured(
    refused: Callable[..., str], value: str, said: str
) -> None:
    assert said in refused(*SMALL, f"--report={value}")

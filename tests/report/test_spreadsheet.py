"""The CSV: a line for each case and run, which a spreadsheet opens and does not compute."""

from __future__ import annotations

import csv
import io
import json

import pytest
from autosaves import case, run_file

from bench.report import __main__ as program
from bench.report import spreadsheet
from bench.results.fields import FIELDS


def rows(path):
    return list(csv.DictReader(io.StringIO(path.read_bytes().decode("utf-8"), newline="")))


def test_there_is_a_line_for_each_case_and_run(tmp_path, capsys):
    for number in range(2):
        run_file(tmp_path / "runs", number, [case(1000.5), case(50.0, "gru", disturbed=True)])
    target = tmp_path / "all.csv"

    code = program.main([str(tmp_path / "runs"), "-o", str(target)])

    found = rows(target)
    assert code == 0
    assert list(found[0]) == ["run", "date", "commit", "dirty", *FIELDS]
    assert [(row["run"], row["workload"], row["items_per_s"]) for row in found] == [
        ("0000_run.json", "lstm", "1000.5"),
        ("0000_run.json", "gru", "50.0"),
        ("0001_run.json", "lstm", "1000.5"),
        ("0001_run.json", "gru", "50.0"),
    ]
    assert found[2]["commit"] == f"{1:040x}"
    assert found[1]["disturbed"] == "True"
    assert json.loads(found[0]["machine"]) == {"cpu": "Paper CPU", "cores": 2}
    assert found[0]["cycles"] == ""


def test_lines_end_as_rfc_4180_says_and_quotes_are_doubled(tmp_path):
    source = run_file(tmp_path, 0, [case(1.0, item='a "b",\nc')])

    spreadsheet.write([source], tmp_path / "all.csv")

    data = (tmp_path / "all.csv").read_bytes()
    assert data.count(b"\r\n") == 2
    assert b'"a ""b"",\nc"' in data


@pytest.mark.parametrize("start", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_a_name_does_not_become_a_formula(start, tmp_path):
    source = run_file(tmp_path, 0, [case(1.0, start, item=start, graph=start)])

    spreadsheet.write([source], tmp_path / "all.csv")

    (row,) = rows(tmp_path / "all.csv")
    assert row["workload"] == row["item"] == row["graph"] == f"'{start}"


def test_a_negative_number_stays_a_number():
    assert [spreadsheet.cell(value) for value in (-1.5, -3, None, True)] == [-1.5, -3, None, True]


def test_invalid_cases_are_there_without_a_rate_or_a_latency(tmp_path):
    """Records of earlier versions have their latency."""
    invalid = case(None, "rnn", validity="INVALID", invalid_reasons=["too short"], latency_p50_s=0.001)
    source = run_file(tmp_path, 0, [case(1.0, latency_p50_s=1.0)], layerbench_invalid=[invalid])

    spreadsheet.write([source], tmp_path / "all.csv")

    found = [(row["validity"], row["items_per_s"], row["latency_p50_s"]) for row in rows(tmp_path / "all.csv")]
    assert found == [("VALID", "1.0", "1.0"), ("INVALID", "", "")]


def test_a_damaged_file_is_named_and_the_others_are_written(tmp_path, capsys):
    run_file(tmp_path / "runs", 0, [case(1.0)])
    (tmp_path / "runs" / "bad.json").write_text("{")

    code = program.main([str(tmp_path / "runs"), "-o", str(tmp_path / "all.csv")])

    assert code == 0
    assert len(rows(tmp_path / "all.csv")) == 1
    assert "left out: " in capsys.readouterr().err


def test_a_stored_baseline_is_no_run(tmp_path):
    source = run_file(tmp_path, 0, [case(1.0)])
    stored = run_file(tmp_path, 1, [case(2.0)], accepted=[])

    spreadsheet.write([source, stored], tmp_path / "all.csv")

    assert [row["items_per_s"] for row in rows(tmp_path / "all.csv")] == ["1.0"]


def test_a_failure_leaves_the_older_file(tmp_path, monkeypatch):
    target = tmp_path / "all.csv"
    target.write_text("before")

    def fail(run):
        raise OSError("the disk is full")

    monkeypatch.setattr(spreadsheet, "rows", fail)

    with pytest.raises(OSError, match="full"):
        spreadsheet.write([run_file(tmp_path, 0, [case(1.0)])], target)

    assert target.read_text() == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0000_run.json", "all.csv"]


def test_a_lone_surrogate_is_written_as_a_question_mark(tmp_path):
    source = run_file(tmp_path, 0, [case(1.0, item="\ud800")])

    spreadsheet.write([source], tmp_path / "all.csv")

    assert rows(tmp_path / "all.csv")[0]["item"] == "?"

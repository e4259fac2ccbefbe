"""`python -m bench.compare`: two files side by side, and no verdict that they do not carry."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from autosaves import case, run_file

from bench import compare
from bench.report import reading

ROOT = Path(__file__).resolve().parents[2]


def compared(tmp_path, a, b, width=120, **options):
    """The text of two runs of these records."""
    runs = [reading.read(run_file(tmp_path / name, 0, records)) for name, records in (("a", a), ("b", b))]
    return compare.rendered(*runs, width, **options)


def processes(rates, gap_s=4 * 3600.0):
    """Processes of these rates; every fourth begins another occasion."""
    return [
        {
            "started_s": 1e9 + index // 4 * gap_s + 60 * (index % 4),
            "items_per_s": rate,
            "noise_percent": 1.0,
            "disturbed": False,
            "steady": True,
        }
        for index, rate in enumerate(rates)
    ]


def with_processes(rates, **changed):
    return case(sorted(rates)[len(rates) // 2], processes=processes(rates), **changed)


STORED = [990.0 + index for index in range(12)]


def test_rates_stand_side_by_side_with_their_ratio(tmp_path):
    text = compared(tmp_path, [case(1000.0), case(40.0, "gru")], [case(900.0), case(50.0, "gru")])

    rows = [line.split() for line in text.splitlines() if line.endswith(("0.900", "1.250"))]
    assert rows == [
        ["lstm", "h8_t3", "torch", "1,000", "0.5%", "900", "0.5%", "0.900"],
        ["gru", "h8_t3", "torch", "40", "0.5%", "50", "0.5%", "1.250"],
    ]


def test_one_process_a_side_is_no_verdict(tmp_path):
    text = compared(tmp_path, [case(1000.0)], [case(500.0)])

    assert "one process a side: differences below 20 % are not distinguishable" in text
    assert not any(word in text for word in ("slower", "faster", "undecided", "verdict"))


def test_enough_processes_have_the_verdict_of_the_rule_of_baselines(tmp_path):
    text = compared(tmp_path, [with_processes(STORED)], [with_processes([900.0, 901.0, 902.0])])

    assert "slower" in text
    # By hand: C(15, 3) = 455.
    assert "an unchanged case is called slower in 0.22 % at most" in text
    assert "one process" not in text


@pytest.mark.parametrize(
    "a, b",
    [
        (with_processes(STORED), with_processes([900.0, 901.0])),
        (with_processes(STORED[:9]), with_processes([900.0, 901.0, 902.0])),
        (with_processes(STORED), with_processes([900.0, 901.0, 902.0], framework_version="2.0")),
        ({**with_processes(STORED), "processes": processes(STORED, gap_s=60.0)}, with_processes([900.0] * 3)),
    ],
    ids=["two fresh", "nine stored", "another version", "one occasion"],
)
def test_too_few_processes_have_no_verdict(a, b, tmp_path):
    text = compared(tmp_path, [a], [b])

    assert "slower" not in text
    assert "1 case without a verdict" in text


def test_what_is_confounded_is_named(tmp_path):
    now = {"framework_version": "2.0", "machine": {"cpu": "Other CPU", "cores": 2}, "device_model": "Other CPU"}

    text = compared(tmp_path, [case(1000.0), case(40.0, "gru")], [case(900.0, **now), case(50.0, "gru")])

    assert "0.900*" in text
    assert "1.250*" not in text
    assert "framework_version 1.0 -> 2.0: lstm-h8_t3-inference-b1-fp32-x1-torch-cpu" in text.replace("\n  ", " ")
    assert "device_model Paper CPU -> Other CPU" in text.replace("\n  ", " ")


def test_another_graph_has_no_ratio(tmp_path):
    text = compared(tmp_path, [case(1000.0)], [case(900.0, graph="other")])

    assert "0.900" not in text
    assert "* another graph, so no ratio" in text


def test_cases_of_one_file_are_named(tmp_path):
    text = compared(tmp_path, [case(1.0), case(1.0, "gru")], [case(1.0), case(1.0, "rnn")])

    assert "only in A: gru-h8_t3-inference-b1-fp32-x1-torch-cpu" in text
    assert "only in B: rnn-h8_t3-inference-b1-fp32-x1-torch-cpu" in text


def test_files_without_a_common_case_have_no_table(tmp_path):
    text = compared(tmp_path, [case(1.0)], [case(1.0, "gru")])

    assert "B / A" not in text
    assert text.count("only in") == 2


def test_an_invalid_case_has_no_rate_and_no_ratio(tmp_path):
    invalid = {**case(None), "validity": "INVALID", "invalid_reasons": ["too short"], "started_s": 1.0}
    a = reading.read(run_file(tmp_path / "a", 0, [case(1.0)]))
    b = reading.read(run_file(tmp_path / "b", 0, [], layerbench_invalid=[invalid]))

    text = compare.rendered(a, b, 120)

    assert "INVALID" in text
    assert "1.000" not in text


@pytest.mark.parametrize("width", [30, 60, 80, 200])
def test_no_line_is_wider_than_the_terminal_but_for_names(width, tmp_path):
    several = [case(1000.0), case(123456.789, "gru", "onnxruntime")]

    text = compared(tmp_path, several, several, width)

    rows = [line for line in text.splitlines() if "1.000" in line or "─" in line]
    assert rows
    assert max(map(len, rows)) <= max(width, 40)


def test_a_terminal_without_utf_8_has_plain_characters(tmp_path):
    text = compared(tmp_path, [case(1.0, item="ü")], [case(1.0)], encoding="ascii")

    assert text.isascii()


def test_colour_is_only_on_a_terminal(tmp_path):
    files = [run_file(tmp_path / name, 0, [case(1.0)]) for name in "ab"]

    done = run(*files)

    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize("name", ["\x1b[31mred", "[red]markup[/red]", "\u202eevil", "\ud800", "x" * 10_000])
def test_a_hostile_name_does_nothing_to_the_terminal(name, tmp_path):
    text = compared(tmp_path, [case(1.0, name, name, host=name)], [case(2.0, name, name, host="b")])

    assert "\x1b" not in text
    assert "\u202e" not in text
    assert max(map(len, text.splitlines())) < 1000
    assert "[red]markup" in text or "markup" not in name


def run(*words, **env):
    """The command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "bench.compare", *map(str, words)],
        cwd=str(ROOT),
        env={**os.environ, **env},
        capture_output=True,
        text=True,
    )


def test_a_bad_file_is_one_line_and_exit_code_4(tmp_path, capsys):
    good = str(run_file(tmp_path, 0, [case(1.0)]))
    (tmp_path / "bad.json").write_text("{")
    (tmp_path / "none.json").write_text('{"benchmarks": []}')

    for bad in ("bad.json", "none.json", "gone.json"):
        for words in ([good, str(tmp_path / bad)], [str(tmp_path / bad), good]):
            assert compare.main(words) == 4
            captured = capsys.readouterr()
            assert captured.out == ""
            assert captured.err.count("\n") == 1
            assert bad in captured.err


def test_a_wrong_number_of_files_is_exit_code_4(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        compare.main(["only.json"])

    assert ended.value.code == 4
    assert capsys.readouterr().err.count("\n") == 1

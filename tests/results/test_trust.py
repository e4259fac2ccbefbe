"""scripts.trust: how often each gate fires, from pairs made by hand."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
from pairs_by_hand import SAME, SLOWER, of_ratios
from suite import ROOT

from bench.results import pair_file
from bench.results.pair import STATISTICS
from scripts.trust import Run, gates, spreads

BUDGETS = {"a": {"rate": 5.0, "mean_rate": 5.0}}


def units(step_s):
    """Two units of a pair: a step takes 1 s on the other side, and `step_s` on this one."""
    blocks = {
        side: {name: [value, value] for name in STATISTICS} for side, value in (("base", 1.0), ("candidate", step_s))
    }
    return [{"order": "ABBA", "blocks": blocks}, {"order": "BAAB", "blocks": blocks}]


def trust(*arguments):
    """Run the script."""
    command = [sys.executable, "-m", "scripts.trust", *map(str, arguments)]
    return subprocess.run(command, cwd=str(ROOT), capture_output=True, text=True)


UNCHANGED = [replace(pair, units=units(1.01)) for pair in of_ratios("a", SAME[:6])]
SLOWED = [replace(pair, units=units(1.1), slowdown=10.0) for pair in of_ratios("a", SLOWER)]


def test_each_gate_has_its_share_of_false_alarms_and_detections():
    """A gate of other tools holds each of 15 processes against those of other pairs."""
    pytest.importorskip("scipy")
    rows = {row[0]: row[1:] for row in ([cell.strip() for cell in line.split("|")[1:-1]] for line in table())}

    assert rows["gate"] == ["unchanged", "+2 %", "+5 %", "+10 %", "+20 %"]
    assert rows["`--against`"] == ["0.0 % (0 of 1)", "-", "-", "100.0 % (1 of 1)", "-"]
    assert rows["min:5%"] == rows["median:5%"] == ["0.0 %", "-", "-", "100.0 %", "-"]
    # Four blocks of 1.01 s against four of 1 s: p = 0.01.
    assert rows["Mann-Whitney"] == ["100.0 %", "-", "-", "100.0 %", "-"]


def table():
    return gates([Run([*UNCHANGED, *SLOWED], BUDGETS, 12)]).splitlines()


def test_a_comparison_that_has_not_ended_counts_for_nothing():
    assert gates([Run(UNCHANGED[:5], BUDGETS, 12)]).splitlines()[2] == "| `--against` | - | - | - | - | - |"


def test_the_comparisons_of_several_files_add_up(tmp_path):
    files = [tmp_path / "one.jsonl", tmp_path / "two.jsonl"]
    for path, pairs in zip(files, (UNCHANGED, [*UNCHANGED, *SLOWED])):
        pair_file.create(path, {"spec": "same", "budgets": BUDGETS, "pairs": 12})
        for each in pairs:
            pair_file.append(path, each)

    done = trust(*files, "--csv", tmp_path / "pairs.csv")

    assert done.stdout.startswith("21 pairs; 0 others")
    assert "| `--against` | 0.0 % (0 of 2) | - | - | 100.0 % (1 of 1) | - |" in done.stdout
    lines = (tmp_path / "pairs.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["run", *6 * ["0"], *15 * ["1"]]


def test_the_spread_is_that_of_the_pairs_without_a_change():
    """Of ln(1 / 1.01) and ln(1 / 1.04): half their distance, times the square root of two."""
    pairs = [*UNCHANGED[:1], replace(UNCHANGED[1], units=units(1.04)), *SLOWED]

    *_, case, median, largest = spreads(pairs).splitlines()

    assert case == f"| a | 2 |{' 2.07 % |' * len(STATISTICS)}"
    assert median.split("|")[3:] == largest.split("|")[3:] == case.split("|")[3:]


def test_the_file_of_another_run_is_refused_in_a_line(tmp_path):
    pair_file.create(tmp_path / "pairs.jsonl", {"spec": "rev=HEAD"})

    done = trust(tmp_path / "pairs.jsonl")

    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith("pairs.jsonl: not the pairs of --self-check or --against same")

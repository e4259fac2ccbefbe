"""One pair: the log ratios of its units and records, by hand; and the file of the pairs."""

from __future__ import annotations

import json
import math
import os

import pytest
from pairs_by_hand import of_ratios, pair

from bench.results import pair as pair_module
from bench.results import pair_file
from bench.results.pair import log_ratios, unit

RECORDS = {
    "base": {"latency_p99_s": 0.002, "memory_case_bytes": 1000, "compile_s": 0.5},
    "candidate": {"latency_p99_s": 0.004, "memory_case_bytes": 1000, "compile_s": 0.25},
}


def test_twice_the_seconds_are_half_the_rate():
    made = unit("ABBA", [[1.0], [2.0], [2.0], [1.0]])

    assert made.log_ratio("median") == pytest.approx(math.log(0.5))


def test_the_letters_say_whose_block_it_is():
    assert unit("BAAB", [[2.0], [1.0], [1.0], [2.0]]).log_ratio("median") == pytest.approx(math.log(0.5))


def test_a_drift_over_the_unit_cancels_out():
    """Every block takes 10 % more than the one before."""
    drifting = [[1.1**index] for index in range(4)]

    assert unit("ABBA", drifting).log_ratio("mean") == pytest.approx(0.0)


def test_a_block_is_stored_by_its_statistics():
    made = unit("ABBA", [[3.0, 1.0, 2.0, 4.0, 10.0], [1.0], [1.0], [1.0]])

    first = {name: values[0] for name, values in made.blocks["base"].items()}
    assert first == {"lower_quartile": 2.0, "median": 3.0, "minimum": 1.0, "mean": 4.0, "p90": 10.0}


def test_the_rate_is_the_median_over_units_of_the_lower_quartile():
    """One unit in three was hit by something, and one step in four of the others."""
    hit = unit("ABBA", [[1.0] * 4, [9.0] * 4, [9.0] * 4, [1.0] * 4])
    quiet = unit("ABBA", [[1.0] * 4, [1.1, 1.1, 1.1, 7.0], [1.1, 1.1, 1.1, 7.0], [1.0] * 4])

    assert log_ratios([quiet, hit, quiet], RECORDS)["rate"] == pytest.approx(-math.log(1.1))


def test_the_metrics_of_the_records_are_ratios_of_their_values():
    ratios = log_ratios([unit("ABBA", [[1.0]] * 4)], RECORDS)

    assert ratios["p99"] == pytest.approx(math.log(2))
    assert ratios["memory"] == 0.0
    assert ratios["compile"] == pytest.approx(-math.log(2))


@pytest.mark.parametrize("value", [None, 0, 0.0, -1.0])
def test_a_metric_without_a_positive_value_is_missing(value):
    records = {**RECORDS, "base": {**RECORDS["base"], "memory_case_bytes": value}}

    assert "memory" not in log_ratios([unit("ABBA", [[1.0]] * 4)], records)


def test_every_metric_comes_from_the_blocks_or_from_a_record():
    assert all(bool(metric.statistic) != bool(metric.field) for metric in pair_module.METRICS.values())
    assert {metric.statistic for metric in pair_module.METRICS.values()} - {""} <= set(pair_module.STATISTICS)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "pairs.jsonl"
    pair_file.create(path, {"seed": 7})
    return path


def test_what_was_written_comes_back(file):
    pairs = of_ratios("a", (0.1, -0.2))
    for each in pairs:
        pair_file.append(file, each)

    assert pair_file.head(file) == {"seed": 7}
    assert pair_file.load(file) == pairs


@pytest.mark.parametrize("cut", [1, 20, 60])
def test_a_line_that_was_cut_off_is_ignored_and_later_ones_are_not(file, cut):
    pair_file.append(file, pair("a", 0, 0.1))
    text = file.read_text()
    file.write_text(text[:-cut])
    pair_file.append(file, pair("a", 1, 0.2))

    assert [each.pair for each in pair_file.load(file)] == ([1] if cut > 1 else [0, 1])


def test_a_full_disk_leaves_the_file_as_it_was(file, monkeypatch):
    pair_file.append(file, pair("a", 0, 0.1))
    before = file.read_bytes()
    write = os.write
    monkeypatch.setattr(pair_file.os, "write", lambda handle, line: write(handle, line[:10]))

    with pytest.raises(OSError, match="No space left"):
        pair_file.append(file, pair("a", 1, 0.2))
    assert file.read_bytes() == before


def test_a_new_run_replaces_the_file(file):
    pair_file.append(file, pair("a", 0, 0.1))
    pair_file.create(file, {"seed": 8})

    assert pair_file.head(file) == {"seed": 8}
    assert pair_file.load(file) == []


def test_a_missing_file_has_nothing(tmp_path):
    assert pair_file.head(tmp_path / "none") == {}
    assert pair_file.load(tmp_path / "none") == []


def test_a_pair_is_plain_data(file):
    assert json.loads(json.dumps(pair("a", 0, 0.1).plain()))["log_ratios"] == {"rate": 0.1, "mean_rate": 0.1}

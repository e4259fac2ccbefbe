"""The phases of a cold path: sums, medians, and what is not known."""

from __future__ import annotations

import pytest

from bench.results import cold, cold_table

PROCESS = {
    "process_start_s": 0.5,
    "import_s": 1.0,
    "graph_s": 0.25,
    "weights_s": 0.25,
    "compile_s": 2.0,
    "first_step_s": 1.5,
    "second_step_s": 0.001,
    "memory_floor_bytes": 2**20,
    "memory_loaded_bytes": 3 * 2**20,
}


def test_the_total_ends_with_the_first_step_which_is_a_part_of_compiling():
    assert cold.total_s(PROCESS) == 4.0


@pytest.mark.parametrize("name", ["process_start_s", "import_s"])
def test_a_total_is_not_known_if_a_part_is_not(name):
    assert cold.total_s({**PROCESS, name: None}) is None


def test_a_summary_has_the_median_and_range_of_the_processes_that_know_it():
    processes = [{**PROCESS, "compile_s": value} for value in (2.0, 5.0, None, 3.0)]

    assert cold.summary(processes, "compile_s") == {"median": 3.0, "least": 2.0, "most": 5.0}
    assert cold.summary(processes, "total_s") == {"median": 5.0, "least": 4.0, "most": 7.0}
    assert cold.summary([{**PROCESS, "import_s": None}], "import_s") == {}


def test_the_table_has_a_line_for_each_state_of_the_caches():
    record = {"id": "a-case", "cold": {"cold": [PROCESS, {**PROCESS, "compile_s": 4.0}], "warm": [PROCESS]}}

    lines = cold_table.render([record]).splitlines()

    at = lines.index("a-case")
    assert lines[at + 1].split()[:4] == ["cold", "5", "s", "(4-6)"]
    assert lines[at + 2].split()[:3] == ["warm", "4", "s"]
    assert "1 MiB" in lines[at + 1]
    assert "3 MiB" in lines[at + 1]
    assert max(map(len, lines)) <= 112

"""Runs with --cold: fresh processes, folders of caches, and what the record has."""

from __future__ import annotations

import pytest
from suite import SMALL, Suite, case_id

# It notes its process and folder of caches, and fills the folder. `run` sleeps in its first call.
CACHING = """
with open(os.environ["NOTES"], "a") as file:
    entries = sorted(os.listdir(settings.caches)) if settings.caches else []
    file.write(f"{os.getpid()} {settings.caches or '-'} {len(entries)}\\n")
if settings.caches:
    Path(settings.caches, str(os.getpid())).write_text("compiled")
"""


@pytest.fixture(scope="module")
def cold(new_suite):
    """A run of one case with two processes a state, the suite in which it ran, and what its processes noted."""
    suite = new_suite()
    suite.add_backend("caching", CACHING)
    notes = suite.root / "notes.txt"
    result = suite.run(
        *SMALL, "--backend=caching", "--benchmark-only", "--cold=2", "--benchmark-json=now.json", NOTES=str(notes)
    )
    assert result.returncode == 0, result.text
    return suite, result, [line.split() for line in notes.read_text().splitlines()]


def test_each_process_is_new_and_caches_are_empty_in_cold_ones_and_filled_in_warm_ones(cold):
    _, _, (measured, *processes) = cold

    assert measured[1:] == ["-", "0"]
    assert len({pid for pid, _, _ in [measured, *processes]}) == 5
    first, second, third, fourth = (folder for _, folder, _ in processes)
    assert first != second
    assert second == third == fourth
    assert [count for _, _, count in processes] == ["0", "0", "1", "2"]


def test_the_record_has_every_phase_of_each_process(cold):
    suite, _, _ = cold
    (entry,) = suite.read("now.json")["benchmarks"]

    found = entry["extra_info"]["cold"]

    assert {state: len(processes) for state, processes in found.items()} == {"cold": 2, "warm": 2}
    for process in [*found["cold"], *found["warm"]]:
        assert all(process[name] > 0 for name in ("process_start_s", "import_s", "graph_s", "weights_s", "compile_s"))
        assert 0 < process["first_step_s"] <= process["compile_s"]
        assert process["memory_loaded_bytes"] > 2**20


def test_the_measured_process_says_its_phases_too(cold):
    suite, _, _ = cold
    (entry,) = suite.read("now.json")["benchmarks"]

    record = entry["extra_info"]

    assert 0 < record["first_step_s"] <= record["compile_s"]
    assert record["second_step_s"] > 0


def test_the_table_names_the_case_and_both_states(cold):
    _, result, _ = cold
    lines = result.stdout.partition("the cold path")[2].splitlines()

    at = lines.index(case_id("caching", 32))
    assert [line.split()[0] for line in lines[at + 1 : at + 3]] == ["cold", "warm"]


def test_a_second_case_of_a_process_has_no_start_and_no_import(suite: Suite):
    result = suite.run(*SMALL, "--benchmark-only", "--batch-size=1,2", "--benchmark-json=now.json")

    assert result.returncode == 0, result.text
    starts = [entry["extra_info"]["process_start_s"] for entry in suite.read("now.json")["benchmarks"]]
    assert starts[0] > 0
    assert starts[1] is None


@pytest.mark.parametrize(
    "more, said",
    [
        (["--in-process"], "--cold and --in-process contradict each other"),
        (["--against=same"], "--cold and --against contradict each other"),
        (["--cold=0"], "--cold"),
    ],
)
def test_what_contradicts_it_is_one_line(suite: Suite, more, said):
    result = suite.run(*SMALL, "--benchmark-only", "--cold=2", *more)

    assert result.returncode == 4, result.text
    assert len(result.errors) == 1
    assert said in result.errors[0]

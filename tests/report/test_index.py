"""The index of a folder: only new and changed files are read, and neither damage nor a killed process spoils it."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from autosaves import case, run_file

from bench.report import entries, index

ROOT = Path(__file__).resolve().parents[2]
COLLECT = "import sys; from pathlib import Path; from bench.report import index; index.collect([Path(sys.argv[1])])"


@pytest.fixture
def reads(monkeypatch):
    """The names of the files that are read, in order."""
    names = []
    entry = entries.entry
    monkeypatch.setattr(entries, "entry", lambda path: names.append(path.name) or entry(path))
    return names


@pytest.fixture
def folder(tmp_path):
    """Three runs of two cases, in pytest-benchmark's layout."""
    for number in range(3):
        run_file(tmp_path / "runs" / "Linux-CPython-3.11-64bit", number, [case(1000.0 + number), case(50.0, "gru")])
    return tmp_path / "runs"


def rates(found):
    return sorted(found.points["rate"].tolist())


def test_each_file_is_read_once(folder, reads):
    first = index.collect([folder])
    second = index.collect([folder])

    assert sorted(reads) == ["0000_run.json", "0001_run.json", "0002_run.json"]
    assert rates(first) == rates(second) == [50.0, 50.0, 50.0, 1000.0, 1001.0, 1002.0]
    assert [entry.head for entry in first.entries] == [entry.head for entry in second.entries]
    assert first.texts == second.texts


def test_a_point_has_what_its_record_has(folder):
    found = index.collect([folder])

    point = found.points[0]
    series = json.loads(found.texts[point["series"]])
    assert (series["id"], series["graph"], series["machine_cpu"]) == (
        "lstm-h8_t3-inference-b1-fp32-x1-torch-cpu",
        "graph of lstm",
        "Paper CPU",
    )
    assert (point["rate"], point["time_s"], point["state"]) == (1000.0, 1.7e9, 0)
    # The quartiles are 0.99 and 1.02 times the median time.
    assert (point["low"], point["high"]) == (pytest.approx(1000 / 1.02), pytest.approx(1000 / 0.99))
    assert json.loads(found.texts[point["facts"]])["framework_version"] == "1.0"


def test_a_new_a_changed_and_a_deleted_file_are_noticed(folder, reads):
    index.collect([folder])
    place = folder / "Linux-CPython-3.11-64bit"
    reads.clear()
    (place / "0000_run.json").unlink()
    run_file(place, 1, [case(77.0)])
    run_file(place, 3, [case(88.0)])

    found = index.collect([folder])

    assert sorted(reads) == ["0001_run.json", "0003_run.json"]
    assert rates(found) == [50.0, 77.0, 88.0, 1002.0]


def test_files_directly_in_the_folder_are_read_as_well(folder):
    run_file(folder, 9, [case(9.0)])

    assert 9.0 in rates(index.collect([folder]))


@pytest.mark.parametrize(
    "damage, reason",
    [
        (b'{"benchmarks": [', "is not JSON"),
        (b"", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[" * 100000, "is not JSON"),
        (b"[1, 2]", "has no list of benchmarks"),
        (b'{"benchmarks": 3}', "has no list of benchmarks"),
    ],
)
def test_a_damaged_file_is_named_and_the_others_are_read(folder, damage, reason):
    (folder / "bad.json").write_bytes(damage)

    for _ in range(2):
        found = index.collect([folder])
        faults = [entry.fault for entry in found.entries if entry.fault]
        assert len(faults) == 1
        assert "bad.json" in faults[0]
        assert reason in faults[0]
        assert len(found.points) == 6


@pytest.mark.parametrize(
    "name, value",
    [
        ("items_per_s", "fast"),
        ("items_per_s", -3.0),
        ("items_per_s", 10**400),
        ("machine", [1]),
        ("started_s", 1e300),
        ("started_s", "yesterday"),
        ("item", {"a": ["\ud800"]}),
        ("graph", None),
        ("step_median_s", 0),
        ("noise_percent", True),
    ],
)
def test_a_damaged_value_spoils_no_other_case(folder, name, value):
    run_file(folder, 5, [case(5.0, "rnn", **{name: value}), case(6.0)])

    found = index.collect([folder])

    assert 6.0 in rates(found)
    assert len(found.points) == 8
    assert all(entry.time_s < 1e11 for entry in found.entries)


def test_an_invalid_case_is_a_point_without_a_rate(folder):
    invalid = case(None, "rnn", validity="INVALID", invalid_reasons=["too short"])
    run_file(folder, 5, [case(6.0)], layerbench_invalid=[{**invalid, "started_s": 1.8e9}])

    found = index.collect([folder])

    (point,) = found.points[found.points["time_s"] == 1.8e9]
    assert point["rate"] != point["rate"]
    assert point["state"] == entries.INVALID


def test_a_stored_baseline_has_no_points_and_says_who_accepted_what(folder):
    accepted = {"who": "Ada", "when": "2026-11-29T08:00:00+00:00", "why": "first", "cases": ["a", "b"]}
    (folder / "main.json").write_text(json.dumps({"accepted": [accepted], "benchmarks": [{"extra_info": case(1.0)}]}))

    found = index.collect([folder])

    (entry,) = (entry for entry in found.entries if entry.accepted)
    assert entry.accepted == [{**accepted, "time_s": 1795939200.0}]
    assert len(found.points) == 6


@pytest.mark.parametrize("damage", [b"", b"no database at all", None], ids=["empty", "text", "cut"])
def test_a_damaged_index_is_made_anew(folder, damage):
    expected = rates(index.collect([folder]))
    file = folder / index.NAME
    file.write_bytes(file.read_bytes()[:5000] if damage is None else damage)

    found = index.collect([folder])

    assert rates(found) == expected
    assert found.notes == []


def test_an_index_of_another_version_is_made_anew(folder, reads, monkeypatch):
    index.collect([folder])
    monkeypatch.setattr(index, "VERSION", index.VERSION + 1)

    found = index.collect([folder])

    assert len(found.points) == 6
    assert len(reads) == 6


def test_a_folder_that_cannot_be_written_keeps_no_index_and_says_so_once(folder):
    # Root can write anywhere: a folder in the place of the index is what nobody can write.
    (folder / index.NAME).mkdir()

    found = index.collect([folder])

    assert len(found.points) == 6
    assert len(found.notes) == 1
    assert "keeps no index" in found.notes[0]


def test_a_full_disk_is_a_note_and_no_error(folder, monkeypatch):
    store, calls = index._store, []

    def failing(connection, *rest):
        calls.append(rest)
        if len(calls) == 2:
            raise sqlite3.OperationalError("database or disk is full")
        store(connection, *rest)

    monkeypatch.setattr(index, "_store", failing)

    found = index.collect([folder])

    assert len(found.points) == 6
    assert "database or disk is full" in found.notes[0]


def test_a_folder_of_nothing_has_no_points(tmp_path):
    assert len(index.collect([tmp_path]).points) == 0


def test_a_file_that_is_given_by_name_must_be_usable(tmp_path):
    with pytest.raises(ValueError, match="No such file"):
        index.collect([tmp_path / "gone.json"])


def test_several_folders_have_one_numbering_of_texts(folder, tmp_path):
    other = tmp_path / "other"
    run_file(other, 7, [case(7.0, "rnn"), case(8.0)])

    found = index.collect([folder, other])

    ids = [json.loads(found.texts[number])["id"].split("-")[0] for number in found.points["series"].tolist()]
    assert ids == ["lstm", "gru"] * 3 + ["rnn", "lstm"]
    assert found.files.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_a_process_that_is_killed_leaves_an_index_that_works(tmp_path, monkeypatch):
    folder = tmp_path / "many"
    for number in range(300):
        run_file(folder, number, [case(1000.0 + number)])
    slow = "import time\nfrom bench.report import index\nindex.BATCH = 10\nstore = index._store\n"
    slow += "index._store = lambda *all: (time.sleep(0.002), store(*all))\n"
    for wait_s in (0.0, 0.1, 0.2):
        process = subprocess.Popen([sys.executable, "-c", slow + COLLECT, str(folder)], cwd=str(ROOT))
        while not (folder / index.NAME).exists() and process.poll() is None:
            time.sleep(0.01)
        time.sleep(wait_s)
        process.send_signal(signal.SIGKILL)
        process.wait()

    found = index.collect([folder])

    assert rates(found) == [1000.0 + number for number in range(300)]
    assert found.notes == []


def test_two_processes_read_one_folder_at_once(tmp_path):
    folder = tmp_path / "many"
    for number in range(100):
        run_file(folder, number, [case(1000.0 + number)])

    processes = [subprocess.Popen([sys.executable, "-c", COLLECT, str(folder)], cwd=str(ROOT)) for _ in range(2)]
    codes = [process.wait() for process in processes]

    assert codes == [0, 0]
    assert rates(index.collect([folder])) == [1000.0 + number for number in range(100)]


def test_a_name_that_is_no_text_is_read(tmp_path):
    path = run_file(tmp_path, 0, [case(5.0)])
    os.rename(os.fsencode(str(path)), os.fsencode(str(tmp_path)) + b"/\xff\xfe.json")

    for _ in range(2):
        assert rates(index.collect([tmp_path])) == [5.0]


def test_pytest_benchmark_does_not_see_the_index(folder):
    index.collect([folder])

    assert not [path for path in folder.rglob("*.json") if "index" in path.name]

"""Files are read whole, and damaged or hostile ones do no harm."""

from __future__ import annotations

import json

import pytest
from stored_files import content, record, write

from bench.report import reading


def test_a_file_is_read_with_its_records_samples_commit_and_date(tmp_path):
    run = reading.read(write(tmp_path / "a.json", [record(rate=500.0)], samples=[0.1, 0.2]))

    assert run.name == "a.json"
    assert run.when == "2026-11-29 08:20 UTC"
    assert run.commit["branch"] == "main"
    assert run.machine["node"] == "paper"
    assert [result.record["items_per_s"] for result in run.results] == [500.0]
    assert list(run.results[0].samples) == [0.1, 0.2]


def test_invalid_records_are_apart_wherever_the_file_has_them(tmp_path):
    bad = record(validity="INVALID", rate=None)

    run = reading.read(write(tmp_path / "a.json", [record()], layerbench_invalid=[bad]))

    assert len(run.results) == 1
    assert [each["validity"] for each in run.invalid] == ["INVALID"]


def test_results_of_other_benchmarks_are_counted_and_left_out(tmp_path):
    path = write(tmp_path / "a.json", [record(), {}, {"schema": 99}])

    run = reading.read(path)

    assert (len(run.results), run.others) == (1, 2)


def test_records_of_schema_1_are_read_with_their_new_names(tmp_path):
    old = {**record(), "schema": 1, "communication_percent": 7.0}
    del old["all_reduce_percent"]

    run = reading.read(write(tmp_path / "a.json", [old]))

    assert run.results[0].record["all_reduce_percent"] == 7.0


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (b"", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[]", "has no list of benchmarks"),
        (b'{"benchmarks": {}}', "has no list of benchmarks"),
        (None, "No such file"),
    ],
)
def test_a_file_that_is_no_such_json_is_an_error_of_one_line(tmp_path, written, said):
    path = tmp_path / "a.json"
    if written is not None:
        path.write_bytes(written)

    with pytest.raises(ValueError, match=said) as error:
        reading.read(path)

    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "changed",
    [
        {"benchmarks": [None, 3, {"extra_info": 4}, {"extra_info": {"schema": 2, "id": ["x"]}}]},
        {"machine_info": 7, "commit_info": [], "datetime": {}, "layerbench": 3, "layerbench_invalid": 4},
        {"layerbench": {"command": 1, "missing": [2], "self_check": []}},
        {"layerbench_invalid": [None, {"schema": 2}]},
    ],
)
def test_parts_of_wrong_types_are_left_out(changed):
    run = reading.from_json("a.json", {**content([]), **changed})

    assert (run.results, run.invalid, run.missing) == ([], [], [])


@pytest.mark.parametrize("value", ["<script>", True, None, [], {}, float("nan"), float("inf"), 10**400])
def test_what_is_no_number_is_read_as_none(value):
    assert reading.number({"items_per_s": value}, "items_per_s") is None


def test_a_number_is_read_whole_or_not():
    assert [reading.number({"x": value}, "x") for value in (3, 2.5)] == [3.0, 2.5]


def test_a_text_is_cut_and_has_no_characters_that_turn_others_round():
    assert reading.text({"x": "a\u202eb\nc\0d"}, "x") == "a b c d"
    assert len(reading.text({"x": "y" * 10_000}, "x")) == reading.LONGEST
    assert reading.text({"x": "y" * 10_000}, "x").endswith("…")
    assert reading.text({"x": None}, "x") == ""
    assert reading.text({"x": {"a": 1}}, "x") == '{"a": 1}'


@pytest.mark.parametrize("data", [["<b>"], [0.1, None], [0.1, float("nan")], [-1.0], "0.1", 4, None])
def test_samples_that_are_no_seconds_are_left_out(data):
    entry = {"extra_info": record(), "stats": {"data": data}}

    run = reading.from_json("a.json", json.loads(json.dumps({**content([]), "benchmarks": [entry]})))

    assert list(run.results[0].samples) == []

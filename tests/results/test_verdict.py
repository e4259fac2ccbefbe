"""Baselines and their verdicts, and files that are written whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from records import MACHINE, record_of

from bench import cache
from bench.results import baseline


@pytest.mark.parametrize(
    "now, before, noises, kind",
    [
        (1000, 1000, (0, 0), "same"),
        (901, 1000, (0, 0), "same"),
        (1110, 1000, (0, 0), "same"),
        (899, 1000, (0, 0), "slower"),
        (1112, 1000, (0, 0), "faster"),
        # Logarithms: 0.1054 of tolerance, and 0.0296 and 0.0392 of noise, 0.0491 together: slower begins below 85.7 %,
        # faster above the inverse of that, 116.7 %.
        (860, 1000, (3, 4), "undecided"),
        (855, 1000, (3, 4), "slower"),
        (1165, 1000, (3, 4), "undecided"),
        (1169, 1000, (3, 4), "faster"),
        # Twice as slow is the noise alone; no noise hides any fall: 0.9 / 3.28 is 27.4 %.
        (500, 1000, (100, 0), "undecided"),
        (275, 1000, (0, 228), "undecided"),
        (273, 1000, (0, 228), "slower"),
        (950, 1000, (50, 50), "same"),
    ],
)
def test_a_change_counts_beyond_the_tolerance_and_the_noise_of_both_sides(now, before, noises, kind):
    found = baseline.judge(record_of(rate=now, noise=noises[0]), record_of(rate=before, noise=noises[1]), 10)

    assert found.kind == kind
    assert found.change_percent == pytest.approx(100 * (now - before) / before)


@pytest.mark.parametrize("now, before", [(True, False), (False, True), (True, True)])
@pytest.mark.parametrize("rate", [500, 2000])
def test_a_disturbed_machine_decides_nothing(now, before, rate):
    found = baseline.judge(record_of(rate=rate, disturbed=now), record_of(disturbed=before), 10)

    assert found.kind == "undecided"
    assert "the machine was disturbed" in found.text


@pytest.mark.parametrize(
    "doubtful, text",
    [
        ({"noise_percent": None, "samples": 1}, "fewer than 5 samples show no noise"),
        # As earlier versions stored it.
        ({"noise_percent": 0.0, "samples": 4}, "fewer than 5 samples show no noise"),
        ({"steady": False}, "it was not steady after the warm-up"),
    ],
)
@pytest.mark.parametrize("rate", [100, 7000])
def test_a_side_whose_rate_is_in_doubt_decides_nothing(doubtful, text, rate):
    for now, base in ((record_of(rate=rate, **doubtful), record_of()), (record_of(rate=rate), record_of(**doubtful))):
        found = baseline.judge(now, base, 10)

        assert found.kind == "undecided"
        assert text in found.text
    assert baseline.judge(record_of(rate=950, **doubtful), record_of(), 10).kind == "same"


@pytest.mark.parametrize(
    "unfit, text",
    [
        ({"noise_percent": 26.0}, "its noise is 26 %, more than 25 % hides a regression"),
        ({"noise_percent": None, "samples": 1}, "fewer than 5 samples show no noise"),
        ({"steady": False}, "it was not steady after the warm-up"),
        ({"source": "fake", "noise_percent": None}, "its source is fake"),
    ],
)
def test_a_record_that_could_not_gate_is_not_stored_and_the_file_stays_as_it_is(tmp_path, unfit, text):
    path = tmp_path / "base.json"
    refused = {**record_of("a-1"), **unfit}

    assert baseline.accept(path, [refused], "me", "first") == [refused]
    assert not path.exists()
    baseline.accept(path, [record_of("b-1")], "me", "second")
    before = path.read_bytes()
    assert baseline.accept(path, [refused], "me", "third") == [refused]
    assert path.read_bytes() == before
    assert baseline.unfit(refused) == text


def test_a_verdict_says_how_much_of_what():
    found = baseline.judge(record_of(rate=800, noise=3.0), record_of(rate=1000, noise=4.0), 10)

    assert found.text == (
        "lstm-h8_t3-inference-b1-fp32-x1-numpy-cpu: 800 sequences, items/s is 20.0 % below the baseline's 1,000"
        " (tolerance 10 %, noise 5.0 %)"
    )
    assert "is 100.0 % above" in baseline.judge(record_of(rate=2000), record_of(), 10).text


def test_a_case_without_a_baseline_is_new():
    assert baseline.judge(record_of(), None, 10).kind == "new"


@pytest.mark.parametrize("key", ["graph", "settings", "framework_version", "device_model", "device_cores"])
@pytest.mark.parametrize("rate", [10, 1000])
def test_what_does_not_match_is_changed_whatever_the_rate(key, rate):
    found = baseline.judge(record_of(rate=rate, **{key: "other"}), record_of(), 10)

    assert found.kind == "changed"
    assert f"{key} {record_of()[key]} -> other" in found.text


def test_a_fact_of_the_device_that_only_one_side_knows_is_a_difference():
    assert baseline.differences(record_of(device_driver="9"), record_of()) == ["device_driver None -> 9"]
    assert baseline.differences(record_of(), record_of(device_driver="9")) == ["device_driver 9 -> None"]


@pytest.mark.parametrize("key", ["load_average_1min", "started_s", "python_version", "compile_s", "tuned_layout"])
def test_what_differs_between_any_two_runs_is_no_difference(key):
    assert baseline.differences(record_of(**{key: 1}), record_of(**{key: 2})) == []


@pytest.mark.parametrize(
    "machine, folder",
    [
        ({"model": "Intel(R) Xeon(R) @ 2.20GHz", "cores": 8}, "intel-r-xeon-r-2-20ghz-8-cores"),
        ({"model": "", "cores": 1}, "1-cores"),
        ({"model": "../../etc", "cores": 1}, "etc-1-cores"),
    ],
)
def test_a_machine_class_is_a_folder_name(machine, folder):
    assert baseline.machine_class(machine) == folder


@pytest.mark.parametrize("name", ["a/b", "x.json", "/tmp/none"])
def test_a_path_is_taken_as_it_is(name):
    assert baseline.path_of(name, Path("/checkout"), MACHINE) == Path(name)


@pytest.mark.parametrize("name", ["nightly", "n" * 300], ids=["short", "long"])
def test_a_name_is_looked_up_by_machine(name):
    assert baseline.path_of(name, Path("/checkout"), MACHINE) == Path(
        f"/checkout/baselines/paper-cpu-2-0ghz-4-cores/{name}.json"
    )


def test_what_is_accepted_can_be_loaded_with_who_when_and_why(tmp_path):
    path = tmp_path / "new" / "folder" / "base.json"

    left_out = baseline.accept(path, [record_of("b-1"), record_of("a-1")], "me", "first")

    assert left_out == []
    assert list(baseline.load(path).values()) == [record_of("a-1"), record_of("b-1")]
    (entry,) = json.loads(path.read_text())["accepted"]
    assert (entry["who"], entry["why"]) == ("me", "first")
    assert entry["cases"] == [record_of("a-1")["id"], record_of("b-1")["id"]]
    assert entry["when"].endswith("+00:00")


def test_accepting_replaces_its_cases_and_keeps_the_others(tmp_path):
    path = tmp_path / "base.json"
    baseline.accept(path, [record_of("a-1", 1.0), record_of("b-1", 1.0)], "me", "first")

    baseline.accept(path, [record_of("b-1", 2.0)], "you", "second")

    assert [found["items_per_s"] for found in baseline.load(path).values()] == [1.0, 2.0]
    assert [entry["why"] for entry in json.loads(path.read_text())["accepted"]] == ["first", "second"]


def test_a_disturbed_record_is_not_accepted_and_replaces_nothing(tmp_path):
    path = tmp_path / "base.json"
    baseline.accept(path, [record_of("a-1", 1.0)], "me", "first")

    left_out = baseline.accept(path, [record_of("a-1", 9.0, disturbed=True)], "me", "second")

    assert [found["items_per_s"] for found in left_out] == [9.0]
    assert [found["items_per_s"] for found in baseline.load(path).values()] == [1.0]


def test_a_folder_is_all_of_its_files(tmp_path):
    baseline.accept(tmp_path / "one.json", [record_of("a-1")], "me", "why")
    baseline.accept(tmp_path / "two.json", [record_of("b-1")], "me", "why")

    assert sorted(baseline.load(tmp_path)) == [record_of("a-1")["id"], record_of("b-1")["id"]]


REFUSED = {
    "empty": ("", "not JSON, or cut off"),
    "cut off": ('{"benchmarks": [{"extra', "not JSON, or cut off"),
    "binary": ("\xff\x00", "not JSON, or cut off"),
    "a list": ("[]", "no list of benchmarks"),
    "a number": ("3", "no list of benchmarks"),
    "another file": ('{"name": "x"}', "no list of benchmarks"),
    "benchmarks of no list": ('{"benchmarks": {}}', "no list of benchmarks"),
    "another suite": ('{"benchmarks": [{"stats": {}}]}', "schema None, this suite writes 2"),
    "entries of text": ('{"benchmarks": ["x"]}', "schema None"),
    "an older schema": ('{"benchmarks": [{"extra_info": {"schema": 0, "id": "x"}}]}', "schema 0, this suite writes 2"),
    "a newer schema": ('{"benchmarks": [{"extra_info": {"schema": 3, "id": "x"}}]}', "schema 3, this suite writes 2"),
    "no case": ('{"accepted": [], "benchmarks": []}', "no case in it"),
    "no id": ('{"benchmarks": [{"extra_info": {"schema": 2}}]}', "lacks id, "),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_is_no_baseline_is_refused_in_one_line(tmp_path, name):
    content, text = REFUSED[name]
    path = tmp_path / "base.json"
    path.write_bytes(content.encode("latin-1"))

    with pytest.raises(ValueError) as refused:  # noqa: PT011 - the text is looked at below
        baseline.load(path)

    assert text in str(refused.value)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("key", ["items_per_s", "noise_percent"])
@pytest.mark.parametrize("value", [float("inf"), float("nan"), -1.0, -1e-9, True, "9", [1]])
def test_a_number_that_cannot_be_is_damage_and_named(tmp_path, key, value):
    path = tmp_path / "base.json"
    path.write_text(json.dumps({"benchmarks": [{"extra_info": {**record_of("a-1"), key: value}}]}))

    with pytest.raises(ValueError, match=f"damaged: {key} of a-1.* is ") as refused:
        baseline.load(path)
    assert "\n" not in str(refused.value)


def test_a_rate_of_nothing_is_damage_and_an_unknown_noise_is_not(tmp_path):
    path = tmp_path / "base.json"
    for key, value in (("items_per_s", 0), ("items_per_s", None)):
        path.write_text(json.dumps({"benchmarks": [{"extra_info": {**record_of("a-1"), key: value}}]}))
        with pytest.raises(ValueError, match="damaged: items_per_s"):
            baseline.load(path)
    path.write_text(json.dumps({"benchmarks": [{"extra_info": {**record_of("a-1"), "noise_percent": None}}]}))
    assert list(baseline.load(path)) == [record_of("a-1")["id"]]


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ValueError, match="No such file"):
        baseline.load(tmp_path / "none.json")


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no \*.json in this folder"):
        baseline.load(tmp_path)


def test_a_baseline_of_another_machine_is_refused_with_both_names():
    with pytest.raises(ValueError, match=r"another machine .*Paper CPU.*here.*Other CPU"):
        baseline.require_own_machine(Path("x"), [record_of()], {"cpu": {**MACHINE, "model": "Other CPU"}})


@pytest.mark.parametrize(
    "records, devices",
    [
        ([record_of()], {"cpu": MACHINE}),
        ([record_of(device_model="Other"), record_of()], {"cpu": MACHINE}),
        ([record_of(device="cuda")], {"cpu": MACHINE}),
        ([record_of()], {}),
        ([], {"cpu": MACHINE}),
    ],
)
def test_a_baseline_with_something_of_this_machine_is_taken(records, devices):
    assert baseline.require_own_machine(Path("x"), records, devices) is None


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_write_that_fails_leaves_what_was_there(tmp_path, monkeypatch, failing):
    def fail(*args):
        raise OSError(28, "No space left on device")

    path = tmp_path / "kept.json"
    cache.write_whole(path, "before")
    monkeypatch.setattr(os, failing, fail)

    with pytest.raises(OSError, match="No space left"):
        cache.write_whole(path, "after")

    assert path.read_text() == "before"
    assert os.listdir(str(tmp_path)) == ["kept.json"]


def test_a_damaged_file_of_the_cache_counts_as_none(tmp_path, monkeypatch):
    monkeypatch.setenv("LAYERBENCH_CACHE", str(tmp_path))
    cache.write("x", {"a": 1})

    assert cache.read("x") == {"a": 1}
    for text in ("", "{", "[1]", "null"):
        (tmp_path / "x.json").write_text(text)
        assert cache.read("x") is None
    assert cache.read("never") is None

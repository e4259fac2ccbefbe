"""Baselines and their verdicts, and files that are written whole or not at all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from records import MACHINE, TEN, judged, processes_of, record_of, with_processes

from bench import cache
from bench.results import baseline, fingerprints

THREE = (1000.0, 1001.0, 999.0)


@pytest.mark.parametrize(
    "rates, kind",
    [
        # Below all of 990 to 1010, and the median of the 30 ratios is below -2.5 %.
        ((940.0, 950.0, 960.0), "slower"),
        ((940.0, 950.0, 995.0), "undecided"),
        ((1040.0, 1050.0, 1060.0), "faster"),
        # From 980 / 1010 to 1020 / 990 is within 5 %.
        ((980.0, 1000.0, 1020.0), "same"),
        ((950.0, 1000.0, 1020.0), "undecided"),
    ],
)
def test_a_case_is_slower_if_all_its_processes_are_below_all_stored_ones(rates, kind):
    found = judged(with_processes(rates), with_processes(TEN))

    assert found.kind == kind
    # 1 / C(13, 3) = 1 / 286.
    assert found.false_alarm == pytest.approx(1 / 286)


def test_a_verdict_says_rate_change_and_how_often_it_is_wrong():
    now, base = with_processes((940.0, 950.0, 960.0)), with_processes(TEN)

    assert baseline.text(now, judged(now, base)) == (
        "lstm-h8_t3-inference-b1-fp32-x1-numpy-cpu: 940 sequences/s; slower: -5.0 %"
        " (99.3 % interval -6.9 to -3.0 %, 3 fresh processes); smallest change seen -5.0 %; false alarms 0.35 %"
    )


def test_an_older_record_is_one_process_which_decides_nothing():
    old = record_of()
    for name in ("processes", "machine", "libraries", "python_version", "interpreter"):
        del old[name]

    found = judged(with_processes((1.0, 1.0, 1.0), machine={"kernel": "6.1"}, libraries={"numpy": "2.0"}), old)

    assert (found.kind, found.reason) == ("undecided", "1 processes are stored, it takes 10")
    assert found.change_percent == pytest.approx(-99.9)


def test_processes_of_one_occasion_decide_nothing():
    base = with_processes(TEN, processes=[{**each, "started_s": 1e9} for each in processes_of(TEN)])

    found = judged(with_processes((1.0, 1.0, 1.0)), base)

    assert found.kind == "undecided"
    assert found.reason == "the stored processes are of 1 occasions, it takes 3, hours apart"


@pytest.mark.parametrize(
    "doubt, text", [({"disturbed": True}, "disturbed"), ({"steady": False}, "it was not steady after the warm-up")]
)
def test_a_process_in_doubt_does_not_count(doubt, text):
    slow = processes_of((900.0, 900.0, 900.0))
    four = [{**slow[0], "items_per_s": 5000.0, **doubt}, *slow]
    two = [{**slow[0], **doubt}, *slow[1:]]

    found = judged(with_processes(THREE, processes=two), with_processes(TEN))

    assert judged(with_processes(THREE, processes=four), with_processes(TEN)).kind == "slower"
    assert found.kind == "undecided"
    assert found.reason.startswith("2 fresh processes, it takes 3, and 1 of this run's do not count: ")
    assert text in found.reason


def test_equal_processes_of_several_records_count_together():
    halves = [with_processes(TEN, processes=part) for part in (processes_of(TEN)[:5], processes_of(TEN)[5:])]

    assert judged(with_processes((900.0, 900.0, 900.0)), *halves).kind == "slower"
    assert judged(with_processes((900.0, 900.0, 900.0)), halves[0]).kind == "undecided"


def test_a_case_without_a_baseline_is_new():
    assert judged(record_of()).kind == "new"


FACTS = {"machine": {"kernel": "6.1", "microcode": "0x1"}, "libraries": {"numpy": "2.0"}, "python_version": "3.11.1"}


@pytest.mark.parametrize("key", ["graph", "settings", "environment", "device_model", "device_cores"])
def test_what_does_not_match_is_changed_whatever_the_rate_and_the_software(key):
    base = with_processes(TEN)

    found = judged(with_processes((1.0, 1.0, 1.0), **{key: "other"}), base, any_software=True)

    assert found.kind == "changed"
    assert found.confounded == (f"{key} {base.get(key)} -> other",)


def test_a_changed_kernel_is_named_as_what_a_change_can_come_from():
    base = with_processes(TEN, **FACTS)
    now = with_processes((1.0, 1.0, 1.0), **{**FACTS, "machine": {"kernel": "6.8", "microcode": "0x1"}})

    found = judged(now, base, any_software=True)

    assert found.line() == "changed: not compared; a change can come from kernel 6.1 -> 6.8 as well"
    assert found.change_percent == pytest.approx(-99.9)


@pytest.mark.parametrize(
    "changed, name",
    [
        ({"framework_version": "1.1"}, "framework_version 1.0 -> 1.1"),
        ({"libraries": {"numpy": "2.1"}}, "numpy 2.0 -> 2.1"),
        ({"libraries": {}}, "numpy 2.0 -> None"),
        ({"python_version": "3.12.0"}, "python_version 3.11.1 -> 3.12.0"),
    ],
    ids=str,
)
def test_other_software_is_compared_only_where_the_user_accepts_it(changed, name):
    base, now = with_processes(TEN, **FACTS), with_processes((900.0, 900.0, 900.0), **{**FACTS, **changed})

    refused, accepted = judged(now, base), judged(now, base, any_software=True)

    assert (refused.kind, accepted.kind) == ("changed", "slower")
    assert "--baseline-software any" in refused.line()
    assert accepted.confounded == refused.confounded == (name,)
    assert accepted.line().endswith(f"; a change can come from {name} as well")


def test_equal_software_is_preferred_to_other():
    other = with_processes([10 * rate for rate in TEN], framework_version="0.9")

    found = judged(with_processes(THREE), other, with_processes(TEN), any_software=True)

    assert (found.kind, found.confounded) == ("same", ())


def test_a_fact_that_an_older_record_does_not_know_is_no_difference():
    assert fingerprints.differences(record_of(device_driver="9", **FACTS), record_of()) == []
    assert [str(each) for each in fingerprints.differences(record_of(), record_of(device_driver="9"))] == [
        "device_driver 9 -> None"
    ]


def test_the_cpu_of_a_case_on_a_gpu_is_a_fact_too():
    facts = {"device": "cuda", "machine": {"cpu": "Paper", "cores": 4}}
    now = record_of(**{**facts, "machine": {"cpu": "Stone", "cores": 4}})

    assert [str(each) for each in fingerprints.differences(now, record_of(**facts))] == ["cpu Paper -> Stone"]


@pytest.mark.parametrize("key", ["load_average_1min", "started_s", "interpreter", "compile_s", "tuned_layout"])
def test_what_differs_between_any_two_runs_is_no_difference(key):
    assert fingerprints.differences(record_of(**{key: 1}), record_of(**{key: 2})) == []


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


def loaded(path):
    """The only record of each case in a file."""
    return {name: record for name, (record,) in baseline.load(path).records.items()}


def rates(record):
    return [process["items_per_s"] for process in record["processes"]]


def test_what_is_accepted_can_be_loaded_with_who_when_and_why(tmp_path):
    path = tmp_path / "new" / "folder" / "base.json"

    accepted = baseline.accept(path, [with_processes(THREE, "b-1"), with_processes(TEN, "a-1")], "me", "first")

    first, second = record_of("a-1")["id"], record_of("b-1")["id"]
    assert accepted.left_out == accepted.replaced == {}
    assert loaded(path) == {first: with_processes(TEN, "a-1"), second: with_processes(THREE, "b-1")}
    (entry,) = json.loads(path.read_text())["accepted"]
    assert (entry["who"], entry["why"]) == ("me", "first")
    assert entry["cases"] == [first, second]
    assert entry["when"].endswith("+00:00")
    assert sorted(accepted.lines()) == [
        f"{first}: 10 processes of 3 occasions: enough",
        f"{second}: 3 processes of 1 occasion: 3 processes are stored, it takes 10; more are stored by another run with"
        " --baseline-accept",
    ]


def test_accepting_adds_to_the_processes_of_its_cases_and_keeps_other_cases(tmp_path):
    path = tmp_path / "base.json"
    baseline.accept(path, [with_processes(THREE, "a-1"), with_processes(THREE, "b-1")], "me", "first")
    later = processes_of((5.0, 6.0), first_s=2e9)

    accepted = baseline.accept(path, [with_processes(THREE, "b-1", processes=later)], "you", "second")

    assert [rates(record) for record in loaded(path).values()] == [list(THREE), [*THREE, 5.0, 6.0]]
    assert [entry["why"] for entry in json.loads(path.read_text())["accepted"]] == ["first", "second"]
    assert accepted.lines() == [
        "1 case: 5 processes of 2 occasions: 5 processes are stored, it takes 10; more are stored by another run with"
        " --baseline-accept"
    ]


def test_accepting_replaces_processes_with_other_facts_and_says_so(tmp_path):
    path = tmp_path / "base.json"
    baseline.accept(path, [with_processes(TEN, "a-1", machine={"kernel": "6.1"})], "me", "first")

    accepted = baseline.accept(path, [with_processes(THREE, "a-1", machine={"kernel": "6.8"})], "me", "second")

    assert [rates(record) for record in loaded(path).values()] == [list(THREE)]
    assert f"replaced, measured with kernel 6.1 -> 6.8: {record_of('a-1')['id']}" in accepted.lines()


def test_accepting_adds_to_an_older_record(tmp_path):
    path = tmp_path / "base.json"
    old = {key: value for key, value in record_of("a-1", 7.0).items() if key not in ("processes", "machine")}
    path.write_text(json.dumps({"benchmarks": [{"extra_info": old}]}))

    baseline.accept(path, [with_processes(THREE, "a-1", machine={"kernel": "6.8"})], "me", "why")

    assert [rates(record) for record in loaded(path).values()] == [[7.0, *THREE]]


def test_some_processes_of_each_occasion_are_kept():
    """Of 30 in an hour the last 10; of 7 such hours the last 40."""
    busy = [{"started_s": 60.0 * index, "items_per_s": float(index)} for index in range(30)]
    days = [{**each, "started_s": each["started_s"] + 86400 * day} for day in range(7) for each in busy]

    assert [each["items_per_s"] for each in baseline.latest(busy)] == [*range(20, 30)]
    assert baseline.latest(days) == [each for day in range(3, 7) for each in days[30 * day + 20 : 30 * day + 30]]


@pytest.mark.parametrize(
    "unfit, text",
    [
        ({"disturbed": True}, "the machine was disturbed"),
        ({"steady": False}, "it was not steady after the warm-up"),
        ({"source": "fake", "items_per_s": None}, "its source is fake"),
    ],
)
def test_a_record_that_decides_nothing_is_not_stored_and_the_file_stays_as_it_is(tmp_path, unfit, text):
    path = tmp_path / "base.json"
    refused = {**record_of("a-1"), **unfit}

    (reason,) = baseline.accept(path, [refused], "me", "first").left_out.values()

    assert text in reason
    assert not path.exists()
    baseline.accept(path, [record_of("b-1")], "me", "second")
    before = path.read_bytes()
    assert baseline.accept(path, [refused], "me", "third").lines() == [f"not stored: {reason}"]
    assert path.read_bytes() == before


def test_a_disturbed_process_is_not_stored_beside_sound_ones(tmp_path):
    first, *others = processes_of(THREE)

    baseline.accept(
        tmp_path / "b.json", [with_processes(THREE, processes=[{**first, "disturbed": True}, *others])], "me", "why"
    )

    assert [rates(record) for record in loaded(tmp_path / "b.json").values()] == [list(THREE[1:])]


def test_accepting_leaves_what_it_cannot_read_in_the_file(tmp_path):
    path = tmp_path / "base.json"
    path.write_text(json.dumps({"benchmarks": ["torn", {"extra_info": {"schema": 99}}]}))

    baseline.accept(path, [with_processes(THREE, "a-1")], "me", "why")

    entries = json.loads(path.read_text())["benchmarks"]
    assert entries[:2] == ["torn", {"extra_info": {"schema": 99}}]
    assert len(entries) == 3


# Accepts one process after the other, and says how many are in the file.
ACCEPTING = """
import sys
from pathlib import Path
sys.path[:0] = {path!r}
from records import processes_of, with_processes
from bench.results import baseline
for index in range(10**6):
    later = processes_of([float(index + 1)], first_s=1e9 + 1e5 * index)
    baseline.accept(Path({file!r}), [with_processes((1.0,), processes=later)], "me", "why")
    print(index + 1, flush=True)
"""


def test_a_kill_while_accepting_loses_nothing(tmp_path):
    file = tmp_path / "base.json"
    code = ACCEPTING.format(path=[str(Path(__file__).parent), str(Path(__file__).parents[2])], file=str(file))
    for moment in (0.0, 0.003, 0.007):
        file.unlink(missing_ok=True)
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(5):
                stored = int(process.stdout.readline())
            time.sleep(moment)
            process.kill()
            stored = max([stored, *map(int, process.stdout.read().split())])

        (record,) = loaded(file).values()

        assert rates(record)[:stored] == [float(index + 1) for index in range(stored)]


def test_two_runs_that_accept_at_once_both_store(tmp_path):
    file = tmp_path / "base.json"
    code = ACCEPTING.format(path=[str(Path(__file__).parent), str(Path(__file__).parents[2])], file=str(file))
    both = [code.replace("10**6", "8"), code.replace("10**6", "8").replace("1e9 +", "2e9 +")]
    running = [subprocess.Popen([sys.executable, "-c", each], stdout=subprocess.DEVNULL) for each in both]
    assert [process.wait(60) for process in running] == [0, 0]

    (record,) = loaded(file).values()

    assert rates(record) == 2 * [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]


def test_a_folder_is_all_of_its_files(tmp_path):
    baseline.accept(tmp_path / "one.json", [record_of("a-1"), with_processes(TEN, "c-1")], "me", "why")
    more = with_processes(THREE, "c-1", processes=processes_of(THREE, first_s=2e9))
    baseline.accept(tmp_path / "two.json", [record_of("b-1"), more], "me", "why")

    found = loaded(tmp_path)

    assert sorted(found) == [record_of(f"{name}-1")["id"] for name in "abc"]
    assert rates(found[record_of("c-1")["id"]]) == [*TEN, *THREE]


def test_three_thousand_files_load_in_seconds(tmp_path):
    for index in range(3000):
        record = with_processes(THREE, processes=processes_of(THREE, first_s=1e9 + 4e4 * index))
        entry = {"stats": {"data": 200 * [0.001]}, "extra_info": record}
        (tmp_path / f"{index:04}_autosave.json").write_text(json.dumps({"benchmarks": [entry]}))
    start = time.perf_counter()

    (record,) = loaded(tmp_path).values()

    assert time.perf_counter() - start < 20
    assert len(record["processes"]) == baseline.KEPT
    assert record["processes"][-1]["started_s"] == 1e9 + 4e4 * 2999 + 120


REFUSED = {
    "empty": ("", "not JSON, or cut off"),
    "cut off": ('{"benchmarks": [{"extra', "not JSON, or cut off"),
    "binary": ("\xff\x00", "not JSON, or cut off"),
    "a list": ("[]", "no list of benchmarks"),
    "a number": ("3", "no list of benchmarks"),
    "another file": ('{"name": "x"}', "no list of benchmarks"),
    "benchmarks of no list": ('{"benchmarks": {}}', "no list of benchmarks"),
    "another suite": ('{"benchmarks": [{"stats": {}}]}', "entry 1: its record has schema None, this suite writes 2"),
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


@pytest.mark.parametrize("key", ["items_per_s", "started_s"])
@pytest.mark.parametrize("value", [float("inf"), float("nan"), -1.0, -1e-9, True, "9", [1], None])
def test_a_number_that_cannot_be_is_damage_and_named(tmp_path, key, value):
    path = tmp_path / "base.json"
    first, *others = processes_of(THREE)
    damaged = with_processes(THREE, "a-1", processes=[*others, {**first, key: value}])
    path.write_text(json.dumps({"benchmarks": [{"extra_info": damaged}]}))

    with pytest.raises(ValueError, match=f"entry 1: damaged: {key} .* of a-1") as refused:
        baseline.load(path)
    assert "\n" not in str(refused.value)


def test_what_is_damaged_is_named_and_skipped_and_the_rest_counts(tmp_path):
    good = {"extra_info": with_processes(TEN, "a-1")}
    entries = ["torn", {"extra_info": {**record_of("b-1"), "items_per_s": -1}}, good]
    (tmp_path / "one.json").write_text(json.dumps({"benchmarks": entries}))
    (tmp_path / "two.json").write_text('{"benchmarks": [{"extra')

    stored = baseline.load(tmp_path)

    assert list(stored.records) == [record_of("a-1")["id"]]
    assert [text.replace(f"{tmp_path}/", "").split(" (")[0] for text in stored.skipped] == [
        "one.json: entry 1: its record has schema None, this suite writes 2",
        f"one.json: entry 2: damaged: items_per_s -1 of {record_of('b-1')['id']}",
        "two.json: not JSON, or cut off",
    ]


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ValueError, match="No such file"):
        baseline.load(tmp_path / "none.json")


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no \*.json in this folder"):
        baseline.load(tmp_path)


@pytest.mark.parametrize(
    "stored, told",
    [
        ({"device_model": "Other CPU"}, "device_model Other CPU -> Paper CPU @ 2.0GHz"),
        ({"device_cores": 8}, "device_cores 8 -> 4"),
        ({"device": "cuda", "device_model": "P7", "device_cores": 9}, "device_model P7 -> P8"),
        (
            {"device": "cuda", "device_model": "P8", "device_cores": 9, "machine": {"cpu": "Other CPU", "cores": 4}},
            "cpu Other CPU -> Paper CPU @ 2.0GHz",
        ),
    ],
    ids=str,
)
def test_a_baseline_of_another_machine_is_refused_and_what_differs_is_named(stored, told):
    devices = {"cpu": MACHINE, "cuda": {"model": "P8", "cores": 9}}

    with pytest.raises(ValueError, match="measured on another machine") as refused:
        baseline.require_own_machine(Path("x"), [record_of(**stored)], devices)

    assert f"({told})" in str(refused.value)


def test_another_kernel_or_driver_is_no_other_machine():
    record = record_of(
        device="cuda",
        device_model="P8",
        device_driver="1",
        machine={"cpu": MACHINE["model"], "cores": 4, "kernel": "6.1"},
    )
    del record["device_cores"]

    baseline.require_own_machine(Path("x"), [record], {"cpu": MACHINE, "cuda": {"model": "P8", "driver": "2"}})


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

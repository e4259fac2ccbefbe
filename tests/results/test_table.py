"""The table at the end of a run."""

from __future__ import annotations

import pytest
from records import TEN, judged, record_of, with_processes

from bench.results import table

pytestmark = pytest.mark.floor
LONG = record_of(
    "grouped_conv-c65536_f65536_k1024_s1024_i65536_r1000_g65536",
    123_456_789.0,
    99.9,
    backend="onnxruntime",
    percent_of_peak=0.000123456,
)


def lines_of(*rows):
    return table.render(rows).splitlines()


@pytest.mark.parametrize(
    "rows",
    [
        [(LONG, None)],
        [(LONG, None), (record_of(), None)],
        [(LONG, judged(LONG, record_of(LONG["id"], 1.0))), (record_of(mode="training"), None)],
        [({**LONG, "steady": False, "disturbed": True}, None), (record_of(batch_size=10**6, precision="fp16m"), None)],
    ],
)
def test_a_table_is_at_most_a_hundred_columns_wide(rows):
    assert [line for line in lines_of(*rows) if len(line) > 100] == []


def test_a_table_loses_no_part_of_a_long_name():
    text = "".join(table.render([(LONG, None), (record_of(), None)]).split())

    assert "123,456,789" in text
    assert "…" not in text


def test_the_fastest_backend_of_a_case_comes_first():
    rates = {"numpy": 2.0, "torch": 8.0, "openvino": 4.0}
    rows = [(record_of(rate=rate, backend=name), None) for name, rate in rates.items()]
    other = (record_of("dense-u8", 1.0), None)

    found = [word for line in lines_of(*rows, other) for word in line.split() if word in rates]

    assert found == ["numpy", "torch", "openvino", "numpy"]


def test_axes_of_one_value_stand_in_the_title():
    title, *lines = lines_of((record_of(batch_size=1), None), (record_of(batch_size=64), None))

    assert title == "layerbench: lstm, h8_t3, inference, fp32, cpu, 1 thread"
    assert "batch" in "".join(lines)
    assert "lstm" not in "".join(lines)


def test_a_case_that_was_measured_twice_is_noted_once():
    record = record_of("a-1", disturbed=True, steady=False, peak_raised=True)

    text = table.render([(record, None), (record, None)])

    assert text.count(f"\n  {record['id']}") == 3


def test_disturbed_and_unsteady_cases_are_marked():
    text = table.render([(record_of("a-1", disturbed=True, noise=2.0), None), (record_of("b-1", steady=False), None)])

    assert "2.0%!" in text
    assert f"disturbed: the memory up to 2.3 times slower than known:\n  {record_of('a-1')['id']}\n" in text
    busy = table.render([(record_of("a-1", disturbed=True, canary_slowdown_after=1.0, others_percent=37.4), None)])
    assert f"disturbed: others took up to 37 % of the cores:\n  {record_of('a-1')['id']}" in busy
    assert "times slower" not in busy
    assert f"not steady after the warm-up:\n  {record_of('b-1')['id']}" in text
    assert "!" not in table.render([(record_of(), None)])


def test_a_change_has_a_column_where_there_is_a_baseline():
    slower = judged(with_processes(3 * [500.0]), with_processes(10 * [1000.0]))

    assert "-50.0% slower" in table.render([(record_of(rate=500), slower)])
    assert "new" in table.render([(record_of(), judged(record_of()))])
    assert "change" not in table.render([(record_of(), None)])


def test_what_a_change_can_come_from_is_named_with_the_cases():
    rows = [
        (now, judged(now, with_processes(TEN, machine={"kernel": "6.1"})))
        for now in (with_processes(TEN, batch_size=size, machine={"kernel": "6.8"}) for size in (1, 2))
    ]

    assert "\n".join(["changed, so not compared: kernel 6.1 -> 6.8:", *2 * [f"  {record_of()['id']}"]]) in (
        table.render(rows)
    )


NETWORK = {"latency_p99_s": 0.0123, "protocol_items_per_s": 55.5}


@pytest.mark.parametrize(
    "name, changed, shown",
    [
        ("resnet8-i32", {}, {"p99"}),
        ("resnet8-i32", {"latency_p99_s": None}, {"p99"}),
        ("resnet8-i32", {"protocol": "tensorflow_cnns"}, {"p99", "theirs"}),
        ("resnet8-i32", {"mode": "training"}, set()),
        ("dense-u8", {}, set()),
        ("dense-u8", {"protocol": "popart_layers"}, {"theirs"}),
    ],
)
def test_latency_and_the_rate_of_a_program_have_columns_where_they_matter(name, changed, shown):
    _, head, *rest = lines_of((record_of(name, **{**NETWORK, **changed}), None))

    assert {column for column in ("p99", "theirs") if column in head.split()} == shown
    assert ("12.3 ms" in "".join(rest)) == ("p99" in shown and "latency_p99_s" not in changed)
    assert ("55.5" in "".join(rest)) == ("theirs" in shown)


def test_a_note_says_whose_rate_theirs_is():
    found = table.render([(record_of(protocol="popart_layers", protocol_items_per_s=55.5), None)])

    assert "theirs: the rate as the program popart_layers has it" in found.splitlines()
    assert "min" not in found


def test_a_note_has_what_the_program_prints_besides_its_rate():
    spread = {"protocol_min_items_per_s": 50.0, "protocol_max_items_per_s": 60.25, "protocol_std_items_per_s": 2.0}

    found = table.render([(record_of(protocol="pytorch_cnns", protocol_items_per_s=55.5, **spread), None)])

    assert f"{record_of()['id']}: theirs min 50, max 60.25, std 2" in found.splitlines()


def test_a_note_says_why_there_is_no_rate_of_theirs():
    found = table.render([(record_of(protocol="pytorch_cnns", samples=2), None)])

    note = "no rate of theirs: pytorch_cnns drops the first 2 samples, and there are 2"
    assert f"{record_of()['id']}: {note}" in found.splitlines()


def test_what_real_images_and_epochs_found_stands_below_the_table():
    learnt = {"epochs": 2.5, "loss_first": 6.9, "loss_last": 1.234}
    hits = {"top1_percent": 76.131, "top5_percent": 92.86, "images_scored": 50000}
    real = {"bound_by": "bound by pipeline: at most 107 items/s", "images_skipped": 3}
    real["weights_note"] = "weights are those of a.pt, its entry state_dict"

    found = table.render([(record_of("resnet8-i32", **NETWORK, **learnt, **hits, **real), None)])

    name = record_of("resnet8-i32")["id"]
    for note in (
        f"{name}: 2.5 epochs, loss 6.9 to 1.23",
        f"{name}: top-1 76.13 %, top-5 92.86 % of 50000 images",
        f"{name}: bound by pipeline: at most 107 items/s",
        f"{name}: 3 bad images left out",
        f"{name}: weights are those of a.pt, its entry state_dict",
    ):
        assert note in found.splitlines()


def test_no_note_is_made_of_what_does_not_apply():
    assert record_of("resnet8-i32")["id"] not in table.render([(record_of("resnet8-i32", **NETWORK), None)])


@pytest.mark.parametrize(
    "value, text",
    [(1.3, "1.3 s"), (0.00405, "4.05 ms"), (8.12e-5, "81.2 us"), (2.5e-8, "25 ns"), (75.0, "75 s"), (1.0, "1 s")],
)
def test_a_time_has_a_fitting_unit(value, text):
    assert table.seconds(value) == text


@pytest.mark.parametrize("value", [0.9999, 0.0009996, 999.9e-6, 1234.0])
def test_a_time_is_never_written_with_an_exponent(value):
    assert "e" not in table.seconds(value)


@pytest.mark.parametrize("value, text", [(1234.5, "1,234"), (12.3456, "12.35"), (0.5, "0.5"), (1e6, "1,000,000")])
def test_a_rate_has_four_figures_or_all_of_them(value, text):
    assert table.rate(value) == text


@pytest.mark.parametrize(
    "whole, named", [(1000.0, False), (700.0, False), (500.0, True), (2000.0, True), (None, False)]
)
def test_a_rate_over_the_whole_section_is_named_where_it_is_another(whole, named):
    row = record_of("lstm-h8_t3", 1000.0, section_items_per_s=whole)

    text = "\n".join(lines_of((row, None)))

    expected = f"{table.rate(whole)} items/s over the whole timed section, and 1,000 by the median:\n  {row['id']}"
    assert text.count("section") == text.count(expected) == int(named)


def test_what_was_not_compiled_is_a_line_for_each_reason():
    rows = [(record_of(not_compiled=reason), None) for reason in ("no g++", None, "no g++", "no disk")]

    assert [line for line in lines_of(*rows) if line.startswith("not compiled")] == [
        "not compiled, so slower: 2 cases, since no g++",
        "not compiled, so slower: 1 case, since no disk",
    ]


def test_variables_that_were_removed_are_one_line():
    rows = [(record_of(removed_variables={name: "0"}), None) for name in ("OMP_PLACES", "KMP_AFFINITY", "OMP_PLACES")]

    assert lines_of(*rows)[-1].endswith("by --pin: KMP_AFFINITY, OMP_PLACES")


@pytest.mark.parametrize(
    "threads, cores, present, line",
    [
        (1, "", 1, ""),
        (2, "0,1", 4, ""),
        (2, "", 1, "warning: 2 threads share 1 core (--threads, --pin)"),
        (4, "0,3", 4, "warning: 4 threads share 2 cores (--threads, --pin)"),
        (4, "", None, ""),
    ],
)
def test_more_threads_than_cores_are_one_line(threads, cores, present, line):
    rows = 2 * [(record_of(threads=threads, cores=cores, device_cores=present), None)]

    assert [each for each in lines_of(*rows) if each.startswith("warning")] == ([line] if line else [])

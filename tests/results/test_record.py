"""Records: rates, costs and shares worked out by hand, and the schema that documents them."""

from __future__ import annotations

import dataclasses

import pytest
from records import PEAK

from bench import workloads
from bench.cases.case import Case, Settings
from bench.clock.sampling import Samples
from bench.program import Step
from bench.results import fields, record, table
from scripts import record_page

pytestmark = pytest.mark.floor
# What a worker sees besides; kept to plain values.
FOUND = {
    "checked_rows": 4,
    "relative_error": 1e-7,
    "canary_slowdown_before": 1.0,
    "canary_slowdown_after": 1.1,
    "load_average_1min": 0.5,
    "canary_kind": "arithmetic",
    "others_percent": 0.5,
    "core_hz": 2e9,
    "disturbed": False,
    "started_s": 1.7e9,
    "ended_s": 1.7e9 + 1,
    "compile_s": 0.25,
    "framework_version": "1.2.3",
    "batches_in_flight": 1,
    "tuned_layout": "plain",
    "device_model": "a machine",
}
# Null in the record of a layer: what `record.latency`, `record.with_peak`, fixtures/measure.py and real images add.
LATER = set(
    """
    weights_note processes revision tolerance gradient_error checked_size
    cold graph_s weights_s import_s process_start_s first_step_s second_step_s
    memory_floor_bytes memory_loaded_bytes memory_peak_bytes memory_case_bytes
    environment removed_variables not_compiled
    step_p90_s step_p99_s latency_p50_s latency_p90_s latency_p99_s latency_p999_s
    rechecked rechecked_error autocorrelation
    percent_of_peak peak_tflops peak_gbytes_per_s peak_library peak_raised
    data_dir images_skipped pipeline_items_per_s transfer_s_per_item compute_s_per_item bound_by
    top1_percent top5_percent images_scored epochs loss_first loss_last
    profile profile_step_s profile_profiled_s profile_trace profile_note
    cycles sdk_latency_s scaling_percent replica_items_per_s all_reduce_percent
    protocol_items_per_s protocol_min_items_per_s protocol_max_items_per_s protocol_std_items_per_s
    """.split()
)


def case_of(layer="dense", mode="inference", precision="fp32", batch_size=32, **size):
    module = workloads.load(layer)
    dimensions = {**next(iter(workloads.named_sizes(module).values())), **size}
    kept = {key: dimensions[key] for key in module.dimensions}
    return Case(layer, "tiny", kept, mode, batch_size, precision, 1, "numpy", "cpu")


def built(case, seconds=5 * (0.5,), settings=None, iterations=1, replicas=1, **found):
    settings = settings or Settings()
    step = Step(lambda: None, workloads.items(case), replicas, iterations)
    samples = Samples(list(seconds), 1, 3, 0.5, True, section_s=2 * sum(seconds))
    return record.build(case, settings, workloads.of_case(case), step, samples, {**FOUND, **found})


def test_a_rate_is_items_over_the_median_step():
    made = built(case_of(), [1.0, 0.25, 0.5], iterations=3, replicas=2)

    assert made["items_per_step"] == 192
    assert made["step_median_s"] == 0.5
    assert made["items_per_s"] == 384
    assert made["item"] == "row"


def test_the_rate_over_the_whole_section_counts_the_pauses():
    """32 rows a step, two steps in a sample of which there are three, 16 s in all."""
    case = case_of()
    samples = Samples([0.5, 0.5, 0.5], 2, 3, 0.5, True, section_s=16.0)

    made = record.build(case, Settings(), workloads.of_case(case), Step(lambda: None, 32), samples, FOUND)

    assert made["items_per_s"] == 64
    assert made["section_items_per_s"] == 12


def test_an_unknown_section_has_no_rate():
    case = case_of()
    samples = Samples([0.5], 1, 3, 0.5, True)

    made = record.build(case, Settings(), workloads.of_case(case), Step(lambda: None, 32), samples, FOUND)

    assert made["section_items_per_s"] is None


def test_a_mean_and_percentiles_are_of_the_samples():
    made = built(case_of(), [float(i) for i in range(100, 0, -1)])

    assert made["step_mean_s"] == 50.5
    assert made["step_median_s"] == 50.5
    assert made["step_p90_s"] == 90
    assert made["step_p99_s"] == 99
    assert made["samples"] == 100


@pytest.mark.parametrize(
    "count, p90, p99",
    [(1, None, None), (9, None, None), (10, 9, None), (11, 10, None), (99, 90, None), (100, 90, 99), (1000, 900, 990)],
)
def test_a_percentile_is_the_nearest_rank_and_null_where_that_is_the_largest(count, p90, p99):
    made = built(case_of(), [float(i) for i in range(1, count + 1)])

    assert (made["step_p90_s"], made["step_p99_s"]) == (p90, p99)


@pytest.mark.parametrize("share, percent", [(0.90, 90), (0.99, 99)])
def test_a_percentile_has_no_rounding_error_of_its_own(share, percent):
    """Nearest rank in integers: ceil(percent x count / 100)."""
    wrong = [
        count
        for count in range(100, 3000)
        if fields.percentile(list(range(1, count + 1)), share) != -(-percent * count // 100)
    ]

    assert wrong == []


def test_a_row_of_a_dense_layer_costs_what_paper_says():
    """1024 x 1024 products and 1024 sums: 2 MFLOP a row; 32 rows in, out and the weights move."""
    made = built(case_of())

    assert made["parameters"] == 1_049_600
    assert made["flops_per_item"] == 2 * 1024 * 1024
    assert made["bytes_per_item"] == 4 * (1_049_600 + 65_536) / 32
    assert made["tflops"] == pytest.approx(67_108_864 / 0.5 / 1e12)
    assert made["gbytes_per_s"] == pytest.approx(4 * 1_115_136 / 0.5 / 1e9)


def test_training_counts_three_passes_and_the_weights_once_more():
    made = built(case_of(mode="training"))

    assert made["flops_per_item"] == 3 * 2 * 1024 * 1024
    assert made["bytes_per_item"] == 4 * (2 * 1_049_600 + 65_536) / 32
    assert made["tflops"] == pytest.approx(3 * 67_108_864 / 0.5 / 1e12)


def test_eval_counts_one_pass():
    assert built(case_of(mode="eval"))["flops_per_item"] == 2 * 1024 * 1024


@pytest.mark.parametrize("precision, size", [("fp32", 4), ("fp16", 2), ("bf16", 2), ("fp16m", 2), ("bf16m", 2)])
def test_bytes_follow_the_precision(precision, size):
    assert built(case_of(precision=precision))["bytes_per_item"] == size * 1_115_136 / 32


def test_many_batches_behind_a_call_do_not_change_what_an_item_costs():
    one, many = built(case_of(), [0.5]), built(case_of(), [5.0], iterations=10)

    for key in ("items_per_s", "flops_per_item", "bytes_per_item"):
        assert many[key] == one[key]
    for key in ("tflops", "gbytes_per_s"):
        assert many[key] == pytest.approx(one[key])


def test_an_item_of_hmc_is_a_transition():
    made = built(case_of("hmc", batch_size=2, hmc_steps=1000), [0.5])

    assert made["items_per_step"] == 2000
    assert made["bytes_per_item"] == 4


def test_where_no_peak_is_known_there_is_no_share():
    made = record.with_peak(built(case_of()), {})

    peaks = ("percent_of_peak", "peak_tflops", "peak_gbytes_per_s", "peak_library", "peak_raised")
    assert [made[name] for name in peaks] == [None] * 5


def test_batches_behind_a_call_do_not_make_a_working_set_larger():
    """A thousand batches read one set of weights a thousand times: it stays where it is, in the cache."""
    one = record.with_peak(built(case_of(), [0.01]), PEAK)
    many = record.with_peak(built(case_of(), [10.0], Settings(batches_per_step=1000), 1000), PEAK)

    assert many["peak_gbytes_per_s"] == one["peak_gbytes_per_s"]
    assert many["percent_of_peak"] == pytest.approx(one["percent_of_peak"])


@pytest.mark.parametrize("peak", [{}, PEAK])
def test_a_record_has_the_documented_keys_and_no_other(peak):
    made = record.with_peak(built(case_of()), peak)

    own = {key for key in made if not key.startswith(("tuned_", "device_"))}

    assert own == set(fields.FIELDS)


def test_what_does_not_apply_is_null_and_nothing_else():
    made = built(case_of())

    assert {key for key, value in made.items() if value is None} == LATER


def test_a_record_names_its_case_by_axis_and_id():
    case = case_of("lstm", "training", "bf16", 7)

    made = built(case)

    assert made["id"] == case.id == "lstm-tiny-training-b7-bf16-x1-numpy-cpu"
    axes = ("workload", "mode", "batch_size", "precision", "replicas", "backend", "device")
    assert [made[axis] for axis in axes] == ["lstm", "training", 7, "bf16", 1, "numpy", "cpu"]


def test_a_record_holds_the_graph_that_is_timed():
    case = case_of("hmc", batch_size=1)

    assert built(case)["graph"] == workloads.of_case(case).fingerprint != workloads.checked(case).fingerprint


@pytest.mark.parametrize(
    "changed",
    [
        {"data": "generated"},
        {"zero_values": True},
        {"batches_per_step": 2},
        {"tuning": "default"},
        {"threads": 2},
        {"cores": [1]},
        {"min_latency": True},
        {"half_partial": True},
        {"protocol": "pytorch_cnns"},
    ],
)
def test_settings_that_matter_change_their_fingerprint(changed):
    other = dataclasses.replace(Settings(), **changed)

    assert built(case_of(), settings=other)["settings"] != built(case_of())["settings"]


@pytest.mark.parametrize(
    "changed",
    [
        {"steps": 9},
        {"max_time_s": 9.0},
        {"min_rounds": 9},
        {"min_warmup_s": 9.0},
        {"data_workers": 9},
        {"export_onnx": "there"},
        {"profile": "there"},
    ],
    ids=lambda each: next(iter(each)),
)
def test_how_long_is_measured_and_what_else_is_written_does_not_change_it(changed):
    other = dataclasses.replace(Settings(), **changed)

    assert built(case_of(), settings=other)["settings"] == built(case_of())["settings"]


def test_a_fact_of_the_backend_changes_the_settings_and_one_of_the_device_does_not():
    before = built(case_of())["settings"]

    assert built(case_of(), tuned_layout="channels_last")["settings"] != before
    assert built(case_of(), device_model="another")["settings"] == before


def test_a_fingerprint_is_of_the_value_and_not_of_its_order():
    assert record.fingerprint({"a": 1, "b": [2]}) == record.fingerprint({"b": [2], "a": 1})
    assert record.fingerprint({"a": 1}) != record.fingerprint({"a": 2})
    assert len(record.fingerprint({})) == 12


def test_cores_are_stored_as_text():
    assert built(case_of(), settings=Settings(cores=[2, 3]))["cores"] == "2,3"
    assert built(case_of())["cores"] == ""


# What says how fast a machine is.
RATES = """
    items_per_s section_items_per_s replica_items_per_s scaling_percent all_reduce_percent noise_percent
    step_median_s step_mean_s step_p90_s step_p99_s latency_p50_s latency_p90_s latency_p99_s latency_p999_s
    protocol_items_per_s protocol_min_items_per_s protocol_max_items_per_s protocol_std_items_per_s
    tflops gbytes_per_s percent_of_peak sdk_latency_s drift_percent autocorrelation
    pipeline_items_per_s transfer_s_per_item compute_s_per_item bound_by profile profile_step_s profile_profiled_s
""".split()


@pytest.mark.parametrize("source", ["ipu_model", "fake"])
def test_what_was_not_measured_has_no_rate_and_no_share_of_a_peak(source):
    case = case_of("lstm", "inference", "fp32", 1)

    made = record.with_peak(built(case, source=source, **dict.fromkeys(RATES, 1.0)), PEAK)

    assert made["source"] == source
    assert {name for name in RATES if made[name] is not None} == set()


def test_an_invalid_record_has_its_reasons_and_no_rate():
    reasons = ["a hypervisor took 30 % of its cores' time (steal)", "it was compiled 2 times while it was timed"]

    made = record.with_peak(built(case_of(), invalid_reasons=reasons, **dict.fromkeys(RATES, 1.0)), PEAK)

    assert (made["validity"], made["invalid_reasons"]) == ("INVALID", reasons)
    assert {name for name in RATES if made[name] is not None} == set()
    assert {name for name, field in fields.FIELDS.items() if field.rate} == set(RATES)


def test_a_valid_record_has_no_reasons():
    made = built(case_of())

    assert (made["validity"], made["invalid_reasons"]) == ("VALID", [])
    assert made["items_per_s"] == 64


@pytest.mark.parametrize("source", ["ipu_model", "fake"])
def test_what_was_not_measured_has_no_time_that_could_be_invalid(source):
    made = built(case_of(), source=source, invalid_reasons=["others took 90 % of its cores' time"])

    assert (made["validity"], made["invalid_reasons"]) == ("VALID", [])


# An input pipeline.


def pipeline(mode="inference"):
    case = case_of("host_pipeline", mode, "fp32", 4)
    checks = ("relative_error", "checked_rows", "compile_s")
    notes = {name: value for name, value in FOUND.items() if name not in checks}
    graph, step = workloads.of_case(case), Step(lambda: None, 4)
    samples = Samples([0.5], 1, 3, 0.5, True, section_s=0.5)
    return record.build(case, Settings(data="real"), graph, step, samples, notes)


@pytest.mark.parametrize("mode", ["inference", "training"])
def test_what_computes_nothing_has_no_cost_and_no_check_and_no_share_of_a_peak(mode):
    made = record.with_peak(pipeline(mode), PEAK)

    costs = {"parameters", "flops_per_item", "bytes_per_item", "tflops", "gbytes_per_s"}
    checks = {"relative_error", "gradient_error", "tolerance", "checked_rows", "checked_size", "compile_s"}
    few = {"noise_percent", "drift_percent"}
    assert {name for name, value in made.items() if value is None} == LATER | costs | checks | few
    assert made["items_per_s"] == 8


def test_the_table_shows_no_share_of_a_peak_for_an_input_pipeline():
    made = record.with_peak(pipeline(), PEAK)

    _, head, _, line = table.render([(made, None)]).splitlines()

    assert "of peak" in head
    assert "%" not in line


# One place for a field.


def test_a_field_is_added_by_its_row_alone(monkeypatch):
    """It is in the record, in the table, on the page, and in what a simulation leaves out."""
    row = fields.Field(
        "step_min_s", "the shortest of the samples", "s", lambda m: min(m.samples.seconds), rate=True, column="least"
    )
    monkeypatch.setitem(fields.FIELDS, row.name, row)
    monkeypatch.setattr(table, "COLUMNS", table._columns())

    made = record.with_peak(built(case_of(), [0.5, 0.25, 1.0], steady=True), {})

    assert made["step_min_s"] == 0.25
    assert built(case_of(), source="fake")["step_min_s"] is None
    assert "| `step_min_s` | s | the shortest of the samples |  |" in record_page.page()
    shown = table.render([(made, None)])
    assert " least" in shown
    assert " 250 ms" in shown

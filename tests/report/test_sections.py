"""Each section is there where it has data, and its figures are those of the file."""

from __future__ import annotations

import math
import re

import pytest
from runs_by_hand import case, pair_verdict, run_of, steps
from stored_files import record

from bench.report import sections
from bench.report.content import Figure, Note, Table
from bench.report.sections import latency, roofline, verdicts


def section(name, *runs):
    return sections.build(runs)[name]


def rows(table):
    return [[cell.text for cell in row] for row in table.rows]


def heads(table):
    return [column.head for column in table.columns]


def figures(section):
    return [block for block in section.blocks if isinstance(block, Figure)]


def tables(section):
    return [block for block in section.blocks if isinstance(block, Table)]


def notes(section):
    return " ".join(block.text for block in section.blocks if isinstance(block, Note))


def titles(figure):
    return re.findall(r"<title>(.*?)</title>", "".join(figure.svgs))


def test_a_run_without_a_case_says_so():
    found = sections.build([run_of([])])

    assert list(found) == ["where"]
    assert notes(found["where"]) == "No case was measured."


def test_sections_without_data_are_left_out():
    bare = {"extra_info": record(latency_p50_s=None), "stats": {}}

    assert list(sections.build([run_of([bare])])) == ["where", "results"]


def test_cases_are_counted_and_reasons_are_counted_together():
    invalid = [
        record(backend=name, validity="INVALID", rate=None, invalid_reasons=[f"others took {share} % of its cores"])
        for name, share in (("numpy", 94), ("jax", 61))
    ]
    extra = {"missing": [{"id": "x", "outcome": "skipped", "reason": "not installed: jax"}]}

    found = section("where", run_of([case()], layerbench_invalid=invalid, layerbench=extra))

    assert "1 of 4 cases valid; 2 INVALID, 1 skipped." in notes(found)
    assert rows(tables(found)[1]) == [
        ["2", "INVALID", "others took … % of its cores"],
        ["1", "skipped", "not installed: jax"],
    ]


def test_the_machine_the_versions_the_date_and_the_command_are_there():
    extra = {"command": "pytest bench -k lstm"}

    facts = dict(rows(tables(section("where", run_of([case()], layerbench=extra)))[0]))

    assert facts["machine"] == "Paper CPU"
    assert facts["frameworks"] == "torch 1.0"
    assert facts["threads"] == "1"
    assert facts["commit"] == "0123456789ab (main)"
    assert facts["date"] == "2026-11-29 08:20 UTC"
    assert facts["command"] == "pytest bench -k lstm"


def test_an_older_result_of_a_case_is_not_shown_again():
    runs = [run_of([case(rate=1.0)]), run_of([case(rate=2.0)])]

    (table,) = tables(section("results", *runs))

    assert [row[heads(table).index("items/s")] for row in rows(table)] == ["2"]
    assert "1 older results of the same cases" in notes(section("where", *runs))


def test_the_table_of_results_has_the_figures_of_the_records():
    entries = [case(8, "torch", 1234.5, noise_percent=1.25), case(8, "openvino", 2469.0, disturbed=True)]

    (table,) = tables(section("results", run_of(entries)))

    assert heads(table)[:4] == ["workload", "size", "framework", "items/s"]
    values = {row[2]: dict(zip(heads(table), row)) for row in rows(table)}
    assert values["torch"]["items/s"] == "1,234"
    assert values["torch"]["of best"] == "0.50"
    assert values["torch"]["p50"] == "6.48 ms"
    assert values["torch"]["noise"] == "1.2 %"
    assert values["openvino"]["noise"] == "0.5 % !"
    assert [row[2] for row in rows(table)] == ["openvino", "torch"]


def test_an_invalid_case_has_no_time_in_the_table():
    """Records of earlier versions have its latency."""
    bad = record(backend="jax", validity="INVALID", rate=None, latency_p50_s=0.001)

    (table,) = tables(section("results", run_of([case()], layerbench_invalid=[bad])))

    values = {row[2]: dict(zip(heads(table), row)) for row in rows(table)}
    assert (values["jax"]["items/s"], values["jax"]["p50"]) == ("INVALID", "")


def test_the_overview_has_a_named_mark_for_each_framework():
    entries = [case(8, "torch", 500.0), case(8, "openvino", 2000.0)]

    names = titles(figures(section("results", run_of(entries)))[0])

    assert any(name.endswith("torch: 25 %") for name in names)
    assert any(name.endswith("openvino: 100 %") for name in names)


def test_rates_by_batch_size_have_whiskers_of_eighty_percent_of_the_steps():
    """Of ten steps of 1 to 10 ms, the second and the tenth share end at 1 and 9 ms: rates of 1000 and 111 per s."""
    seconds = [value / 1000 for value in range(1, 11)]

    (figure,) = figures(section("batch", run_of([case(1, samples=seconds), case(8)])))

    assert rows(figure.table)[0][:5] == ["torch", "1", "1,000", "111.1", "1,000"]
    assert "torch, batch 1: 1,000 sequences/s (80 %: 111.1 to 1,000)" in titles(figure)
    assert "torch, batch 8: p50 8 ms" in titles(figure)


def test_one_batch_size_makes_no_picture():
    assert "batch" not in sections.build([run_of([case(8), case(8, "openvino")])])


def test_the_roof_is_the_lower_of_arithmetic_and_bandwidth_times_intensity():
    """2 FLOP per byte at 20 GB/s: 40 GFLOP/s, below the peak of 100. A rate of 1000/s is 2 GFLOP/s: 5 %."""
    found = roofline.spot(run_of([case()]).results[0])

    assert (found.intensity, found.flops, found.roof) == pytest.approx((2.0, 2e9, 40e9))
    assert not found.above
    (figure,) = figures(section("roofline", run_of([case()])))
    assert rows(figure.table)[0] == ["lstm h8_t3", "torch", "2", "2G", "40G", "5 %", "256 KiB"]


def test_a_case_above_the_roof_is_red_and_said():
    (figure,) = figures(section("roofline", run_of([case(rate=1000.0), case(rate=30_000.0, backend="jax")])))

    assert 'class="p c5 bad"' in figure.svgs[0]
    assert "1 above the roof, in red" in figure.caption
    assert [row[5].bad for row in figure.table.rows] == [False, True]


def test_each_precision_has_a_roofline_of_its_own():
    entries = [case(), case(precision="bf16")]

    assert len(figures(section("roofline", run_of(entries)))) == 2


def test_percentiles_are_those_of_the_record_with_exact_intervals():
    """Of 100 samples of 1 to 100 ms, the interval of the median is from the 40th to the 61st (binomial, 95 %)."""
    seconds = [value / 1000 for value in range(1, 101)]
    result = run_of([case(samples=seconds, latency_p90_s=0.09)]).results[0]

    found = latency.percentiles(result)

    assert found["p50"] == (0.05, 0.04, 0.061)
    assert found["p90"].value == 0.09
    assert found["p999"] == (None, found["p999"].low, None)


def test_too_few_samples_are_called_too_few():
    seconds = steps(50, 0.001)

    (figure,) = figures(section("latency", run_of([case(samples=seconds, latency_p90_s=sorted(seconds)[44])])))

    row = dict(zip([f"{index} {head}" for index, head in enumerate(heads(figure.table))], rows(figure.table)[0]))
    assert row["2 samples"] == "50"
    assert " to " in row["4 95 % interval"]
    assert (row["7 p99"], row["8 95 % interval"]) == ("too few", "too few")
    assert not any("p99" in name for name in titles(figure))


@pytest.mark.parametrize("changed", [{"steps_per_sample": 10}, {"latency_p50_s": 0.5}])
def test_samples_that_are_not_latencies_make_no_interval(changed):
    result = run_of([case(samples=steps(50, 0.001), **changed)]).results[0]

    assert latency.percentiles(result)["p50"].low is None


def test_a_verdict_is_shown_with_its_pairs_interval_budget_and_smallest_loss():
    against = pair_verdict("slower", math.log(0.9), [math.log(0.9)] * 9)

    (figure,) = figures(section("verdicts", run_of([case(against=against)])))

    assert rows(figure.table) == [
        [
            "lstm h8_t3, torch",
            "slower",
            "-10.0 %",
            "-11.8 to -8.2 %",
            "5 %",
            "9 pairs",
            "-5.8 %",
        ]
    ]
    assert figure.caption.startswith("1 slower (against same).")
    assert sum(name.endswith("-10.0 %") and "pair" in name for name in titles(figure)) == 9
    assert figure.svgs[0].count('class="band"') == 2  # one row, and the legend
    assert figure.svgs[0].count('class="hook"') == 1


def test_the_verdicts_of_a_baseline_are_shown():
    verdict = {**pair_verdict("faster", math.log(1.2)), "id": "a-b", "spec": "baseline main.json"}

    found = section("verdicts", run_of([case()], layerbench={"verdicts": [verdict]}))

    assert "against baseline main.json" in figures(found)[0].caption
    assert rows(figures(found)[0].table)[0][:3] == ["a-b", "faster", "+20.0 %"]


def test_slower_cases_come_first_and_undecided_ones_say_why():
    entries = [
        case(1, against=pair_verdict("same", 0.0)),
        case(2, against=pair_verdict("undecided", 0.0, text="two: undecided: the pairs spread too far")),
        case(3, against=pair_verdict("slower", -0.2)),
    ]

    found = section("verdicts", run_of(entries))

    assert [row[1] for row in rows(figures(found)[0].table)] == ["slower", "undecided", "same"]
    assert "two: undecided: the pairs spread too far" in notes(found)


def test_the_caption_has_the_rate_and_the_date_of_the_self_check():
    """No false verdict in 59 comparisons: at most 5 % (1 - 0.05^(1/59) is 4.95 %)."""
    check = {"false": 0, "comparisons": 59, "when_s": 1.7e9, "cases": {}}

    found = section("verdicts", run_of([case(against=pair_verdict("same", 0.0))], layerbench={"self_check": check}))

    assert "Self-check of 2023-11-14: 0 of 59 comparisons without a change" in figures(found)[0].caption
    assert figures(found)[0].caption.endswith("at most 5 %.")


def test_a_self_check_has_its_findings():
    counts = {f"{percent:g}": {"comparisons": 4, "slower": percent // 5, "faster": 0} for percent in (0, 2, 5, 10, 20)}
    check = {"false": 0, "comparisons": 4, "when_s": 1.7e9, "cases": {"a": {"counts": counts, "spread": 0.01}}}

    (table,) = tables(section("verdicts", run_of([], layerbench={"self_check": check})))

    assert rows(table)[0][:7] == ["a", "4", "0", "0 of 4", "1 of 4", "2 of 4", "4 of 4"]


def test_replicas_are_held_against_as_many_times_one():
    entries = [
        case(replicas=1, rate=100.0, mode="training"),
        case(replicas=2, rate=150.0, mode="training", scaling_percent=75.0, all_reduce_percent=12.5),
    ]

    (figure,) = figures(section("replicas", run_of(entries)))

    assert rows(figure.table) == [["torch", "1", "100", "", ""], ["torch", "2", "150", "75 %", "12.5 %"]]
    assert len(figure.svgs) == 2
    assert 'class="l c1 dash"' in figure.svgs[0]


def test_the_parts_of_the_input_pipeline_are_seconds_of_an_image():
    parts = {"pipeline_items_per_s": 200.0, "transfer_s_per_item": 0.001, "compute_s_per_item": 0.02}

    found = section("pipeline", run_of([case(**parts, bound_by="compute")]))

    assert rows(figures(found)[0].table) == [["lstm h8_t3", "torch", "5 ms", "1 ms", "20 ms"]]
    assert "compute" in notes(found)


def test_compilation_and_memory_are_stacked():
    (figure,) = figures(section("cold_and_memory", run_of([case(warmup_s=0.25)])))

    assert rows(figure.table) == [["lstm h8_t3", "torch", "500 ms", "250 ms", "500 MiB", "100 MiB"]]
    assert sum("warm-up" in name for name in titles(figure)) == 1


def test_the_cold_path_has_the_median_of_each_phase():
    """Of 1, 2 and 4 seconds it is 2; a phase that no process knows is empty."""
    processes = [{"import_s": value, "compile_s": None} for value in (4.0, 1.0, 2.0)]

    _, cold = figures(section("cold_and_memory", run_of([case(cold={"cold": processes, "warm": []})])))

    (row,) = rows(cold.table)
    assert row[0] == "lstm h8_t3, cold"
    assert [cell for cell in row[2:] if cell] == ["2 s"]


def test_a_profile_has_its_operations_and_what_is_outside_of_them():
    profile = [
        {"operations": ["lstm1"], "kernels": ["gemm"], "share_percent": 80.0, "seconds": 0.0008, "calls": 5},
        {"operations": ["outside operations"], "kernels": [], "share_percent": 20.0, "seconds": 0.0002},
    ]

    (figure,) = figures(section("profile", run_of([case(profile=profile, profile_step_s=0.001)])))

    assert rows(figure.table) == [
        ["lstm1", "gemm", "80.0 %", "800 us", "5", ""],
        ["outside operations", "", "20.0 %", "200 us", "", ""],
    ]
    assert titles(figure) == ["lstm1: 80.0 %", "outside operations: 20.0 %"]
    assert "shares of a step of 1 ms" in figure.caption


def test_accuracy_has_losses_and_shares_of_right_images():
    scores = {"epochs": 2.0, "loss_first": 2.5, "loss_last": 0.5, "top1_percent": 70.0, "top5_percent": 95.0}

    (figure,) = figures(section("accuracy", run_of([case(**scores, images_scored=100)])))

    assert rows(figure.table)[0][2:] == ["2", "2.5", "0.5", "70.00 %", "95.00 %", "100"]
    assert sorted(name[-8:] for name in titles(figure)) == ["loss 0.5", "loss 2.5"]


@pytest.mark.parametrize("value", ["<script>", [], {}, True, -1.0, 0.0, 1e300, float("nan")])
def test_no_value_of_any_field_breaks_a_section(value):
    """A file may be damaged. What is no number is left out."""
    for name in case()["extra_info"]:
        damaged = case(8, samples=steps(20, 0.001))
        damaged["extra_info"][name] = value
        sections.build([run_of([case(samples=steps(20, 0.001)), damaged])])


@pytest.mark.parametrize("value", ["<b>", None, [], 3, {"rate": 4}, {"rate": {"kind": [], "interval": [1, "x"]}}])
def test_no_verdict_breaks_a_section(value):
    for name in ("metrics", "log_ratios", "verdict", "spec", "text"):
        verdicts.section([run_of([case(against={**pair_verdict("same", 0.0), name: value})])])
        verdicts.section([run_of([], layerbench={"self_check": {"cases": value, "false": value}})])

"""The table of a profile: rows worked out by hand, and what frameworks do to names."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from records import PEAK, record_of

from bench.graph import Graph
from bench.profiling import Event, Kernel, Profile, Run, Unprofiled, chrome_trace, kernels, merged, steps
from bench.results import profile, profile_table, record

NORM = {"eps": 1e-5, "momentum": 0.1}


def network():
    """Node 1 conv, 2 norm, 3 relu, 4 conv, 5 norm, 6 conv, 7 norm, 8 add, 9 relu, 10 mean, 11 dense; 0 is the input."""
    net = Graph(1)
    x = net.relu(net.batch_norm(net.conv(net.image(3, 8), 4, 3, padding=1, bias=False, name="stem"), **NORM))
    a = net.batch_norm(net.conv(x, 4, 3, padding=1, bias=False, name="a"), **NORM)
    b = net.batch_norm(net.conv(x, 4, 1, bias=False, name="b"), **NORM)
    net.output = net.dense(net.global_mean(net.relu(net.add(a, b))), 2, name="fc")
    return net


def operations(*named, step_s=1.0):
    """The operations of the rows, if the kernels name these nodes and take 10 ms each."""
    run = Run(1.0, [Kernel(f"k{number}", nodes, 0.01) for number, nodes in enumerate(named)])
    return [set(row["operations"]) for row in profile.rows(network(), run, step_s, 1)]


ALL = [(index,) for index in range(1, 12)]
FUSED = [{"stem", "batch_norm2", "relu3"}, {"a", "batch_norm5", "add8", "relu9"}, {"b", "batch_norm7"}]
ENDS = [{"global_mean10"}, {"fc"}]


def test_shares_are_of_the_measured_step_and_rates_follow_from_the_time_of_a_row():
    found = Run(0.5, [Kernel("mul", (1,), 0.1, 2), Kernel("pad", (1,), 0.05), Kernel("copy", (), 0.03)])
    net = Graph(1)
    net.output = net.dense(net.input(1000), 500, name="fc")

    row, outside = profile.rows(net, found, 0.25, passes=3)

    assert row["operations"] == ["fc"]
    assert (row["kernels"], row["calls"]) == (["mul", "pad"], 2)
    assert row["share_percent"] == pytest.approx(60)
    assert row["flops"] == 3 * 2 * 1000 * 500
    assert row["tflops"] == pytest.approx(3e6 / 0.15 / 1e12)
    assert outside["operations"] == [profile.OUTSIDE]
    assert outside["share_percent"] == pytest.approx(40)
    assert outside["kernels"] == [profile.BETWEEN, "copy"]
    assert outside["tflops"] is None


def test_what_is_outside_is_negative_if_the_profiler_slows_the_kernels():
    found = profile.rows(network(), Run(2.0, [Kernel("all", tuple(range(1, 12)), 1.25)]), 1.0, 1)

    assert [row["share_percent"] for row in found] == pytest.approx([125, -25])
    assert found[-1]["kernels"] == []


@pytest.mark.parametrize(
    ("named", "rows"),
    [
        (ALL, [{name} for name in ("stem", "batch_norm2", "relu3", "a", "batch_norm5", "b", "batch_norm7", "add8")]),
        # A kernel has the name of the last node that it computes, as in TensorFlow.
        ([(3,), (7,), (9,), (10,), (11,)], FUSED[:1]),
        # The name of the norm, and the sum is computed by the branch that ends last, as in ONNX Runtime.
        ([(3,), (7,), (5,), (10,), (11,)], [*FUSED, *ENDS]),
        # The names of all but the first, as in OpenVINO.
        ([(2, 3), (7,), (5, 8, 9), (10,), (11,)], [*FUSED, *ENDS]),
        # The name of the first only, as for Inductor's convolutions.
        ([(1,), (6,), (4,), (10,), (11,)], [*FUSED, *ENDS]),
    ],
    ids=["none is fused", "the last one", "the norm", "all but the first", "the first one"],
)
def test_a_fused_node_is_in_the_row_of_the_kernel_that_computes_it(named, rows):
    found = operations(*named)

    assert all(row in found for row in rows)
    assert Counter(name for row in found for name in row) == Counter(
        [f"{op}" for op in ("stem", "batch_norm2", "relu3", "a", "batch_norm5", "b", "batch_norm7", "add8", "relu9")]
        + ["global_mean10", "fc", profile.OUTSIDE]
    )


def test_kernels_that_share_a_node_are_one_row():
    assert operations((1, 2), (2, 3), (4,), (5,), (6,), (7,), (8,), (9,), (10,), (11,))[0] == FUSED[0]


def test_without_any_name_the_nodes_are_one_row_without_time():
    *_, unknown, outside = profile.rows(network(), Run(1.0, [Kernel("mystery", (), 0.5)]), 1.0, 1)

    assert len(unknown["operations"]) == 11
    assert (unknown["seconds"], unknown["kernels"], unknown["tflops"]) == (0, [], None)
    assert outside["share_percent"] == pytest.approx(100)


def test_a_deep_network_has_forty_rows_and_the_sum_of_the_others():
    net = Graph(1)
    x = net.input(8)
    for _ in range(100):
        x = net.dense(x, 8)
    net.output = x
    run = Run(1.0, [Kernel("mul", (index,), index * 1e-4) for index in range(1, 101)])

    found = profile.rows(net, run, 1.0, 1)

    assert len(found) == profile.MOST_ROWS + 1
    assert found[0]["operations"] == ["dense100"]
    assert found[-2]["operations"] == ["61 more operations"]
    assert sum(row["seconds"] for row in found) == pytest.approx(1.0)
    assert sum(row["flops"] for row in found) == net.flops
    assert json.loads(json.dumps(found)) == found


def test_the_share_of_a_peak_is_that_of_all_replicas():
    rows = [{"tflops": 0.1, "percent_of_peak": None}, {"tflops": None, "percent_of_peak": None}]

    found = profile.with_peak(rows, 1e12, replicas=2)

    assert [row["percent_of_peak"] for row in found] == [pytest.approx(20), None]
    assert profile.with_peak(None, 1e12, 1) is None


def test_a_record_gets_the_shares_of_its_peak():
    rows = profile.rows(network(), Run(1.0, [Kernel("all", tuple(range(1, 12)), 0.5)]), 1.0, 1)
    measured = record_of(tflops=0.1, gbytes_per_s=1.0, bytes_per_item=10.0, items_per_step=1, batches_per_step=1)

    found = record.with_peak({**measured, "batches_in_flight": 1, "profile": rows}, PEAK)

    assert found["profile"][0]["percent_of_peak"] == pytest.approx(100 * network().flops / 0.5 / 1e12)


# ---- what profilers report ---------------------------------------------------------------------------


def test_the_time_of_an_event_within_another_is_not_counted_twice():
    found = kernels(
        [
            Event("while", 0.0, 10.0, (1,)),
            Event("mul", 1.0, 4.0),
            Event("mul", 5.0, 6.0),
            Event("copy", 2.0, 3.0, (2,)),
            Event("last", 10.0, 11.0),
        ]
    )

    assert found == [
        Kernel("while", (1,), 6.0, 1),
        Kernel("mul", (1,), 3.0, 2),
        Kernel("copy", (2,), 1.0, 1),
        Kernel("last", (), 1.0, 1),
    ]


def test_an_event_that_seems_to_end_after_the_one_around_it_takes_no_negative_time():
    found = kernels([Event("outer", 0.0, 1.0), Event("inner", 0.5, 1.000001)])

    assert [kernel.seconds for kernel in found] == pytest.approx([0.5, 0.500001])


def test_kernels_of_one_name_and_node_are_added_up():
    assert merged([Kernel("a", (1,), 1.0), Kernel("a", (2,), 1.0), Kernel("a", (1,), 2.0, 3)]) == [
        Kernel("a", (1,), 3.0, 4),
        Kernel("a", (2,), 1.0, 1),
    ]


def test_the_mean_of_the_third_of_the_runs_that_are_nearest_to_the_measured_one_is_shown():
    times = (9.0, 1.0, 2.2, 3.0, 8.0, 7.0)
    found = Profile([Run(seconds, [Kernel("mul", (1,), seconds / 2, 3)]) for seconds in times], b"")

    assert found.nearest(2.5).seconds == pytest.approx(2.6)
    assert found.nearest(2.5).kernels == [Kernel("mul", (1,), pytest.approx(1.3), 3)]


def test_without_a_profiled_run_there_is_no_profile():
    with pytest.raises(Unprofiled, match="no step"):
        Profile([], b"").nearest(1.0)


@pytest.mark.parametrize(("run_s", "count"), [(1e-5, 20), (0.1, 10), (2.0, 6), (0.0, 20)])
def test_about_a_second_is_profiled(run_s, count):
    assert steps(run_s) == count


def test_a_trace_has_a_line_for_each_thread_in_microseconds():
    found = json.loads(chrome_trace([("one", "a", 1.0, 0.5, {}), ("two", "b", 2.0, 0.25, {"kernel": "k"})]))

    assert [(event["tid"], event["ts"], event["dur"]) for event in found["traceEvents"][2:]] == [
        (1, 1e6, 5e5),
        (2, 2e6, 2.5e5),
    ]


# ---- on the terminal ---------------------------------------------------------------------------------


def shown(rows, **changed):
    found = {"profile": rows, "profile_step_s": 1.0, "profile_profiled_s": 1.05, "profile_trace": "case.json"}
    return profile_table.render(record_of(**{**found, **changed}), "traces")


def test_the_table_has_ten_rows_the_rest_and_what_is_outside():
    rows = profile.rows(network(), Run(1.0, [Kernel("mul", nodes, 0.05) for nodes in ALL]), 1.0, 1)

    title, *lines = shown(rows).splitlines()

    assert "a step takes 1 s, under the profiler 1.05 s" in title
    assert len(lines) == 2 + 10 + 1 + 1 + 1
    assert "1 more rows" in lines[-3]
    assert profile.OUTSIDE in lines[-2]
    assert "45.0%" in lines[-2]
    assert lines[-1] == "trace: traces/case.json (open it at ui.perfetto.dev or chrome://tracing)"


def test_names_that_are_long_or_look_like_markup_are_cut_and_printed_as_they_are():
    net = Graph(1)
    x = net.dense(net.input(4), 4, name="[bold]a[/bold]")
    net.output = net.dense(x, 4, name="\x1b[31m" + 300 * "b")
    rows = profile.rows(net, Run(1.0, [Kernel("[red]" + 99 * "k", (1,), 0.1), Kernel("k", (2,), 0.1)]), 1.0, 1)

    text = shown(rows)

    assert "[bold]a[/bold]" in text
    assert "\x1b" not in text
    assert max(map(len, text.splitlines()[1:-1])) <= 100


@pytest.mark.parametrize(("profiled_s", "marked"), [(0.5, True), (0.95, False), (1.05, False), (1.4, True)])
def test_a_profiled_step_that_takes_another_time_is_marked(profiled_s, marked):
    rows = profile.rows(network(), Run(1.0, [Kernel("all", tuple(range(1, 12)), 0.5)]), 1.0, 1)

    assert ("so the shares are uncertain" in shown(rows, profile_profiled_s=profiled_s)) == marked


def test_a_case_without_a_profile_has_a_note_or_nothing():
    assert shown(None, profile_note="no profile: it is broken").endswith("cpu: no profile: it is broken")
    assert shown(None) == ""


def test_a_trace_that_could_not_be_written_is_named_below_the_table():
    rows = profile.rows(network(), Run(1.0, [Kernel("all", tuple(range(1, 12)), 0.5)]), 1.0, 1)

    assert shown(rows, profile_trace=None, profile_note="no trace: disk full").endswith("no trace: disk full")


@pytest.mark.parametrize(
    ("operations", "text"),
    [
        (["layer1.0.conv1", "layer1.0.bn1", "layer1.0.relu3"], "layer1.0.conv1+bn1+relu3"),
        (["a.b", "c.d"], "a.b+c.d"),
        (["fc"], "fc"),
        (["a", "b"], "a+b"),
        (["layer1.0.down.0", "layer1.0.down.1", "layer1.0.add4"], "layer1.0.down.0+down.1+add4"),
        (["layer1.0.a", "layer10.b"], "layer1.0.a+layer10.b"),
    ],
)
def test_a_block_that_operations_share_is_written_once(operations, text):
    assert profile_table.joined(operations) == text

"""The history: series, steps and what changed at them, renamed cases, and their section."""

from __future__ import annotations

import json

import pytest
from autosaves import START_S, case, run_file, wave

from bench.report import __main__ as program
from bench.report import history
from bench.report.sections import history as section


def read(folder):
    return history.read([folder])


def test_a_step_has_its_runs_and_what_changed_between_them(tmp_path):
    for number in range(24):
        level, version = (1000.0, "1.0") if number < 12 else (900.0, "2.0")
        kernel = {"cpu": "Paper CPU", "cores": 2, "kernel": "5" if number < 12 else "6"}
        run_file(tmp_path, number, [case(wave(number, level), framework_version=version, machine=kernel)])

    (series,) = read(tmp_path).series
    (step,) = series.steps

    assert (step.before, step.after) == (11, 12)
    assert step.change_percent == pytest.approx(-10, abs=0.1)
    assert step.changed == [
        f"commit {11:040x}"[:14] + " -> " + f"{12:040x}"[:7],
        "kernel 5 -> 6",
        "framework_version 1.0 -> 2.0",
    ]
    assert series.ticks == [(12, "framework_version 1.0 -> 2.0")]
    assert [(first, last) for first, last, _ in series.levels] == [(0, 11), (12, 23)]


def test_another_graph_machine_or_setting_is_another_series(tmp_path):
    for number, changed in enumerate([{}, {"graph": "other"}, {"settings": "cccc"}, {"device_model": "Other CPU"}]):
        run_file(tmp_path, number, [case(1000.0, **changed)])

    assert len(read(tmp_path).series) == 4


def test_another_version_host_or_commit_is_the_same_series(tmp_path):
    for number, changed in enumerate(
        [{}, {"framework_version": "2"}, {"host": "other"}, {"libraries": {"numpy": "2"}}]
    ):
        run_file(tmp_path, number, [case(1000.0, **changed)])

    (series,) = read(tmp_path).series

    assert len(series.points) == 4
    assert series.changes(1, 2) == [
        f"commit {1:040x}"[:14] + " -> " + f"{2:040x}"[:7],
        "framework_version 2 -> 1.0",
        "host paper -> other",
    ]


def test_uncommitted_changes_are_named(tmp_path):
    for number in range(2):
        run_file(tmp_path, number, [case(1.0)])
    path = tmp_path / "0001_run.json"
    content = json.loads(path.read_text())
    content["commit_info"] = {"id": f"{0:040x}", "dirty": True}
    path.write_text(json.dumps(content))

    assert read(tmp_path).series[0].changes(0, 1) == ["uncommitted changes at 0000000+"]


def test_disturbed_runs_do_not_count_unless_they_are_most(tmp_path):
    for number in range(20):
        disturbed = number in (16, 17, 18, 19)
        run_file(tmp_path / "few", number, [case(wave(number) / (2 if disturbed else 1), disturbed=disturbed)])
        run_file(tmp_path / "most", number, [case(wave(number) / (2 if disturbed else 1), disturbed=number > 3)])

    few, most = read(tmp_path / "few").series[0], read(tmp_path / "most").series[0]

    assert (len(few.counted), few.steps) == (16, [])
    assert len(most.counted) == 20
    assert [step.after for step in most.steps] == [16]


def test_a_renamed_case_is_one_series_with_both_names(tmp_path):
    for number in range(10):
        run_file(tmp_path, number, [case(wave(number), "old" if number < 6 else "new", graph="the same")])

    found = read(tmp_path)
    (series,) = found.series

    assert found.renamed == [series]
    assert [(name.split("-")[0], position) for name, position in series.names] == [("old", 0), ("new", 6)]
    assert series.id.startswith("new-")
    assert len(series.points) == 10


def test_two_cases_with_one_graph_in_one_run_are_not_one_case(tmp_path):
    for number in range(4):
        run_file(tmp_path, number, [case(1.0, "one", graph="the same"), case(2.0, "two", graph="the same")])

    assert len(read(tmp_path).series) == 2


def test_a_case_is_not_renamed_if_two_could_have_been(tmp_path):
    run_file(tmp_path, 0, [case(1.0, "one", graph="the same"), case(2.0, "two", graph="the same")])
    run_file(tmp_path, 1, [case(3.0, "three", graph="the same")])

    assert len(read(tmp_path).series) == 3


def test_cases_come_and_go(tmp_path):
    run_file(tmp_path, 0, [case(1.0), case(1.0, "gru")])
    run_file(tmp_path, 1, [case(1.0), case(1.0, "gru")])
    run_file(tmp_path, 2, [case(1.0), case(1.0, "rnn")])

    found = read(tmp_path)

    assert [series.key["workload"] for series in found.came] == ["rnn"]
    assert [series.key["workload"] for series in found.went] == ["gru"]


def test_an_autosave_and_the_json_of_one_run_count_once(tmp_path):
    path = run_file(tmp_path, 0, [case(1.0)])
    (tmp_path / "copy.json").write_text(path.read_text())

    assert len(read(tmp_path).series[0].points) == 1


def test_runs_are_in_the_order_of_time_and_not_of_names(tmp_path):
    for number in range(3):
        run_file(tmp_path, number, [case(float(number + 1))]).rename(tmp_path / f"{9 - number}.json")

    assert read(tmp_path).series[0].points["rate"].tolist() == [1.0, 2.0, 3.0]


def test_hundreds_of_runs_of_a_case_have_their_step(tmp_path):
    for number in range(800):
        run_file(tmp_path, number, [case(wave(number, 1000.0 if number < 600 else 930.0))])

    (series,) = read(tmp_path).series

    assert [step.after for step in series.steps] == [600]
    assert len(section._marks(series, section.MARKS)) <= section.MARKS + 1


@pytest.fixture
def stepped(tmp_path):
    """A folder with a step, a renamed case, a baseline, a damaged file and a disturbed run."""
    for number in range(30):
        rates = wave(number, 1000.0 if number < 20 else 950.0)
        flat = case(wave(number, 70.0), "old" if number < 9 else "new", "onnxruntime", graph="g", disturbed=number == 4)
        run_file(tmp_path, number, [case(rates), flat, case(5.0, "gone")][: 3 if number < 8 else 2])
    accepted = {"who": "Ada", "when": "2023-11-20T00:00:00+00:00", "why": "first release"}
    cases = ["lstm-h8_t3-inference-b1-fp32-x1-torch-cpu"]
    (tmp_path / "main.json").write_text(json.dumps({"accepted": [{**accepted, "cases": cases}], "benchmarks": []}))
    (tmp_path / "bad.json").write_text("{")
    return tmp_path


def test_the_page_has_the_steps_the_names_and_the_baselines(stepped, tmp_path, capsys):
    page, markdown = tmp_path / "page.html", tmp_path / "page.md"

    code = program.main([str(stepped), "-o", str(page), "-o", str(markdown)])

    text = page.read_text()
    captured = capsys.readouterr()
    assert code == 0
    assert "30 runs from 2023-11-14 22:13 to 2023-12-13 22:13, 3 series of cases, 1 step in 1 of them." in text
    assert "-5.0 %" in text
    assert f"commit {19:040x}"[:14] + " -&gt; " + f"{20:040x}"[:7] in text
    assert "baseline, 2023-11-20T00:00:00+00:00, Ada: first release" in text
    assert "renamed" in text
    assert "went" in text
    assert "bad.json is not JSON" in text
    assert captured.err.count("bad.json") == 1
    assert "-5.0 %" in markdown.read_text()
    assert "#### All cases" not in markdown.read_text()
    assert "| gone" in markdown.read_text()


def test_every_mark_says_what_it_is(stepped):
    (series,) = (series for series in read(stepped).series if series.steps)

    (svg,) = section._detail(series).svgs

    assert svg.count("<title>2023-") == 30
    assert "<title>2023-11-14 22:13, 0000000: 990 sequences/s</title>" in svg
    assert "<title>step of -5.0 %" in svg


def test_a_baseline_that_is_given_by_name_is_not_shown_as_a_run(stepped, tmp_path, capsys):
    page = tmp_path / "page.html"

    assert program.main([str(stepped / "0003_run.json"), str(stepped / "main.json"), "-o", str(page)]) == 0

    assert "main.json" not in page.read_text()


def test_two_runs_are_no_history(tmp_path):
    for number in range(2):
        run_file(tmp_path, number, [case(1.0)])

    assert section.of_history(read(tmp_path)) is None


HOSTILE = [
    "<script>alert(1)</script>",
    "\"quotes\" & 'more'",
    "\u202eevil",
    "x" * 10_000,
    "[red]markup[/red]",
    "\ud800",
]


@pytest.mark.parametrize("name", HOSTILE, ids=["script", "quotes", "rtl", "long", "markup", "surrogate"])
def test_hostile_names_do_nothing(name, tmp_path, capsys):
    for number in range(12):
        rate = wave(number, 1000.0 if number < 6 else 500.0)
        hostile = {"item": name, "framework_version": name + str(number > 5), "host": name, "size": name}
        run_file(tmp_path, number, [case(rate, "lstm", name, **hostile)], commit=name)
    page = tmp_path / "page.html"

    assert program.main([str(tmp_path), "-o", str(page), "-o", str(tmp_path / "page.md")]) == 0

    text = page.read_text()
    assert "<script>alert" not in text
    assert "\u202e" not in text
    assert text.count("x" * 300) <= 3


def test_a_page_of_a_hundred_cases_is_small(tmp_path):
    from scripts import history_demo

    history_demo.write(tmp_path / "demo", 60)
    page = tmp_path / "page.html"

    assert program.main([str(tmp_path / "demo"), "-o", str(page)]) == 0

    assert page.stat().st_size < 300_000


def test_a_folder_without_results_is_a_report_that_says_so(tmp_path, capsys):
    assert program.main([str(tmp_path), "-o", str(tmp_path / "page.html")]) == 0


def test_a_path_that_is_not_there_is_one_line(tmp_path, capsys):
    assert program.main([str(tmp_path / "gone"), "-o", str(tmp_path / "page.html")]) == 4

    assert capsys.readouterr().err == f"{tmp_path / 'gone'}: No such file or directory\n"


def test_dates_are_in_utc():
    assert history.date(START_S) == "2023-11-14 22:13"
    assert history.date(0.0) == "date not known"

"""The command line: what pytest-benchmark's users know keeps working, and ours selects what it says."""

from __future__ import annotations

import re
from typing import Any, Callable, Dict, Tuple

import pytest
from suite import PACED, SMALL, Result, Suite

from bench import workloads
from bench.results.fields import FIELDS

pytestmark = pytest.mark.floor
ID = "dense-u8-inference-b32-fp32-x1-numpy-cpu"


@pytest.fixture(scope="module")
def plain(new_suite: Callable[[], Suite]) -> Suite:
    """A copy for runs that leave nothing behind."""
    return new_suite()


@pytest.fixture(scope="module")
def recorded(new_suite: Callable[[], Suite]) -> Tuple[Suite, Result, Dict[str, Any]]:
    """A run with a JSON file, saved and autosaved, and that file."""
    suite = new_suite()
    result = suite.run(
        *SMALL, "--benchmark-only", "--benchmark-json=run.json", "--benchmark-save=one", "--benchmark-min-rounds=7"
    )
    assert result.returncode == 0, result.text
    return suite, result, suite.read("run.json")


# What is stored.


def test_json_holds_the_record_as_extra_info(recorded: Tuple[Suite, Result, Dict[str, Any]]) -> None:
    (entry,) = recorded[2]["benchmarks"]

    info = entry["extra_info"]

    assert info["id"] == ID
    own = {key for key in info if not key.startswith(("tuned_", "device_"))}
    assert own == set(FIELDS)


def test_json_holds_the_samples_of_the_record(recorded: Tuple[Suite, Result, Dict[str, Any]]) -> None:
    (entry,) = recorded[2]["benchmarks"]

    stats, info = entry["stats"], entry["extra_info"]

    assert len(stats["data"]) == stats["rounds"] == info["samples"] >= 7
    assert stats["median"] == pytest.approx(info["step_median_s"])
    assert info["items_per_s"] == pytest.approx(info["items_per_step"] / stats["median"])


def test_json_names_the_case_by_its_id_and_axes(recorded: Tuple[Suite, Result, Dict[str, Any]]) -> None:
    (entry,) = recorded[2]["benchmarks"]

    assert entry["name"] == f"test_layer[{ID}]"
    assert entry["param"] == ID
    assert entry["params"] == {
        "workload": "dense",
        "size": "u8",
        "mode": "inference",
        "batch_size": 32,
        "precision": "fp32",
        "replicas": 1,
        "backend": "numpy",
        "device": "cpu",
    }


def test_save_stores_the_run_under_its_name(recorded: Tuple[Suite, Result, Dict[str, Any]]) -> None:
    suite = recorded[0]

    (path,) = (suite.root / ".benchmarks").rglob("*.json")

    assert path.name == "0001_one.json"
    assert suite.ids(str(path)) == [ID]
    assert "data" not in suite.read(str(path))["benchmarks"][0]["stats"]


def test_autosave_and_save_data_store_the_samples(suite: Suite) -> None:
    result = suite.run(*SMALL, "--benchmark-autosave", "--benchmark-save-data", "--benchmark-storage=file://./kept")

    assert result.returncode == 0, result.text
    (path,) = (suite.root / "kept").rglob("*.json")
    (entry,) = suite.read(str(path))["benchmarks"]
    assert len(entry["stats"]["data"]) == entry["extra_info"]["samples"]


def test_a_run_that_stores_nothing_leaves_nothing(plain: Suite) -> None:
    result = plain.run(*SMALL)

    assert result.returncode == 0, result.text
    assert plain.digests() == {}


def test_the_tables_rate_is_the_records(recorded: Tuple[Suite, Result, Dict[str, Any]]) -> None:
    _, result, content = recorded
    rate = content["benchmarks"][0]["extra_info"]["items_per_s"]

    (shown,) = re.findall(r"^ numpy +([\d,.]+) +row", result.stdout, re.MULTILINE)

    assert float(shown.replace(",", "")) == pytest.approx(rate, rel=1e-3)
    assert max(map(len, result.stdout.split("layerbench: dense")[1].splitlines())) <= 100


# Whether, and how much is measured.


def test_benchmark_disable_checks_once_and_records_nothing(suite: Suite) -> None:
    suite.add_backend(
        "counts", "def counted():\n    run()\n    print('ran', file=sys.stderr)\nprogram.run_resident = counted"
    )
    suite.add_backend("false", 'program.outputs = lambda: {"output": outputs()["output"] * 2}')

    result = suite.run(*SMALL, "--backend=counts,false", "--benchmark-disable", "--benchmark-json=run.json", "-rA")

    assert list(result.outcomes().values()) == ["PASSED", "FAILED"], result.text
    assert "wrong result, not recorded" in result.stdout
    assert "items/s" not in result.stdout
    stored = suite.root / "run.json"
    assert not stored.exists() or "extra_info" not in stored.read_text()


def test_benchmark_skip_skips_every_case(plain: Suite) -> None:
    result = plain.run("--benchmark-skip")

    assert result.returncode == 0, result.text
    assert f"= {len(workloads.names())} skipped in " in result.stdout


def test_steps_gives_exactly_that_many_samples(suite: Suite) -> None:
    result = suite.run(*SMALL, "--steps=3", "--benchmark-json=run.json", "--benchmark-min-rounds=9")

    assert result.returncode == 0, result.text
    (entry,) = suite.read("run.json")["benchmarks"]
    assert len(entry["stats"]["data"]) == entry["extra_info"]["samples"] == 3


def test_max_time_and_warmup_bound_what_is_measured(suite: Suite) -> None:
    """Steps of 10 ms: half a second holds at most 50 of them; and so long is the warm-up."""
    suite.add_backend("paced", PACED.format(seconds=0.01))
    args = (*SMALL, "--backend=paced", "--benchmark-json=run.json", "--benchmark-max-time=0.5", "--benchmark-warmup=on")

    result = suite.run(*args)

    assert result.returncode == 0, result.text
    info = suite.read("run.json")["benchmarks"][0]["extra_info"]
    assert 5 <= info["samples"] <= 55
    assert info["warmup_s"] >= 0.5
    assert info["warmup_steps"] >= 5


def test_batches_per_step_multiply_the_items_and_not_the_rate(suite: Suite) -> None:
    suite.add_backend("paced", PACED.format(seconds=0.01))

    result = suite.run(*SMALL, "--backend=paced", "--batches-per-step=4", "--steps=5", "--benchmark-json=run.json")

    assert result.returncode == 0, result.text
    info = suite.read("run.json")["benchmarks"][0]["extra_info"]
    assert info["items_per_step"] == 4 * 32
    assert info["step_median_s"] >= 4 * 0.01
    assert info["items_per_s"] <= 32 / 0.01


def test_in_process_gives_the_same_keys(recorded: Tuple[Suite, Result, Dict[str, Any]], suite: Suite) -> None:
    result = suite.run(*SMALL, "--in-process", "--benchmark-json=run.json")

    assert result.returncode == 0, result.text
    assert "in this process" in result.stdout
    mine = suite.read("run.json")["benchmarks"][0]["extra_info"]
    theirs = recorded[2]["benchmarks"][0]["extra_info"]
    assert set(mine) == set(theirs)
    same = [key for key in FIELDS if key in ("id", "graph", "settings", "flops_per_item", "item", "checked_rows")]
    assert {key: mine[key] for key in same} == {key: theirs[key] for key in same}


# pytest-benchmark's table, and its comparison.


def test_columns_show_pytest_benchmarks_table(plain: Suite) -> None:
    result = plain.run(*SMALL, "--benchmark-columns=min,rounds")

    assert result.returncode == 0, result.text
    assert re.search(r"^Name \(time in \w+\) +Min +Rounds *$", result.stdout, re.MULTILINE)


def test_group_by_backend_makes_a_table_of_each(suite: Suite) -> None:
    suite.add_backend("twin")

    result = suite.run(*SMALL, "--backend=numpy,twin", "--benchmark-group-by=param:backend")

    assert result.returncode == 0, result.text
    assert re.findall(r"benchmark 'backend=(\w+)': 1 tests", result.stdout) == ["numpy", "twin"]


def test_compare_holds_a_run_against_a_saved_one(suite: Suite) -> None:
    suite.add_backend("paced", PACED.format(seconds=0.002))
    args = (*SMALL, "--backend=paced")
    suite.run(*args, "--benchmark-save=fast")
    suite.add_backend("paced", PACED.format(seconds=0.02))

    result = suite.run(*args, "--benchmark-compare=0001", "--benchmark-compare-fail=median:50%")

    assert result.returncode == 1, result.text
    assert "(0001_fast)" in result.stdout
    assert "Performance has regressed" in result.text

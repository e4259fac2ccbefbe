"""Runs of image networks: the protocol of a program, inputs of zeros, latency, and baselines that do not match."""

from __future__ import annotations

import importlib.util
import statistics
from typing import Any, Callable, Dict, List

import pytest
from suite import PACED, Result, Suite

NETWORK = ("--model", "resnet8", "--image-size", "8")
STORED = "--benchmark-json=run.json"
# Runs that are slow after the first, which is for the check.
SLOW_START = """
seconds = iter([0, 0.3, 0.3])
def slow():
    run()
    time.sleep(next(seconds, 0.0))
program.run_resident = slow
"""


@pytest.fixture(scope="module")
def plain(new_suite: Callable[[], Suite]) -> Suite:
    """A copy for runs whose files the next one may replace."""
    return new_suite()


def entry_of(suite: Suite, result: Result) -> Dict[str, Any]:
    """The one case of a run."""
    assert result.returncode == 0, result.text
    (entry,) = suite.read("run.json")["benchmarks"]
    return dict(entry)


def info_of(suite: Suite, *args: str) -> Dict[str, Any]:
    """The record of the one case of a run."""
    return dict(entry_of(suite, suite.run(*NETWORK, STORED, *args))["extra_info"])


# The protocol of a program.


@pytest.fixture(scope="module")
def theirs(new_suite: Callable[[], Suite]) -> Dict[str, Any]:
    """A run as PyTorch's program, of a backend that starts slowly: its entry, and what it printed."""
    suite = new_suite()
    suite.add_backend("sluggish", SLOW_START)
    args = (*NETWORK, "--backend=sluggish", "--protocol=pytorch_cnns", "--steps=7", "--batch-size=3", STORED)
    result = suite.run(*args)
    return {**entry_of(suite, result), "text": result.stdout}


def test_the_slow_calls_are_samples_and_not_a_warm_up(theirs: Dict[str, Any]) -> None:
    info, seconds = theirs["extra_info"], theirs["stats"]["data"]

    assert (info["protocol"], info["warmup_steps"], info["steps_per_sample"]) == ("pytorch_cnns", 0, 1)
    assert len(seconds) == 7
    assert seconds[0] >= 0.3
    assert seconds[1] >= 0.3


def test_the_rates_of_the_program_are_those_of_the_calls_but_the_first_two(theirs: Dict[str, Any]) -> None:
    """Of the samples as they are stored, to the last digit."""
    info = theirs["extra_info"]

    rates = [3 / each for each in theirs["stats"]["data"][2:]]
    found = [info[f"protocol_{kind}items_per_s"] for kind in ("", "min_", "max_", "std_")]
    assert found == pytest.approx([statistics.fmean(rates), min(rates), max(rates), statistics.pstdev(rates)], rel=1e-9)


def test_our_rate_is_items_over_the_median_of_all_samples(theirs: Dict[str, Any]) -> None:
    info, seconds = theirs["extra_info"], theirs["stats"]["data"]

    assert info["items_per_s"] == pytest.approx(3 / statistics.median(seconds), rel=1e-12)
    assert info["items_per_step"] == 3


def test_the_table_has_both_rates(theirs: Dict[str, Any]) -> None:
    assert " items/s  theirs " in " ".join(theirs["text"].split("─")[0].split("\n")[-2:])


@pytest.fixture(scope="module")
def median(plain: Suite) -> Dict[str, Any]:
    """A run by our protocol."""
    result = plain.run(*NETWORK, STORED, "--steps=7")
    return {**entry_of(plain, result), "text": result.stdout}


def test_our_protocol_warms_up_and_has_no_rate_of_another_program(median: Dict[str, Any]) -> None:
    info = median["extra_info"]

    assert info["protocol"] == "median"
    assert info["warmup_steps"] >= 2
    assert [info[f"protocol_{kind}items_per_s"] for kind in ("", "min_", "max_", "std_")] == 4 * [None]
    assert "theirs" not in median["text"]


# Latency.


def test_the_latency_of_single_batches_is_that_of_the_samples(median: Dict[str, Any]) -> None:
    """The nearest rank of seven is the 4th. Seven are too few for 90 %."""
    ordered = sorted(median["stats"]["data"])

    found = [median["extra_info"][f"latency_{name}_s"] for name in ("p50", "p90", "p99", "p999")]

    assert found == [pytest.approx(ordered[3], rel=1e-12), None, None, None]
    assert " p99 " in median["text"]


def test_batches_that_share_a_step_have_no_latency(plain: Suite) -> None:
    info = info_of(plain, "--steps=3", "--batches-per-step=2")

    assert [info[f"latency_{name}_s"] for name in ("p50", "p90", "p99", "p999")] == [None] * 4
    assert (info["batches_per_step"], info["items_per_step"], info["global_batch"]) == (2, 2, 1)


def test_min_latency_has_one_batch_in_flight_and_says_so(plain: Suite) -> None:
    info = info_of(plain, "--steps=3", "--min-latency")

    assert info["min_latency"] is True
    assert (info["batches_in_flight"], info["batches_per_step"], info["items_per_step"]) == (1, 1, 1)
    assert info["latency_p50_s"] == info["step_median_s"]


# Inputs of zeros.

SEEN = """
import numpy
outputs_before = program.outputs
def told():
    image = next(iter(graph.inputs))
    (Path(__file__).parents[2] / "inputs.txt").open("a").write(f"{last[image].dtype} {int(numpy.any(last[image]))}\\n")
    return outputs_before()
feed_before, last = program.feed, {}
def fed(batches):
    last.update(batches[0])
    feed_before(batches)
program.feed, program.outputs = fed, told
"""


@pytest.mark.parametrize(
    "args, dtype",
    [([], "float32"), (["--normalization-location=device"], "float32"), (["--eight-bit-io"], "uint8")],
    ids=["plain", "normalised", "bytes"],
)
def test_zeros_are_timed_and_not_what_is_checked(suite: Suite, args: List[str], dtype: str) -> None:
    """Every value of the check is drawn: zeros would hide a wrong weight."""
    suite.add_backend("seen", SEEN)

    result = suite.run(*NETWORK, "--backend=seen", "--use-zero-values", "--steps=2", STORED, *args)

    assert entry_of(suite, result)["extra_info"]["zero_values"] is True
    checked, timed, *again = (suite.root / "inputs.txt").read_text().splitlines()
    assert (checked, timed) == (f"{dtype} 1", f"{dtype} 0")
    assert set(again) == {f"{dtype} 1"}


# Baselines.


MET = (*NETWORK, "--backend=paced", "--steps=5", "--baseline=./base.json")


@pytest.fixture(scope="module")
def ahead(new_suite: Callable[[], Suite]) -> Suite:
    """A copy with a baseline a hundred times as fast as what runs there."""
    suite = new_suite()
    suite.add_backend("paced", PACED.format(seconds=0.01))
    suite.run(*MET, "--baseline-accept=first", "--processes=1")
    suite.store("base.json", 100)
    return suite


def test_a_network_that_got_slower_fails(ahead: Suite) -> None:
    result = ahead.run(*MET)

    assert result.returncode == 1, result.text
    assert "images/s; slower: -" in result.stdout


@pytest.mark.parametrize("changed", ["--protocol=tensorflow_layers", "--min-latency", "--half-partial"])
def test_a_baseline_of_another_protocol_is_not_compared(ahead: Suite, changed: str) -> None:
    result = ahead.run(*MET, changed, "--processes=1")

    assert result.returncode == 0, result.text
    assert " changed" in result.stdout


# Training, by a framework that trains.

# Each process loads torch anew, and one has all that is looked at.
TRAINED = ("--backend=torch", "--mode=training", "--batch-size=2", "--steps=5", "--tuning=default", "--processes=1")


@pytest.fixture(scope="module")
def trained(new_suite: Callable[[], Suite]) -> Dict[str, Any]:
    """A run that accumulates, stored as a baseline, and the same by another recipe beside it."""
    if importlib.util.find_spec("torch") is None:
        pytest.skip("torch is not installed")
    suite = new_suite()
    args = (*NETWORK, *TRAINED, "--gradient-accumulation=3")
    first = entry_of(suite, suite.run(*args, STORED, "--baseline=./base.json", "--baseline-accept=first"))
    other = suite.run(*args, STORED, "--optimiser=momentum", "--baseline=base.json", "--require-baseline")
    return {"first": first, "other": other, "record": suite.read("run.json")["benchmarks"][0]["extra_info"]}


def test_a_step_that_accumulates_three_batches_of_two_counts_six_images(trained: Dict[str, Any]) -> None:
    info, seconds = trained["first"]["extra_info"], trained["first"]["stats"]["data"]

    assert (info["items_per_step"], info["global_batch"], info["batch_size"]) == (6, 6, 2)
    assert info["items_per_s"] == pytest.approx(6 / statistics.median(seconds), rel=1e-12)
    assert info["latency_p50_s"] is None


def test_the_record_names_what_a_recipe_changes(trained: Dict[str, Any]) -> None:
    assert trained["first"]["extra_info"]["recipe"] == "gradient_accumulation=3"
    assert trained["record"]["recipe"] == "optimiser=momentum, gradient_accumulation=3"


def test_a_baseline_of_another_recipe_is_not_compared_and_not_the_one_required(trained: Dict[str, Any]) -> None:
    result = trained["other"]

    assert result.returncode == 1, result.text
    assert " changed" in result.stdout
    assert "changed: not compared; a change can come from recipe " in result.stdout
    assert "--require-baseline" in result.stdout

"""Settings that a baseline must match: their fingerprints stay, what differs is named, and older records are read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Dict, List, Optional

import pytest
from records import judged, record_of
from suite import SMALL, Suite, case_id

from bench import workloads
from bench.cases.case import RECORDED, Case, Settings
from bench.cases.poplar import Poplar
from bench.cases.recipe import Recipe
from bench.clock.sampling import Samples
from bench.program import Step
from bench.results import baseline, fingerprints, record


def differences(now: Dict[str, Any], base: Dict[str, Any]) -> List[str]:
    return [str(difference) for difference in fingerprints.differences(now, base)]


def built(
    mode: str = "inference", device: str = "cpu", settings: Optional[Settings] = None, **notes: Any
) -> Dict[str, Any]:
    """The record of a layer, or of a network on IPUs, that was measured so."""
    name = "resnet8" if device == "ipu" else "dense"
    module = workloads.load(name)
    size = next(iter(workloads.named_sizes(module).values()))
    case = Case(name, "tiny", {key: size[key] for key in module.dimensions}, mode, 2, "fp32", 1, "numpy", device)
    settings = settings or Settings()
    seen = {"framework_version": "1", "disturbed": False, "batches_in_flight": 1, "tuned_layout": "plain", **notes}
    graph, samples = workloads.of_case(case, settings.recipe), Samples([0.5], 1, 1, 0.5, True)
    return record.build(case, settings, graph, Step(lambda: None, 2), samples, seen)


MOMENTUM = Recipe(optimiser="momentum", momentum=0.8, lr_epoch_decay=(30.0, 60.0))
MEMORY = Poplar(available_memory_proportion=(0.2,), ipu_model=True)
# By schema 1: the fingerprint of each in inference and in training on a CPU, and in training on an IPU.
FINGERPRINTS = [
    ({}, "4a3a9e54e971", "0f48b8398fa2", "a355818fd7ca"),
    ({"data": "generated"}, "593600b0cea6", "847a61c1da91", "ec0b5710b69e"),
    ({"zero_values": True}, "dae32ef28c9f", "190cc3ea0504", "103ccd73ceb5"),
    ({"batches_per_step": 2}, "54ea79cf0a44", "fa5c9d3e5cc9", "4bb35e043fb8"),
    ({"tuning": "default"}, "2ceaa9872dc0", "8a2f5ac846e3", "9bad00c3e623"),
    ({"threads": 2}, "021be1e8f2a7", "cfff771ae04e", "93d50cc042cc"),
    ({"cores": [2, 3]}, "20c5a8b92710", "bce83439f8ac", "b1b87e49ccaf"),
    ({"min_latency": True}, "1d2136b05839", "35336e3e1bb6", "ee2ed4fae8c7"),
    ({"half_partial": True}, "54c49218254c", "4e92f5befbfb", "dabf398ffaa2"),
    ({"protocol": "pytorch_cnns"}, "0207eac48bcd", "246cf5bc2a0d", "2409e1fa398f"),
    ({"all_reduce": False}, "6db084e770aa", "aecc01c70d77", "b2c33ff67ee5"),
    ({"parallel_timing": True, "cores": [2, 3]}, "e9b49fdef443", "454040ed7491", "44f5dedbffc9"),
    ({"parallel_timing": True, "cores": [4, 5]}, "e9b49fdef443", "454040ed7491", "44f5dedbffc9"),
    ({"recipe": MOMENTUM}, "4a3a9e54e971", "45e9e9a3bdf0", "c3833c14400f"),
    ({"pipeline_splits": "layer2"}, "4a3a9e54e971", "0f48b8398fa2", "be94bfc2115f"),
    ({"poplar": MEMORY}, "4a3a9e54e971", "0f48b8398fa2", "17c8dc2914e6"),
    ({"steps": 9, "max_time_s": 9.0}, "4a3a9e54e971", "0f48b8398fa2", "a355818fd7ca"),
]


@pytest.mark.parametrize("changed, inference, training, on_ipu", FINGERPRINTS)
def test_the_fingerprint_of_settings_is_what_stored_baselines_have(changed, inference, training, on_ipu):
    settings = Settings(**changed)

    assert built("inference", "cpu", settings)["settings"] == inference
    assert built("training", "cpu", settings)["settings"] == training
    assert built("training", "ipu", settings)["settings"] == on_ipu


CHANGES: Dict[str, Any] = {
    "data": "generated",
    "zero_values": True,
    "batches_per_step": 2,
    "tuning": "default",
    "threads": 2,
    "cores": [2, 3],
    "recipe": MOMENTUM,
    "min_latency": True,
    "half_partial": True,
    "protocol": "pytorch_cnns",
    "all_reduce": False,
    "pipeline_splits": "layer2",
    "poplar": MEMORY,
    "parallel_timing": True,
}


def test_every_setting_that_is_matched_is_changed_here():
    assert set(CHANGES) == set(RECORDED)


@pytest.mark.parametrize("name", CHANGES)
def test_a_setting_that_differs_is_named_and_no_other(name):
    now, base = built("training", "ipu", Settings(**{name: CHANGES[name]})), built("training", "ipu")

    verdict = judged(now, base)

    assert verdict.kind == "changed"
    assert verdict.confounded == (f"{name} {base[name]} -> {now[name]}",)


@pytest.mark.parametrize("name", ["recipe", "pipeline_splits", "poplar"])
def test_a_setting_without_effect_on_a_case_is_not_recorded_and_not_matched(name):
    now = built("inference", "cpu", Settings(**{name: CHANGES[name]}))

    assert now[name] == ""
    assert differences(now, built()) == []


def test_a_setting_without_effect_on_a_case_is_not_named():
    """Schema 1 recorded where an IPU's pipeline would be cut on a CPU as well."""
    base = {**built(), "pipeline_splits": "layer2"}

    assert differences(built(settings=Settings(threads=2)), base) == ["threads 1 -> 2"]


def test_beside_others_the_number_of_cores_is_named_and_not_which():
    beside = {"parallel_timing": True, "cores": [0, 1]}
    base = built(settings=Settings(**beside))

    def named(**changed: Any) -> Any:
        return differences(built(settings=Settings(**{**beside, **changed})), base)

    assert named(cores=[2, 3]) == []
    assert named(cores=[2, 3], threads=2) == ["threads 1 -> 2"]
    assert named(cores=[2]) == ["cores 0,1 -> 2"]


def test_facts_of_a_backend_that_differ_are_named_beside_settings():
    now = built(settings=Settings(threads=2), tuned_layout="packed")

    assert differences(now, built()) == ["threads 1 -> 2", "tuned_layout plain -> packed"]


# Records of schema 1.


def of_schema_1(stored: Dict[str, Any]) -> Dict[str, Any]:
    """A record as the suite wrote it before."""
    old = {
        "canary_slowdown_before": "canary_before",
        "canary_slowdown_after": "canary_after",
        "load_average_1min": "load",
        "relative_error": "error",
    }
    return {**{old.get(key, key): value for key, value in stored.items()}, "schema": 1, "elementwise_per_item": 65.0}


def test_a_record_of_schema_1_is_read_by_the_names_of_today():
    now = {**built(), "canary_slowdown_before": 1.0, "load_average_1min": 0.5, "relative_error": 1e-7}

    assert record.upgraded(of_schema_1(now)) == now
    assert record.upgraded(now) == now


@pytest.mark.parametrize("stored", [None, 3, "x", [], {}, {"schema": 0}, {"schema": 3}])
def test_what_is_no_record_of_a_known_schema_is_not_read(stored):
    assert record.upgraded(stored) is None


def test_a_baseline_of_schema_1_is_met_and_taken_over_by_the_next_that_is_accepted(tmp_path: Path):
    path = tmp_path / "base.json"
    old = of_schema_1(record_of("a-1", 1000.0, load_average_1min=0.5))
    path.write_text(json.dumps({"accepted": [], "benchmarks": [{"extra_info": old}]}))

    ((base,),) = baseline.load(path).records.values()
    baseline.accept(path, [record_of("a-1", 900.0, started_s=1.0)], "me", "why")
    ((both,),) = baseline.load(path).records.values()

    assert differences(record_of("a-1"), base) == []
    assert [each["items_per_s"] for each in base["processes"]] == [1000.0]
    assert [each["items_per_s"] for each in both["processes"]] == [1000.0, 900.0]


def test_a_run_is_held_and_compared_with_records_of_schema_1(history: Suite) -> None:
    content = history.read("base.json")
    for entry in content["benchmarks"]:
        entry["extra_info"] = of_schema_1(entry["extra_info"])
    history.add("old.json", json.dumps(content))
    saved = next((history.root / ".benchmarks").rglob("0001_before.json"))
    stored = json.loads(saved.read_text())
    for entry in stored["benchmarks"]:
        entry["extra_info"] = of_schema_1(entry["extra_info"])
    storage = history.root / "old" / saved.parent.name
    storage.mkdir(parents=True)
    (storage / saved.name).write_text(json.dumps(stored))

    result = history.run(
        *SMALL,
        *("--baseline=old.json", "--require-baseline", "--undecided=pass"),
        *("--benchmark-compare", "--benchmark-storage=old"),
    )

    assert result.returncode == 0, result.text
    assert "items/s now, and then in" in result.stdout
    assert f"has no record of {case_id('numpy', 32)}" not in result.stdout
    assert "measured in another way then" not in result.stdout

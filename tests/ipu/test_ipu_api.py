"""The fakes of the IPU API refuse what the real API refuses, and record their calls."""

from __future__ import annotations

import fnmatch
import inspect
import json
import os
import re
import runpy
import sys
from pathlib import Path
from typing import Any, Callable, List, Tuple

import pytest
from ipu_fakes import FAKES, built, callables, contract, find

SCRIPT = FAKES.parent.parent / "scripts" / "ipu_facts.py"
IPU = "tensorflow.python.ipu"
ACQUIRE = "popart.DeviceManager.acquireAvailableDevice"
# The start of each text in `absent`, and the names that it lists as missing.
ABSENT = {
    "PoplarExecutor.rewindBatch*": ["poptorch.PoplarExecutor.rewindBatch*"],
    "PoplarExecutor.save_state": ["poptorch.PoplarExecutor.save_state"],
    "Options.Jit.traceModel has no effect": [],
    "Precision.halfFloatCasting has no effect": [],
    "no poptorch.nn": ["poptorch.nn"],
    "AnchorConfig": ["popart.AnchorConfig"],
    "StepIOCallback": ["popart.StepIOCallback"],
    "getDeviceManager": ["popart.getDeviceManager", "popart.DeviceManager.createDeviceManager"],
    "utils.create_ipu_config and set_*": [f"{IPU}.utils.create_ipu_config", f"{IPU}.utils.set_*"],
    f"{IPU}.keras and ops.rnn_ops": [f"{IPU}.keras", f"{IPU}.ops.rnn_ops"],
    "utils.get_num_ipus_in_system": [f"{IPU}.utils.get_num_ipus_in_system"],
    "ipu.horovod": [f"{IPU}.horovod"],
    "IPUMultiReplicaStrategy": [f"{IPU}.ipu_strategy.IPUMulti*", f"{IPU}.distributed.popdist_strategy.IPUMulti*"],
    "summary_ops": [f"{IPU}.summary_ops", f"{IPU}.ops.summary_ops"],
    "poptorch, popart and poplar on PyPI": [],
}


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    contract.reset()
    monkeypatch.delenv("FAKE_IPU_FAULTS", raising=False)


def test_each_fact_has_one_line_and_one_name() -> None:
    names = [entry["name"] for entry in contract.facts()["entries"]]
    text = (FAKES / "facts.json").read_text(encoding="utf-8")

    assert len(set(names)) == len(names) > 1900
    assert all(f'\n{{"name": "{name}", ' in text for name in names)
    assert len(text) < 400_000
    assert all(re.fullmatch("[0-9a-f]{40}", commit) for commit in contract.facts()["source"]["commits"].values())


@pytest.mark.skipif("IPU_API_JSON" not in os.environ, reason="IPU_API_JSON names no description of the API")
def test_the_script_makes_the_same_facts_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = tmp_path / "facts.json"
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), os.environ["IPU_API_JSON"], str(made)])

    runpy.run_path(str(SCRIPT), run_name="__main__")

    assert made.read_bytes() == (FAKES / "facts.json").read_bytes()


def test_every_fact_is_where_its_name_says() -> None:
    for entry in contract.facts()["entries"]:
        found, _ = find(entry["name"])
        if entry["kind"] in ("class", "exception", "enum", "alias"):
            assert inspect.isclass(found), entry
        elif entry["kind"] not in ("property", "attribute", "category"):
            assert callable(found), entry
    assert all(module.__fake__ for module in built().values())
    assert not any(hasattr(module, "__version__") for module in built().values())


def test_what_is_said_to_be_absent_is_absent() -> None:
    texts = [text for texts in contract.facts()["absent"].values() for text in texts]
    assert all(sum(text.startswith(start) for start in ABSENT) == 1 for text in texts)
    for name in [name for names in ABSENT.values() for name in names]:
        owner, _, last = name.rpartition(".")
        holder = built()[owner] if owner in built() else find(owner)[0]
        assert not fnmatch.filter(dir(holder), last), name
        with pytest.raises(AttributeError):
            getattr(holder, last.replace("*", "x"))


def test_every_call_refuses_an_argument_that_it_does_not_have() -> None:
    refused = 0
    for entry in callables():
        forms = entry.get("overloads", [entry.get("params", [])])
        if any("**" in str(one) for form in forms for one in form):
            continue
        found, _ = find(entry["name"])
        contract.reset()
        with pytest.raises(TypeError, match=re.escape(entry["name"]) + r"\(\): ") as error:
            found(no_such_argument=1)
        assert "argument" in str(error.value), entry
        # Classes created inside a call, and calls with wrong arguments, are not recorded.
        assert contract.calls == [], entry
        refused += 1
    assert refused > 1200


def test_every_call_refuses_to_go_without_what_it_requires() -> None:
    lacking = 0
    for entry in callables():
        params = entry.get("params", [])
        if any(isinstance(one, str) and one not in ("self", "cls") and one[0] != "*" for one in params):
            with pytest.raises(TypeError, match=re.escape(entry["name"])):
                find(entry["name"])[0]()
            lacking += 1
    assert lacking > 500


CALLS: List[Tuple[str, Callable[[Any], Any], str]] = [
    ("popart", lambda m: m.DeviceManager().createIpuModelDevice(e={}), "positional"),
    ("popart", lambda m: m.DeviceManager().acquireAvailableDevice(2, tilesPerIPU=4), "tilesPerIPU"),
    ("popart", lambda m: m.DeviceManager().enumerateDevices(tilesPerIpu=4), "tilesPerIpu"),
    ("popart", lambda m: m.DeviceManager().acquireAvailableDevice("2"), "numIpus cannot be '2'"),
    ("popart", lambda m: m.DeviceManager().acquireAvailableDevice(2.0), "numIpus cannot be 2.0"),
    ("popart", lambda m: m.DeviceManager().acquireAvailableDevice(pattern="Full"), "pattern cannot be 'Full'"),
    ("popart", lambda m: m.DeviceManager().acquireAvailableDevice(connectionType=1), "connectionType cannot be 1"),
    ("popart", lambda m: m.DeviceInfo(), "No constructor"),
    ("popart", lambda m: m.Builder().aiGraphcore.incrementmod(["x"], modulus=2), "'increment'"),
    ("popart", lambda m: m.Builder().addInputTensor("FLOAT", [1], [2]), "addInputTensor"),
    ("popart", lambda m: m.DataFlow("1"), "anchorTensors"),
    ("poptorch", lambda m: m.trainingModel(None, opts=None), "opts"),
    ("poptorch", lambda m: m.Options(4), "too many positional"),
    (f"{IPU}.loops", lambda m: m.repeat(3), "body"),
    ("keras.ipu", lambda m: m.PipelineStage(), "stage"),
    ("popdist.poptorch", lambda m: m.Options(2), "too many positional"),
]


@pytest.mark.parametrize("module, call, text", CALLS, ids=[str(index) for index in range(len(CALLS))])
def test_a_wrong_call_is_a_type_error(module: str, call: Any, text: str) -> None:
    with pytest.raises(TypeError, match=re.escape(text)):
        call(built()[module])


def test_cpp_calls_find_their_overload_and_names_that_python_reserves() -> None:
    popart: Any = built()["popart"]
    builder = popart.Builder()

    builder.addInputTensor("FLOAT", [1, 2])
    builder.addInputTensor(popart.TensorInfo("FLOAT", [1, 2]), "name")
    builder.addInputTensor("FLOAT", [1, 2], popart.InputSettings())
    builder.virtualGraph(1)
    builder.virtualGraph("tensor", 1)
    builder.aiGraphcore.l1loss(["x"], **{"lambda": 0.5})

    given = [call.arguments for call in contract.calls if call.name.count(".") > 1]
    assert given == [
        {"dataType": "FLOAT", "shape": [1, 2]},
        {"tensorInfo": "popart.TensorInfo#1", "debugContext": "name"},
        {"dataType": "FLOAT", "shape": [1, 2], "settings": "popart.InputSettings#1"},
        {"value": 1},
        {"nodeOutputNames": "tensor", "value": 1},
        {"args": ["x"], "lambda": 0.5},
    ]


def test_enums_have_their_members_and_no_others() -> None:
    entries = [entry for entry in contract.facts()["entries"] if entry["kind"] == "enum"]
    assert len(entries) == 66
    for entry in entries:
        found, _ = find(entry["name"])
        assert set(found.__members__) == set(entry["members"])
        for name, value in entry["members"].items():
            assert value is None or found[name].value == value
            with pytest.raises(AttributeError):
                setattr(found, name, 1)
        with pytest.raises(AttributeError):
            found.NoSuchMember  # noqa: B018
    popart: Any = built()["popart"]
    assert int(popart.DataType.FLOAT16) == 12
    assert popart.DataType.FLOAT16 != 12
    assert len({popart.RecoveryAction.IPU_RESET, popart.RecoveryAction.FULL_RESET}) == 2


def test_faults_come_as_often_as_told(monkeypatch: pytest.MonkeyPatch) -> None:
    popart: Any = built()["popart"]
    fault = {"exception": "popart.popart_exception", "message": "Failed to acquire device", "times": 2}
    monkeypatch.setenv("FAKE_IPU_FAULTS", json.dumps({ACQUIRE: fault, "popart.Builder": {"exception": "OSError"}}))
    manager = popart.DeviceManager()

    for _ in range(2):
        with pytest.raises(popart.popart_exception, match="Failed to acquire device"):
            manager.acquireAvailableDevice(1)
    assert manager.acquireAvailableDevice(1) is None
    for _ in range(3):
        with pytest.raises(OSError):  # noqa: PT011
            popart.Builder()
    assert [call.name for call in contract.calls].count(ACQUIRE) == 3


def test_a_fault_has_the_attributes_of_its_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    poptorch: Any = built()["poptorch"]
    fault = {"exception": "poptorch.RecoverableError", "message": "link down"}
    fault["attributes"] = {"recovery_action": "IPU_RESET"}
    monkeypatch.setenv("FAKE_IPU_FAULTS", json.dumps({"poptorch.ipuHardwareIsAvailable": fault}))
    with pytest.raises(poptorch.Error) as caught:
        poptorch.ipuHardwareIsAvailable(2)
    assert (caught.value.recovery_action, caught.value.message) == ("IPU_RESET", "link down")
    assert not hasattr(poptorch.UnrecoverableError("x"), "recovery_action")


@pytest.mark.parametrize(
    "text", ['{"popart.DeviceManager.acquire": {"exception": "OSError"}}', '{"popart.Builder": {"error": "OSError"}}']
)
def test_a_fault_that_could_not_come_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    popart: Any = built()["popart"]
    monkeypatch.setenv("FAKE_IPU_FAULTS", text)
    with pytest.raises(ValueError, match="FAKE_IPU_FAULTS"):
        popart.DeviceManager()

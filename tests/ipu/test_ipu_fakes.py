"""The behaviour of the fakes of the IPU API: options and settings, recorded calls, replaced functions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable, List, Tuple

import pytest
from ipu_fakes import built, contract

Refusal = Tuple[Callable[[Any], Any], type]

CONFIG_NAME = "tensorflow.python.ipu.config.IPUConfig"
ACQUIRE = "popart.DeviceManager.acquireAvailableDevice"


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    contract.reset()
    for name in ("CALLS", "FAULTS", "COUNT", "BUSY"):
        monkeypatch.delenv(f"FAKE_IPU_{name}", raising=False)


@pytest.fixture
def poptorch() -> Any:
    return built()["poptorch"]


@pytest.fixture
def popart() -> Any:
    return built()["popart"]


@pytest.fixture
def config() -> Any:
    return built()["tensorflow.python.ipu.config"]


def test_setters_chain_where_the_facts_say_so_and_only_there(poptorch: Any) -> None:
    options = poptorch.Options()

    assert options.deviceIterations(2).replicationFactor(4) is options
    assert options.setAvailableMemoryProportion({"IPU0": 0.4, "IPU11": 1}) is None
    assert options.broadcastBuffers(False) is None
    part = options.Training
    assert part is options.Training
    assert part.gradientAccumulation(8) is part
    options._Popart.set("engineOptions", {"a": "b"})
    options._Popart.set("numIOTiles", 32)
    assert contract.settings(part) == {
        "deviceIterations": 2,
        "replicationFactor": 4,
        "setAvailableMemoryProportion": {"IPU0": 0.4, "IPU11": 1},
        "broadcastBuffers": False,
        "Training.gradientAccumulation": 8,
        "_Popart.set": {"engineOptions": {"a": "b"}, "numIOTiles": 32},
    }


OPTIONS: List[Refusal] = [
    (lambda m: m.Options().deviceIterations(0), AssertionError),
    (lambda m: m.Options().deviceIterations(2.0), AssertionError),
    (lambda m: m.Options().deviceIterations(True), AssertionError),
    (lambda m: m.Options().replicationFactor("2"), AssertionError),
    (lambda m: m.Options().autoRoundNumIPUs(1), AssertionError),
    (lambda m: m.Options().connectionType("Always"), AssertionError),
    (lambda m: m.Options().connectionType(m.SyncPattern.Full), AssertionError),
    (lambda m: m.Options().outputMode(2), AssertionError),
    (lambda m: m.Options().outputMode(m.OutputMode.EveryN), AssertionError),
    (lambda m: m.Options().outputMode(m.OutputMode.EveryN, 0), AssertionError),
    (lambda m: m.Options().setExecutionStrategy("ShardedExecution"), AssertionError),
    (lambda m: m.Options().setAvailableMemoryProportion({"IPU0": 1.1}), AssertionError),
    (lambda m: m.Options().setAvailableMemoryProportion({"0": 0.5}), AssertionError),
    (lambda m: m.Options().setAvailableMemoryProportion(0.5), AssertionError),
    (lambda m: m.Options().useOfflineIpuTarget(3), AssertionError),
    (lambda m: m.Options().TensorLocations.numIOTiles(0), AssertionError),
    (lambda m: m.Options().TensorLocations.numIOTiles(33), AssertionError),
    (lambda m: m.Options().TensorLocations.numIOTiles(194), AssertionError),
    (lambda m: m.Options().Precision.setPartialsType("half"), AssertionError),
    (lambda m: m.Options()._Popart.set("engineOptions", {"a": 1}), AssertionError),
    (lambda m: m.set_available_memory(None, 1.5), AssertionError),
    (lambda m: m.identity_loss(None, "max"), AssertionError),
    (lambda m: m.Options().deviceIteration(2), AttributeError),
    (lambda m: m.Options().Training.deviceIterations(2), AttributeError),
    (lambda m: setattr(m.Options(), "deviceIterations", 2), AttributeError),
    (lambda m: setattr(m.Options(), "anything", 2), AttributeError),
    (lambda m: setattr(m.Options(), "Training", 2), AttributeError),
]
SESSION: List[Refusal] = [
    (lambda o: setattr(o, "enablePipeline", True), AttributeError),
    (lambda o: o.enablePipeline, AttributeError),
    (lambda o: setattr(o, "getGlobalReplicationFactor", 1), AttributeError),
    (lambda o: setattr(o, "enablePipelining", "true"), TypeError),
    (lambda o: setattr(o, "replicatedGraphCount", 2.0), TypeError),
    (lambda o: setattr(o, "replicatedGraphCount", True), TypeError),
    (lambda o: setattr(o, "virtualGraphMode", 1), TypeError),
    (lambda o: setattr(o, "virtualGraphMode", "Manual"), TypeError),
    (lambda o: setattr(o, "engineOptions", {"a": 1}), TypeError),
    (lambda o: setattr(o, "cachePath", Path("x")), TypeError),
    (lambda o: setattr(o, "weightTensorLocationSettings", None), TypeError),
    (lambda o: setattr(o, "hardwareInstrumentations", {"Outer"}), TypeError),
    (lambda o: o.engineOptions.__setitem__("a", True), TypeError),
    (lambda o: o.matmulOptions.update(partialsType=1), TypeError),
    (lambda o: o.matmulOptions.setdefault("partialsType", 1), TypeError),
]
CONFIG: List[Refusal] = [
    (lambda c: setattr(c, "auto_select_ipu", 1), ValueError),
    (lambda c: c.convolution, ValueError),
    (lambda c: setattr(c.convolutions, "poplar_option", {}), ValueError),
    (lambda c: setattr(c, "auto_select_ipus", "1"), TypeError),
    (lambda c: setattr(c, "auto_select_ipus", True), TypeError),
    (lambda c: setattr(c, "auto_select_ipus", [1, 2.0]), TypeError),
    (lambda c: setattr(c, "allow_recompute", 1), TypeError),
    (lambda c: setattr(c.io_tiles, "available_memory_proportion", 1), TypeError),
    (lambda c: setattr(c.floating_point_behaviour, "esr", True), TypeError),
    (lambda c: setattr(c.convolutions, "poplar_options", {"availableMemoryProportion": 0.5}), TypeError),
    (lambda c: (c.matmuls.poplar_options.update(a=1), c.configure_ipu_system()), TypeError),
    (lambda c: setattr(c, "to_dict", 1), AttributeError),
    (lambda c: setattr(c, "convolutions", {}), Exception),
]


@pytest.mark.parametrize("attempt, error", OPTIONS)
def test_poptorch_refuses(poptorch: Any, attempt: Callable[[Any], Any], error: type) -> None:
    with pytest.raises(error):
        attempt(poptorch)


@pytest.mark.parametrize("attempt, error", SESSION)
def test_popart_session_options_refuse(popart: Any, attempt: Callable[[Any], Any], error: type) -> None:
    with pytest.raises(error):
        attempt(popart.SessionOptions())


@pytest.mark.parametrize("attempt, error", CONFIG)
def test_ipu_config_refuses(config: Any, attempt: Callable[[Any], Any], error: type) -> None:
    with pytest.raises(error):
        attempt(config.IPUConfig())


@pytest.mark.parametrize("user", ["inferenceModel", "trainingModel", "DataLoader"])
def test_used_options_are_frozen_and_their_clone_is_not(poptorch: Any, user: str) -> None:
    if user == "DataLoader":
        pytest.importorskip("torch")
    options = poptorch.Options().deviceIterations(2)
    getattr(poptorch, user)(options=options, **({"dataset": [0]} if user == "DataLoader" else {"model": None}))
    copied = options.clone()

    for change in (options.deviceIterations, options.Training.gradientAccumulation, options.useIpuId):
        with pytest.raises(AttributeError, match="frozen"):
            change(3)
    copied.deviceIterations(3)
    assert contract.settings(options) == {"deviceIterations": 2}
    assert contract.settings(copied) == {"deviceIterations": 3}
    assert options.clone().deviceIterations(4)


def test_options_under_poprun_leave_replicas_to_popdist() -> None:
    poptorch: Any = built()["popdist.poptorch"]
    options = poptorch.Options(ipus_per_replica=2).deviceIterations(2)
    assert isinstance(options, built()["poptorch"].Options)  # type: ignore[attr-defined]
    for refused in (options.replicationFactor, options.useIpuId, options.Distributed.disable):
        with pytest.raises(RuntimeError):
            refused(*([2] if refused.__name__ != "disable" else []))


def test_settings_are_kept_and_recorded(popart: Any, config: Any) -> None:
    options, tree = popart.SessionOptions(), config.IPUConfig()
    options.virtualGraphMode = popart.VirtualGraphMode.Manual
    options.engineOptions["a"] = "b"
    options.updatableNamedBuffers.append("lost, as with pybind11")
    tree.auto_select_ipus = (1, 2)
    tree.floating_point_behaviour.esr = config.StochasticRoundingBehaviour.ON
    tree.convolutions.poplar_options["a"] = "b"

    assert options.engineOptions == {"a": "b"}
    assert options.updatableNamedBuffers == []
    assert popart.SessionOptions().engineOptions == {}
    assert tree.convolutions.poplar_options == {"a": "b"}
    assert config.IPUConfig().convolutions.poplar_options == {}
    owners = ["popart.SessionOptions#1", f"{CONFIG_NAME}#1", f"{CONFIG_NAME}.floating_point_behaviour#1"]
    assert [(call.name.rpartition(".")[2], call.arguments, call.of) for call in contract.calls[2:6]] == [
        ("virtualGraphMode", {"value": "VirtualGraphMode.Manual"}, owners[0]),
        ("engineOptions", {"key": "a", "value": "b"}, owners[0]),
        ("auto_select_ipus", {"value": [1, 2]}, owners[1]),
        ("esr", {"value": "StochasticRoundingBehaviour.ON"}, owners[2]),
    ]


def test_calls_are_recorded_in_order_and_without_defaults(popart: Any, monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.setenv("FAKE_IPU_CALLS", str(tmp_path / "calls.jsonl"))
    manager = popart.DeviceManager()
    with pytest.raises(TypeError):
        manager.acquireAvailableDevice(numIPUs=2)
    manager.acquireAvailableDevice(2, connectionType=popart.DeviceConnectionType.OnDemand)
    manager.createIpuModelDevice({"numIPUs": 1, "x": b"12", "y": {1, 2}, "z": popart.DeviceManager})
    manager.setOnDemandAttachTimeout(attachTimeout=3)

    assert [call.name.rpartition(".")[2] for call in contract.calls] == [
        "DeviceManager",
        "acquireAvailableDevice",
        "createIpuModelDevice",
        "setOnDemandAttachTimeout",
    ]
    assert contract.calls[1].arguments == {"numIpus": 2, "connectionType": "DeviceConnectionType.OnDemand"}
    model = contract.calls[2].arguments["e"]
    assert model == {"numIPUs": 1, "x": "<2 bytes>", "y": [1, 2], "z": "<popart.DeviceManager>"}
    lines = [json.loads(line) for line in (tmp_path / "calls.jsonl").read_text().splitlines()]
    assert [(line["name"], line["arguments"]) for line in lines] == [call[:2] for call in contract.calls]
    assert len({line["pid"] for line in lines}) == 1


def test_behaviours_get_self_then_names_with_the_defaults() -> None:
    got: List[Any] = []

    def acquire(self: Any, numIpus: int, **rest: Any) -> Any:
        got.append((numIpus, rest))
        contract.state(self).asked = numIpus
        return contract.new(popart.DeviceInfo, numIpus=numIpus)

    def model(self: Any, e: Any, /) -> Any:
        got.append(e)

    behaviours = {ACQUIRE: acquire, "popart.DeviceInfo.id": lambda self: 7}
    behaviours["popart.DeviceManager.createIpuModelDevice"] = model
    popart: Any = contract.build("popart", behaviours)["popart"]
    manager = popart.DeviceManager()

    device = manager.acquireAvailableDevice(2, pattern=popart.SyncPattern.SinglePipeline)
    manager.createIpuModelDevice({})

    assert got[0][0] == 2
    assert got[0][1]["pattern"] is popart.SyncPattern.SinglePipeline
    assert got[0][1]["connectionType"] is popart.DeviceConnectionType.Always
    assert set(got[0][1]) == {"tilesPerIpu", "pattern", "connectionType", "selectionCriterion"}
    assert got[1] == {}
    assert (device.numIpus, device.id, device.driverIds) == (2, 7, None)
    assert device.__enter__() is device
    assert contract.state(manager).asked == 2
    with pytest.raises(AttributeError):
        manager.asked = 2
    with pytest.raises(AttributeError):
        device.numIpus = 4


def test_a_class_lends_its_methods_and_variable_arguments_arrive() -> None:
    class Executor:
        def __init__(self, model: Any, options: Any, **rest: Any) -> None:
            self.model_of = (model, sorted(rest))

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return args, kwargs

        def rewind(self) -> str:
            return "lent"

    poptorch: Any = contract.build("poptorch", {"poptorch.PoplarExecutor": Executor})["poptorch"]
    made = poptorch.PoplarExecutor("m", "o", training=False, poptorch_version="3")

    assert made.model_of == ("m", ["poptorch_version", "training"])
    assert made(1, x=2) == ((1,), {"x": 2})
    assert made.rewind() == "lent"
    assert contract.calls[-1] == (
        "poptorch.PoplarExecutor.__call__",
        {"args": [1], "x": 2},
        "poptorch.PoplarExecutor#1",
    )
    with pytest.raises(TypeError):
        poptorch.PoplarExecutor("m", "o")


@pytest.mark.parametrize("name", ["popart.DeviceManager.acquire", "popart.nothing", "poptorch.Options"])
def test_a_behaviour_of_nothing_is_refused(name: str) -> None:
    with pytest.raises(LookupError, match=name):
        contract.build("popart", {name: print})

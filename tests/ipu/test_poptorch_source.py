"""PopTorch's real Python layer, if POPTORCH_SOURCE is the path of a checkout: the fake's signatures are those of the
layer, and our backend runs on it.

Its core cannot be built without the SDK. `poptorch_core.py` stands in for it, with torch on the CPU.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from contract_answers import HERE, ROOT, TIMEOUT_S, answers, environment

pytest.importorskip("torch")
import poptorch_source

SOURCE = os.environ.get("POPTORCH_SOURCE", "")
NEEDS_SOURCE = pytest.mark.skipif(not SOURCE, reason="POPTORCH_SOURCE names no checkout of PopTorch")
# A small checkout. One of its signatures is wrong.
SMALL = """
import pkg_resources
import torch
assert torch.__version__.startswith("@TORCH_VERSION@")
import poptorch.poptorch_core as poptorch_core
from poptorch.poptorch_core import Error, importPoptorchMetadataFromFile
__version__ = "@VERSION@-@SNAPSHOT@"

class Options:
    @property
    def Training(self):
        return Training()

class Training:
    def gradientAccumulation(self, gradient_accumulation): pass

def inferenceModel(model, options=None): pass
def BeginBlock(layer_to_call, ipu_id=None): pass
def identity_loss(x, reduction):
    return torch.ops.poptorch.identity_loss(x, reduction)
"""


def used():
    """Every name of PopTorch that the backend calls."""
    called = {name for answer in answers("poptorch")["programs"].values() for name, _ in answer["calls"]}
    return sorted(f"poptorch.{name}" for name in called if not name.startswith(("poptorch", "popdist")))


def signatures_of_the_source(folder, names):
    return _asked(poptorch_source.__file__, str(folder), json.dumps(names))


@functools.lru_cache(maxsize=1)
def signatures_of_the_fake():
    """The signatures of every callable in facts.json."""
    code = """
import json, sys
from pathlib import Path
import contract, poptorch, poptorch_source
known = {}
for name, entry in contract.entries("poptorch").items():
    if entry["kind"] in ("function", "method", "class") and "params" in entry:
        known[name] = poptorch_source.parameters(poptorch_source.found(poptorch, name))
Path(sys.argv[1]).write_text(json.dumps(known))
"""
    return _asked("-c", code)


def _asked(*command, own=None):
    """The JSON that a process writes; by default the fakes are on its path if it has no file."""
    own = own or (environment() if command[0] == "-c" else dict(os.environ))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "answer.json"
        done = subprocess.run(
            [sys.executable, *command, str(file)], env=own, stderr=subprocess.PIPE, text=True, timeout=TIMEOUT_S
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(file.read_text())


@functools.lru_cache(maxsize=1)
def replayed():
    """The answers of poptorch_replay.py. The fakes' folder is not on the path, where they would be the SDK."""
    path = os.pathsep.join(str(folder) for folder in (ROOT, ROOT / "tests", HERE))
    return _asked(str(HERE / "poptorch_replay.py"), str(Path(SOURCE) / "python"), own=environment(PYTHONPATH=path))


@NEEDS_SOURCE
def test_what_the_backend_calls_is_there_in_the_true_python_layer():
    true = signatures_of_the_source(Path(SOURCE) / "python", used())

    assert [name for name in used() if name not in true] == []


@NEEDS_SOURCE
def test_the_fake_s_signatures_are_those_of_the_true_python_layer():
    fake = signatures_of_the_fake()
    true = signatures_of_the_source(Path(SOURCE) / "python", sorted(fake))

    assert len(true) > 100
    assert {name: fake[name] for name in true} == true


@NEEDS_SOURCE
def test_the_true_python_layer_runs_every_case_of_the_contract_with_right_numbers():
    """By the suite's own check: layers and networks, batches, replicas, pipelines, training."""
    answered = {
        f"{kind} {name}": answer["text"]
        for kind in ("numbers", "many", "programs", "sessions", "optimisers", "runs")
        for name, answer in replayed()[kind].items()
        if answer["outcome"] != "passed" and not answer["text"].startswith("not supported: ")
    }

    assert answered == {}


@NEEDS_SOURCE
def test_on_the_true_python_layer_the_check_finds_what_the_device_does_wrong():
    wrong = {name: answer["outcome"] for name, answer in replayed()["wrong"].items()}

    assert set(wrong) == {"replica", "iteration", "sum", "accumulation", "whole run"}
    assert set(wrong.values()) <= {"Wrong", "_WrongUpdate"}


@NEEDS_SOURCE
def test_the_true_python_layer_trains_as_torch_does_and_again_from_the_start():
    said = {name: answer["said"] for name, answer in replayed()["optimisers"].items() if "said" in answer}

    assert sorted(said) == ["adam", "adamw", "momentum", "rmsprop", "rmsprop_tf", "sgd"]
    assert max(each["apart"] for each in said.values()) < 1e-6
    assert max(each["again"] for each in said.values()) < 1e-6


@NEEDS_SOURCE
@pytest.mark.parametrize("kind", ["feeds", "devices"])
def test_the_fake_answers_as_the_true_python_layer(kind):
    true, fake = replayed()[kind], answers("poptorch")[kind]
    # An error that is raised by a name of Python's layer.
    fake = {name: answer for name, answer in fake.items() if name != "soon free"}

    assert {name: (true[name]["outcome"], true[name].get("said")) for name in fake} == {
        name: (answer["outcome"], answer.get("said")) for name, answer in fake.items()
    }


@NEEDS_SOURCE
def test_the_true_python_layer_says_the_latency_and_the_cycles():
    told = replayed()["runs"]["cycles"]["said"]["told"]

    # A batch takes the stand-in a millisecond.
    assert told == {"sdk_latency_s": pytest.approx(1e-3), "cycles": 1234567}


@NEEDS_SOURCE
@pytest.mark.parametrize(
    "name, wanted",
    [
        ("state of 8281 numbers", {"location_optimizer": {"onChip": 0, "useReplicatedTensorSharding": 1}}),
        ("16 bits from the host", {"enableStochasticRounding": True, "enablePrefetchDatastreams": False}),
    ],
)
def test_options_reach_the_session_through_the_true_python_layer(name, wanted):
    assert wanted.items() <= replayed()["sessions"][name]["options"].items()


@NEEDS_SOURCE
def test_blocks_and_checkpoints_of_modules_are_in_the_graph_that_the_true_python_layer_traces():
    programs = replayed()["programs"]

    assert programs["pipeline"]["ipus"] == [0, 1]
    assert programs["training"]["ipus"] == []
    assert programs["--recompute manual"]["checkpoints"] > 0
    assert programs["training"]["checkpoints"] == 0


@NEEDS_SOURCE
def test_a_longer_chain_has_no_more_operations():
    short, long = (replayed()["chains"][steps]["operations"] for steps in ("6", "600"))

    assert short == long > 0


@NEEDS_SOURCE
def test_a_step_copies_no_weights_from_or_to_the_device():
    said = {mode: answer["said"] for mode, answer in replayed()["stepping"].items()}

    assert said == {
        "training": ["isAttachedToDevice", "updateOptimizers", "execute"] * 2,
        "inference": ["execute"] * 2,
    }


@NEEDS_SOURCE
def test_the_true_python_layer_holds_no_device_when_a_program_has_ended_however_it_ended():
    held = {
        f"{kind} {name}": answer["held"]
        for kind, named in replayed().items()
        for name, answer in named.items()
        if answer["held"]
    }

    assert held == {}
    assert replayed()["broken"]["in a run"]["outcome"] == "Broken"


@NEEDS_SOURCE
@pytest.mark.parametrize(
    "name, text",
    [
        ("Plus", "Expected an IPU tensor"),
        ("Read", "aten::item is only supported in eager mode"),
        ("Unknown", "Unsupported ops found in compiled model: [aten::special_bessel_j0]"),
        ("Replaced", "Parameter weight is reassigned within the model"),
        ("an option unknown", "Unknown uint64 option noSuchOption"),
        ("an option of another type", "Unknown string option numIOTiles"),
    ],
)
def test_the_stand_in_refuses_what_the_core_refuses(name, text):
    assert text in replayed()["refused"][name]["text"]


def test_a_source_is_loaded_on_stubs_and_compared_parameter_by_parameter(tmp_path):
    pytest.importorskip("torch")
    (tmp_path / "__init__.py").write_text(SMALL)
    names = ["poptorch.inferenceModel", "poptorch.BeginBlock", "poptorch.Options.Training.gradientAccumulation"]

    true = signatures_of_the_source(tmp_path, [*names, "poptorch.missing"])

    fake = signatures_of_the_fake()
    assert sorted(true) == sorted(names)
    assert [name for name in names if true[name] != fake[name]] == ["poptorch.BeginBlock"]

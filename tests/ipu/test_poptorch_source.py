"""The fake's signatures against PopTorch's real Python layer, if POPTORCH_SOURCE is the path of a checkout.

Its core cannot be built without the SDK, so only names and parameters are compared.
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
from contract_answers import answers, environment

pytest.importorskip("torch")
import poptorch_source

SOURCE = os.environ.get("POPTORCH_SOURCE", "")
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


def _asked(*command):
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "answer.json"
        own = environment() if command[0] == "-c" else dict(os.environ)
        done = subprocess.run(
            [sys.executable, *command, str(file)], env=own, stderr=subprocess.PIPE, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(file.read_text())


@pytest.mark.skipif(not SOURCE, reason="POPTORCH_SOURCE names no checkout of PopTorch")
def test_what_the_backend_calls_is_there_in_the_true_python_layer():
    true = signatures_of_the_source(Path(SOURCE) / "python", used())

    assert [name for name in used() if name not in true] == []


@pytest.mark.skipif(not SOURCE, reason="POPTORCH_SOURCE names no checkout of PopTorch")
def test_the_fake_s_signatures_are_those_of_the_true_python_layer():
    fake = signatures_of_the_fake()
    true = signatures_of_the_source(Path(SOURCE) / "python", sorted(fake))

    assert len(true) > 100
    assert {name: fake[name] for name in true} == true


def test_a_source_is_loaded_on_stubs_and_compared_parameter_by_parameter(tmp_path):
    pytest.importorskip("torch")
    (tmp_path / "__init__.py").write_text(SMALL)
    names = ["poptorch.inferenceModel", "poptorch.BeginBlock", "poptorch.Options.Training.gradientAccumulation"]

    true = signatures_of_the_source(tmp_path, [*names, "poptorch.missing"])

    fake = signatures_of_the_fake()
    assert sorted(true) == sorted(names)
    assert [name for name in names if true[name] != fake[name]] == ["poptorch.BeginBlock"]

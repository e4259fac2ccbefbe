"""Under poprun: popdist is initialised once and first, and has the say on replicas and devices."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys

import pytest
from poptorch_answers import ROOT, environment

CODE = """
import importlib, json, sys
sys.path.insert(0, {root!r})
from bench import workloads
from bench.backends import {backend} as backend
from bench.backends.{backend} import {module} as translated
from bench.cases.case import Case, Settings
module = workloads.load("dense")
size = {{**next(iter(workloads.named_sizes(module).values())), **module.TINY}}
size = {{name: size[name] for name in module.DIMENSIONS}}
case = Case("dense", "tiny", size, "inference", 2, "fp32", {replicas}, "x", "ipu")
settings = Settings(data="generated")
graph = workloads.of_case(case)
try:
    {call}
except Exception as error:
    print(json.dumps({{"error": f"{{type(error).__name__}}: {{error}}"}}))
    raise SystemExit
import contract
print(json.dumps([[call.name, repr(call.arguments)] for call in contract.calls]))
"""
CALLS = {
    "poptorch": ("options", "import poptorch; translated.make(poptorch, case, settings, False)"),
    "popart": ("options", "import popart; translated.made(popart, graph, case, settings)"),
    "tensorflow_ipu": ("config", "translated._config(case, settings)"),
}


def asked(backend, replicas, told):
    needed = {"poptorch": "torch", "popart": "onnx", "tensorflow_ipu": "tensorflow"}[backend]
    if importlib.util.find_spec(needed) is None:
        pytest.skip(f"{needed} is not installed")
    module, call = CALLS[backend]
    code = CODE.format(root=str(ROOT), backend=backend, module=module, replicas=replicas, call=call)
    environ = environment(**({"FAKE_POPDIST": told} if told else {}))
    done = subprocess.run([sys.executable, "-c", code], env=environ, stdout=-1, stderr=-1, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    "backend, own, others",
    [
        ("poptorch", "popdist.poptorch.Options", ["poptorch.Options.replicationFactor", "poptorch.Options.useIpuId"]),
        ("popart", "popdist.popart.configureSessionOptions", ["popart.SessionOptions.replicatedGraphCount"]),
        ("tensorflow_ipu", "popdist.tensorflow.set_ipu_config", ["IPUConfig.auto_select_ipus"]),
    ],
)
def test_replicas_and_devices_are_popdist_s(backend, own, others):
    """Two instances, four replicas of one IPU: two here."""
    calls = asked(backend, 2, "2,4,1")
    names = [name for name, _ in calls]

    assert names.count("popdist.init") == 1
    assert names.index("popdist.isPopdistEnvSet") < names.index("popdist.init") < names.index(own)
    assert [name for name in names for other in others if name.endswith(other)] == []


@pytest.mark.parametrize("backend", list(CALLS))
def test_without_poprun_popdist_is_only_asked_whether_it_is_there(backend):
    names = [name for name, _ in asked(backend, 2, "")]

    assert [name for name in names if name.startswith("popdist")] == ["popdist.isPopdistEnvSet"]


@pytest.mark.parametrize("backend", list(CALLS))
def test_other_numbers_than_poprun_s_are_refused(backend):
    error = asked(backend, 3, "2,4,1")["error"]

    assert error.startswith("Refused: poprun gives an instance 2 replicas of 1 IPUs, and the case has 3 of 1")

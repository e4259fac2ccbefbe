"""The fakes of the IPU API can be imported, in the order that the real modules require, and the tools can be run."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from typing import Any, Dict, List

import pytest
from ipu_fakes import FAKES, contract, python

TENSORFLOW = importlib.util.find_spec("tensorflow") is not None
NAMES = "poptorch popart popdist popdist.poptorch popdist.tensorflow popdist.popart ipu_tensorflow_addons.keras.layers"


def tool(name: str, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(FAKES / "bin" / name), *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ, **env})


def test_nothing_is_imported_before_it_is_asked_for() -> None:
    result = python(
        "import sys; print(sorted({'contract', 'torch', 'tensorflow', 'onnx', 'poptorch'} & set(sys.modules)))"
    )
    assert (result.returncode, result.stdout) == (0, "[]\n"), result.stderr


# One process runs both, because each imports TensorFlow.
FOUND = f"""
import importlib.util, sys
import popart, popdist
print(popart.__fake__, popart.SyncPattern.Full.name, "torch" in sys.modules, popdist.isPopdistEnvSet())
print([name for name in {NAMES.split()} if not importlib.util.find_spec(name)])
print([name for name in ("poptorch.nn", "popart.torch", "popdist.horovod", "popxl") if importlib.util.find_spec(name)])
"""
REPLACED = """
import tensorflow as tf
from tensorflow.python import ipu
import tensorflow.python.ipu.ops.pipelining_ops as pipelining
import keras, contract
assert ipu.ops.pipelining_ops is pipelining and ipu.ops.pipelining_ops.PipelineSchedule(1).name == "Interleaved"
assert keras.ipu is tf.keras.ipu and keras.ipu.__ipu__built__ == "1"
assert not hasattr(keras, "ipus") and not hasattr(ipu, "keras")
assert tf.keras.Sequential([tf.keras.layers.Dense(2)])(tf.zeros((1, 3))).shape == (1, 2)
try:
    ipu.config.configure_ipu_system(ipu.config.IPUConfig())
except tf.errors.InternalError:
    print("failed as told")

class LSTM(tf.keras.layers.LSTM):
    def __init__(self, units, partials_dtype):
        super().__init__(units)

name = "ipu_tensorflow_addons.keras.layers."
layer = contract.build("tensorflow", {name + "PopnnLSTM": LSTM})[name[:-1]].LSTM(4, partials_dtype="half")
print(tf.keras.Sequential([tf.keras.Input((3, 5)), layer]).output_shape)
"""


@pytest.fixture(scope="module")
def beside_tensorflow() -> subprocess.CompletedProcess[str]:
    if not TENSORFLOW:
        pytest.skip("TensorFlow is not installed")
    fault = {"tensorflow.python.ipu.config.configure_ipu_system": {"exception": "tensorflow.errors.InternalError"}}
    return python(FOUND + REPLACED, FAKE_IPU_FAULTS=json.dumps(fault))


def test_the_fakes_are_found_and_the_rest_is_not(beside_tensorflow: subprocess.CompletedProcess[str]) -> None:
    lines = beside_tensorflow.stdout.splitlines()[:3]

    assert lines == ["True Full False False", "[]", "[]"], beside_tensorflow.stderr


def test_popart_comes_before_onnx() -> None:
    code = "import sys, types; sys.modules['onnx'] = types.ModuleType('onnx')\nimport popart"
    late = python(code)
    first = python("import popart\n" + code)

    assert late.returncode == 1
    assert "ImportError: It looks like onnx has already been imported" in late.stderr
    assert "popart must be imported before onnx" in late.stderr
    assert first.returncode == 0, first.stderr


def test_what_a_worker_calls_can_be_read_here(tmp_path: Any) -> None:
    path = tmp_path / "calls.jsonl"
    fault = {"popart.DeviceManager.tryAcquireAvailableDevice": {"exception": "popart.popart_exception"}}
    env = {"FAKE_IPU_CALLS": str(path), "FAKE_IPU_FAULTS": json.dumps(fault)}
    result = python("import popart; popart.DeviceManager().tryAcquireAvailableDevice(2)", **env)

    assert result.returncode == 1
    assert "popart.popart_exception" in result.stderr
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["name"] for line in lines] == ["popart.DeviceManager", *fault]
    assert lines[1]["arguments"] == {"numIpus": 2}


def test_tensorflow_for_ipu_lies_over_the_stock_one(beside_tensorflow: subprocess.CompletedProcess[str]) -> None:
    lines = beside_tensorflow.stdout.splitlines()[3:]

    assert lines == ["failed as told", "(None, 4)"], beside_tensorflow.stderr


def listed(**env: str) -> Dict[int, List[int]]:
    """The IPUs of each device of `gc-info -l`, parsed with the regular expressions of facts.json."""
    words = contract.facts()["command_line"]["gc-info"]
    found: Dict[int, List[int]] = {}
    for line in tool("gc-info", "-l", **env).stdout.splitlines():
        device = re.match(words["list_line_regex"], line)
        member = re.match(words["member_line_regex"], line)
        if device:
            assert device["kind"] in words["kinds"]
            found[int(device["id"])] = [] if device["kind"] == "Multi IPU" else [int(device["id"])]
        elif member:
            found[max(found)].append(int(member["id"]))
            assert int(member["dnc"]) == len(found[max(found)]) - 1
    return found


def test_gc_info_lists_the_devices_of_every_size() -> None:
    pairs = {4: [0, 1], 5: [2, 3]}
    assert listed() == {0: [0], 1: [1], 2: [2], 3: [3], **pairs, 6: [0, 1, 2, 3]}
    assert listed(FAKE_IPU_COUNT="1") == {0: [0]}
    assert listed(FAKE_IPU_COUNT="0") == {}
    assert [len(ipus) for ipus in listed(FAKE_IPU_COUNT="16").values()] == [1] * 16 + [2] * 8 + [4] * 4 + [8] * 2 + [16]


def test_gc_info_answers_about_one_device() -> None:
    lines = tool("gc-info", "-d", "5", "-i", FAKE_IPU_BUSY="4 3").stdout.splitlines()
    known = dict(line.strip().split(": ") for line in lines[1:])
    assert (known["ipu architecture"], known["clock"], known["user process id"]) == ("ipu2", "1330MHz", "4242")
    assert "user process id" not in tool("gc-info", "-d", "5", "-i", FAKE_IPU_BUSY="4").stdout
    assert tool("gc-info", "--ipu-count").stdout == "4\n"
    assert tool("gc-info", "-d", "0", "--ipu-arch").stdout == "ipu2\n"
    assert tool("gc-info", "-d", "0", "--tile-clock-speed").stdout == "1330MHz\n"
    assert tool("gc-info", "-d", "7", "-i").returncode == 1
    assert tool("gc-info", "--no-such-option").returncode == 2
    assert os.access(FAKES / "bin" / "gc-info", os.X_OK)


def test_gc_monitor_says_who_holds_an_ipu() -> None:
    cards = json.loads(tool("gc-monitor", "-j", FAKE_IPU_BUSY="2").stdout)["cards"]
    assert ["user process id" in card for card in cards] == [False, False, True, False]
    assert "4242" in tool("gc-monitor", FAKE_IPU_BUSY="2").stdout

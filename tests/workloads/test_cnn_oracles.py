"""Our image networks against torchvision's and Keras's own, on the same weights."""

from __future__ import annotations

import importlib.util
import os
import pickle
import subprocess
import sys

import cnn_oracles
import numpy as np
import pytest
from cnn_oracles import KERAS, MODELS, QUICK, TORCHVISION

from bench import workloads

TOLERANCE = 1e-4
INSTALLED = {"torchvision": ("torch", "torchvision"), "keras": ("tensorflow", "keras")}
TRAINED = [name for name, job in TORCHVISION.items() if job[1] == "training"]


def by_job(jobs):
    """The names of jobs as parameters; those that are not quick are thorough."""
    return [pytest.param(name, marks=() if name in QUICK else pytest.mark.thorough) for name in jobs]


@pytest.fixture(scope="session")
def ask(pytestconfig, tmp_path_factory):
    """Return a function from a framework to what its networks answer; a process each, once."""
    known = {}

    def answer(framework):
        for package in INSTALLED[framework]:
            if importlib.util.find_spec(package) is None:
                pytest.skip(f"{package} is not installed")
        if framework not in known:
            path = tmp_path_factory.mktemp("oracles") / framework
            env = {**os.environ, "OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
            command = [sys.executable, cnn_oracles.__file__, framework, str(path)]
            command += ["thorough"] if pytestconfig.option.thorough else []
            done = subprocess.run(command, env=env, stderr=subprocess.PIPE, text=True, timeout=400)
            known[framework] = pickle.loads(path.read_bytes()) if done.returncode == 0 else done.stderr
        assert not isinstance(known[framework], str), known[framework][-4000:]
        return known[framework]

    return answer


@pytest.fixture
def torchvision(ask):
    return ask("torchvision")


def apart(one, other):
    return float(np.linalg.norm(one - other) / np.linalg.norm(other))


def recorded(name, mode):
    """The graph of a job, in a mode."""
    job = TORCHVISION[name]
    return workloads.record(workloads.load(job[0]), cnn_oracles.sized(job), cnn_oracles.BATCH, mode)


@pytest.mark.parametrize("name", by_job(TORCHVISION))
def test_our_torch_has_torchvision_s_logits(torchvision, name):
    ours, theirs = torchvision[name]["ours"], torchvision[name]["theirs"]

    assert theirs["output"].shape == (cnn_oracles.BATCH, 1000)
    assert apart(ours["output"], theirs["output"]) <= TOLERANCE


@pytest.mark.parametrize("name", TORCHVISION)
def test_weights_have_torchvision_s_names_and_shapes(torchvision, name):
    assert {w.name: w.shape for w in recorded(name, "inference").weights} == torchvision[name]["names"]


@pytest.mark.parametrize("name", TRAINED)
def test_a_training_step_leaves_torchvision_s_running_statistics(torchvision, name):
    """One forward pass moves each by the family's momentum, the variance towards the unbiased one."""
    ours, theirs = torchvision[name]["ours"], torchvision[name]["theirs"]

    assert set(ours) == set(theirs)
    assert apart(ours["loss"], theirs["loss"]) <= TOLERANCE
    assert {key for key in ours if apart(ours[key], theirs[key]) > TOLERANCE} == set()


@pytest.mark.parametrize("model", MODELS)
def test_what_is_dropped_in_training_is_what_torchvision_drops(torchvision, model):
    drops = [node.attrs["rate"] for node in recorded(model, "training").nodes if node.op == "dropout"]

    assert drops == pytest.approx(torchvision[model]["drops"])


def test_the_oracles_are_oracles(torchvision):
    """The same weights and images, another network: far off."""
    strided, plain = (torchvision[f"resnet18 in {kind}groups"]["theirs"]["output"] for kind in ("strided ", ""))

    assert apart(strided, plain) > 0.01
    outputs = [answer["theirs"]["output"] for answer in torchvision.values() if "theirs" in answer]
    assert min(np.ptp(output) for output in outputs) > 0.1


@pytest.mark.parametrize("name", by_job(KERAS))
def test_our_reference_has_keras_s_logits(ask, name):
    ours, theirs = ask("keras")[name]["ours"], ask("keras")[name]["theirs"]

    assert theirs["output"].shape == (cnn_oracles.BATCH, 1000)
    assert np.ptp(theirs["output"]) > 0.1
    assert apart(ours["output"], theirs["output"]) <= TOLERANCE

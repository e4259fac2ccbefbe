"""Weights from a file: all of them, and of the right shapes, or one line that names what is off."""

from __future__ import annotations

import numpy as np
import pytest

from bench import stored, values, workload


@pytest.fixture(scope="module")
def graph():
    module = workload.load("resnet8")
    size = next(iter(workload.named_sizes(module).values()))
    return workload.record(module, {key: size[key] for key in module.DIMENSIONS}, 1, "inference")


@pytest.fixture
def weights(graph):
    return values.weights(graph, "float32")


def test_what_was_saved_comes_back(graph, weights, tmp_path):
    np.savez(str(tmp_path / "weights.npz"), **weights)

    found = stored.load(tmp_path / "weights.npz", graph, "float32")

    assert sorted(found) == sorted(weights)
    assert all((found[name] == weights[name]).all() for name in weights)


@pytest.mark.parametrize(
    "change, told",
    [
        (lambda w: w.pop("fc.bias"), "lacks fc.bias"),
        (lambda w: w.update(extra=np.zeros(1)), "has, and the network does not, extra"),
        (lambda w: w.update({"fc.bias": np.zeros(3)}), r"has in another shape fc.bias \(3,\) for \(10,\)"),
    ],
    ids=["missing", "extra", "shape"],
)
def test_what_does_not_fit_is_named_in_one_line(graph, weights, tmp_path, change, told):
    change(weights)
    np.savez(str(tmp_path / "weights.npz"), **weights)

    with pytest.raises(ValueError, match=told) as caught:
        stored.load(tmp_path / "weights.npz", graph, "float32")

    assert "\n" not in str(caught.value)
    assert "weights.npz" in str(caught.value)


def test_a_file_of_another_kind_is_refused(graph, tmp_path):
    with pytest.raises(ValueError, match=r"weights come as \.safetensors, \.pt, \.pth, \.npz, not \.h5"):
        stored.load(tmp_path / "weights.h5", graph, "float32")

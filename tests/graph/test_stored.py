"""Weights from files: what fits is loaded, and what does not is told in one line that names the file and the weight."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bench import workloads
from bench.graph import Graph, draws, weight_files
from bench.graph.reference import evaluate

SUFFIXES = (".npz", ".pt", ".pth", ".safetensors")


def network():
    """A norm and a dense layer: 3 + 3 + 3 + 3 and 6 + 2 numbers."""
    net = Graph(1)
    x = net.batch_norm(net.image(3, 2), eps=1e-5, momentum=0.1, name="bn1")
    net.output = net.dense(net.global_mean(x), 2, name="fc")
    return net


def drawn(**changed):
    """The network's weights, some of them changed; None: left out."""
    return {n: a for n, a in {**draws.weights(network(), "float32"), **changed}.items() if a is not None}


def write(path, arrays):
    """Store arrays as a file of that suffix, by the package that defines it."""
    if path.suffix == ".npz":
        np.savez(str(path), **arrays)
    elif path.suffix == ".safetensors":
        pytest.importorskip("safetensors.numpy").save_file(arrays, str(path))
    else:
        torch = pytest.importorskip("torch")
        torch.save({name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}, str(path))
    return path


def load(path, dtype="float32"):
    return weight_files.load(path, network(), dtype).arrays


def refusal(path):
    """The one line with which a file is refused."""
    with pytest.raises(ValueError, match=r"\S") as refused:
        load(path)
    text = str(refused.value)
    assert text.startswith(str(path))
    assert "\n" not in text
    return text[len(str(path)) :]


@pytest.fixture(params=SUFFIXES)
def path(request, tmp_path):
    return tmp_path / f"weights{request.param}"


def test_what_was_stored_comes_back(path):
    found = load(write(path, drawn()))

    assert {name: array.dtype for name, array in found.items()} == dict.fromkeys(drawn(), np.dtype("float32"))
    assert all(np.array_equal(array, found[name]) for name, array in drawn().items())


def test_weights_are_rounded_to_what_the_precision_holds(path):
    """bf16 has seven bits behind the point: 2^-8 goes to the even neighbour, 3 x 2^-8 up."""
    write(path, drawn(**{"fc.bias": np.array([1 + 2**-8, 1 + 3 * 2**-8], np.float32)}))

    assert load(path, "bfloat16")["fc.bias"].tolist() == [1, 1 + 2**-6]


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_any_floating_point_type_is_taken(path, dtype):
    write(path, {name: array.astype(dtype) for name, array in drawn().items()})

    assert load(path)["fc.weight"].dtype == np.float32
    np.testing.assert_allclose(load(path)["fc.weight"], drawn()["fc.weight"], atol=1e-3)


def test_the_order_in_a_file_does_not_matter(path):
    write(path, dict(reversed(list(drawn().items()))))

    assert list(load(path)) == list(drawn())


def test_counts_of_batches_are_passed_over(path):
    write(path, drawn(**{"bn1.num_batches_tracked": np.array(7)}))

    assert set(load(path)) == set(drawn())


def test_a_missing_weight_is_named(path):
    write(path, drawn(**{"bn1.running_var": None}))

    assert refusal(path) == " lacks bn1.running_var"


def test_a_weight_too_many_is_named(path):
    write(path, drawn(**{"fc2.bias": np.zeros(2, np.float32)}))

    assert refusal(path) == " has, and the network does not, fc2.bias"


def test_a_weight_of_another_shape_is_named_with_both_shapes(path):
    write(path, drawn(**{"fc.weight": np.zeros((3, 2), np.float32)}))

    assert refusal(path) == " has in another shape fc.weight (3, 2) for (2, 3)"


def test_three_weights_are_named_and_the_others_counted(path):
    write(path, {"fc.bias": drawn()["fc.bias"]})

    assert refusal(path) == " lacks bn1.weight, bn1.bias, bn1.running_mean and 2 more"


def test_names_come_before_shapes(path):
    write(path, drawn(**{"fc.bias": None, "fc.weight": np.zeros((3, 2), np.float32)}))

    assert refusal(path) == " lacks fc.bias"


def test_a_weight_that_is_not_finite_is_named(path):
    write(path, drawn(**{"fc.bias": np.array([1, np.nan], np.float32)}))

    assert "fc.bias" in refusal(path)


@pytest.mark.parametrize("name, told", [("weights.h5", ".h5"), ("weights", "a file without a suffix")])
def test_a_suffix_that_nothing_reads_is_told_with_those_that_are_read(tmp_path, name, told):
    assert refusal(tmp_path / name) == f": weights come as .safetensors, .pt, .pth, .npz, not {told}"


@pytest.mark.parametrize("kept", ["nothing", "a few bytes", "half", "all but the end"])
def test_a_truncated_file_is_refused(path, kept):
    whole = write(path, drawn()).read_bytes()
    path.write_bytes(whole[: {"nothing": 0, "a few bytes": 10, "half": len(whole) // 2}.get(kept, len(whole) - 5)])

    assert "cannot be read" in refusal(path)


def test_a_file_of_something_else_is_refused(path):
    write(path, drawn())
    path.write_text("these are not the weights that you are looking for")

    assert "cannot be read" in refusal(path)


def test_a_folder_is_refused(path):
    write(path, drawn()).unlink()
    path.mkdir()

    assert "cannot be read" in refusal(path)


def test_a_file_that_is_not_there_is_refused(path):
    write(path, drawn()).unlink()

    assert "cannot be read" in refusal(path)


@pytest.mark.parametrize("array", [np.array(["a", "b"]), np.array([1j, 2]), np.array([{}, 1], dtype=object)])
def test_an_array_that_is_no_number_is_refused(tmp_path, array):
    refusal(write(tmp_path / "weights.npz", drawn(**{"fc.bias": array})))


def test_an_array_alone_is_refused(tmp_path):
    path = tmp_path / "weights.npz"
    with path.open("wb") as file:
        np.save(file, np.zeros(3))

    assert "cannot be read" in refusal(path)


@pytest.mark.parametrize("what", ["a list", "a tensor", "a module"])
def test_a_pickle_of_something_else_is_refused(tmp_path, what):
    torch = pytest.importorskip("torch")
    path = tmp_path / "weights.pt"
    torch.save({"a list": [1, 2], "a tensor": torch.zeros(2), "a module": torch.nn.Linear(3, 2)}[what], str(path))

    assert "cannot be read" in refusal(path)


def test_parameters_are_taken_as_the_tensors_that_they_are(tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "weights.pt"
    torch.save({name: torch.nn.Parameter(torch.from_numpy(array)) for name, array in drawn().items()}, str(path))

    assert all(np.array_equal(array, load(path)[name]) for name, array in drawn().items())


def refused_as(path, content, text):
    path.write_bytes(content)
    assert refusal(path).startswith(text)


@pytest.mark.parametrize(
    "content, text",
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", " is a Git LFS pointer instead of"),
        (b"\n<!doctype HTML><html><body>404</body></html>", " is an HTML page instead of the file; download"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", " is an XML text instead of the file"),
        (b"\x1f\x8b\x08\x00" + bytes(99), " is compressed by gzip; only uncompressed files are read"),
    ],
    ids=["Git LFS", "HTML", "XML", "gzip"],
)
def test_a_file_that_is_not_what_its_name_says_is_named(path, content, text):
    write(path, drawn())

    refused_as(path, content, text)


def of_torch(path, change):
    """Store the weights as torch tensors, each changed."""
    torch = pytest.importorskip("torch")
    tensors = {name: change(torch.from_numpy(np.array(array))) for name, array in drawn().items()}
    if path.suffix == ".safetensors":
        pytest.importorskip("safetensors.torch").save_file(tensors, str(path))
    else:
        torch.save(tensors, str(path))
    return path


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_bf16_is_read_as_the_numbers_that_it_is(tmp_path, suffix):
    path = of_torch(tmp_path / f"weights{suffix}", lambda tensor: tensor.bfloat16())

    for name, array in drawn().items():
        # The nearest number of 8 bits of precision.
        np.testing.assert_allclose(load(path)[name], array, rtol=2**-8)
        assert not (load(path)[name].view(np.uint32) & 0xFFFF).any()


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2"])
def test_8_bit_floats_are_refused_with_one_reason(tmp_path, suffix, dtype):
    torch = pytest.importorskip("torch")
    if not hasattr(torch, dtype):
        pytest.skip(f"this torch has no {dtype}")
    path = of_torch(tmp_path / f"weights{suffix}", lambda tensor: tensor.to(getattr(torch, dtype)))

    assert refusal(path).startswith(" has numbers of 8 bits or fewer, which need scales that are not known here (store")


def test_bf16_in_a_format_that_has_none_is_refused_with_the_reason(tmp_path):
    halves = {name: array.view(np.uint16).reshape(*array.shape, 2)[..., 1].copy() for name, array in drawn().items()}
    path = write(tmp_path / "weights.npz", {name: array.view("V2") for name, array in halves.items()})

    assert refusal(path).startswith(" has bytes without a type (numpy has no bf16; store fp16 or fp32) in bn1.weight")


def test_complex_numbers_of_torch_are_refused(tmp_path):
    torch = pytest.importorskip("torch")
    path = of_torch(tmp_path / "weights.pt", lambda tensor: tensor.to(torch.complex64))

    assert refusal(path).startswith(" has no real numbers in bn1.weight")


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "module._orig_mod.", "_orig_mod.module."])
def test_a_prefix_of_a_wrapper_is_left_out_and_told(path, prefix):
    stored = {f"{prefix}{name}": array for name, array in drawn().items()}
    stored[f"{prefix}bn1.num_batches_tracked"] = stored["n_averaged"] = np.array(7)
    weights = weight_files.load(write(path, stored), network(), "float32")

    assert all(np.array_equal(array, weights.arrays[name]) for name, array in drawn().items())
    assert weights.note == f"weights are those of {path.name}, without the prefix {prefix} of its names"


def test_names_as_they_are_need_no_note(path):
    assert weight_files.load(write(path, drawn()), network(), "float32").note == ""


def test_a_prefix_that_only_some_names_have_is_left_where_it_is(path):
    stored = {f"module.{name}" if name.startswith("fc") else name: array for name, array in drawn().items()}

    assert refusal(write(path, stored)) == " lacks fc.weight, fc.bias"


def test_a_prefix_of_the_network_s_own_names_is_left_where_it_is(path):
    net = Graph(1)
    net.output = net.dense(net.input(3), 2, name="model.fc")
    stored = {weight.name: np.zeros(weight.shape, np.float32) for weight in net.weights}

    assert weight_files.load(write(path, stored), net, "float32").note == ""


def checkpoint(path, content):
    torch = pytest.importorskip("torch")
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in drawn().items()}
    torch.save(content(torch, tensors), str(path))
    return path


def test_the_weights_of_a_checkpoint_are_taken_and_told(tmp_path):
    """Beside them lies the state of an optimiser, which has tensors too."""

    def content(torch, tensors):
        adam = {"state": {0: {"step": torch.zeros(1), "exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 0.1}]}
        return {"epoch": 3, "net": {"state_dict": {f"module.{n}": t for n, t in tensors.items()}}, "optimizer": adam}

    path = checkpoint(tmp_path / "weights.pth", content)
    weights = weight_files.load(path, network(), "float32")

    assert all(np.array_equal(array, weights.arrays[name]) for name, array in drawn().items())
    told = "weights are those of weights.pth, its entry net.state_dict; without the prefix module. of its names"
    assert weights.note == told


def test_a_checkpoint_of_several_sets_of_weights_names_them(tmp_path):
    path = checkpoint(tmp_path / "weights.pt", lambda torch, tensors: {"model": tensors, "model_ema": tensors})

    assert refusal(path) == " cannot be read: it holds several sets of weights, model, model_ema; save one of them"


def test_a_whole_model_is_refused_as_what_it_is(tmp_path):
    path = checkpoint(tmp_path / "weights.pt", lambda torch, tensors: torch.nn.Linear(2, 2))

    assert "it is a pickle of Python objects (torch.nn.modules.linear.Linear), such as a whole model" in refusal(path)
    assert refusal(path).endswith("save model.state_dict() alone")


def test_a_torchscript_program_is_refused_as_what_it_is(tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "weights.pt"
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), str(path))

    assert refusal(path) == " cannot be read: it is a TorchScript program; save the model's state_dict() instead"


TORCHVISION = """
import sys
import numpy as np
import torch
from cnn_oracles import torchvision_models

torch.manual_seed(0)
made = torchvision_models().resnet50(num_classes=5).eval()
torch.save(made.state_dict(), sys.argv[1])
images = torch.rand(2, 3, 33, 33)
with torch.no_grad():
    np.savez(sys.argv[2], images=images, logits=made(images))
"""


def test_torchvision_s_own_file_loads_into_resnet50_without_a_table_of_names(tmp_path):
    for package in ("torch", "torchvision"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    state, answer = tmp_path / "resnet50.pth", tmp_path / "answer.npz"
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", TORCHVISION, str(state), str(answer)]
    subprocess.run(command, cwd=str(Path(__file__).resolve().parents[1]), env=env, check=True, timeout=300)
    module = workloads.load("resnet50")
    size = {**next(iter(workloads.named_sizes(module).values())), **module.tiny}
    graph = workloads.record(module, {key: size[key] for key in module.dimensions}, 2, "inference")

    weights = weight_files.load(state, graph, "float32").arrays

    theirs = np.load(str(answer))
    ours, _ = evaluate(graph, weights, {"input0": theirs["images"]}, "float64")
    assert np.linalg.norm(ours - theirs["logits"]) / np.linalg.norm(theirs["logits"]) < 1e-4

"""What the command line selects, what that loads, and what skips with which reason."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Callable, List, Set

import pytest
from suite import SMALL, Suite

LAYERS = {"conv", "dense", "grouped_conv", "gru", "hmc", "lstm", "lstm_multi", "rnn"}
HEAVY = ("numpy", "torch", "tensorflow", "onnx", "onnxruntime", "openvino", "rich", "filelock")

# A plugin that tells at the end of a run what is loaded, and which processes it started.
WITNESS = """
import os
import sys
from pathlib import Path


def pytest_sessionfinish(session):
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(stat.read_text().rsplit(")", 1)[1].split()[1]) == os.getpid():
                found.add(stat.parent.name)
        except OSError:
            pass
    Path("loaded.txt").write_text("\\n".join(sorted(sys.modules)))
    Path("children.txt").write_text("\\n".join(sorted(found)))
"""


def collected(suite: Suite, *args: str) -> List[str]:
    """The ids that the arguments select."""
    result = suite.run("--collect-only", "-q", *args)
    assert result.returncode == 0, result.text
    return re.findall(r"test_layer\[(.+)\]", result.stdout)


@pytest.fixture(scope="module")
def plain(new_suite: Callable[[], Suite]) -> Suite:
    """A copy for runs that leave nothing behind."""
    return new_suite()


def test_ids_are_a_public_contract(plain: Suite) -> None:
    """Written out: whoever changes one of these breaks every stored baseline."""
    assert collected(plain) == [
        "conv-w1920_h1080_c4_f64_k4_p3_s2-inference-b1-fp32-x1-numpy-cpu",
        "dense-u1024-inference-b32-fp32-x1-numpy-cpu",
        "grouped_conv-c64_f64_k3_s1_i56_r10_g1-inference-b1-fp32-x1-numpy-cpu",
        "gru-h128_i128_t5-inference-b1-fp32-x1-numpy-cpu",
        "hmc-l5_n1000-inference-b1-fp32-x1-numpy-cpu",
        "lstm-h128_t5-inference-b1-fp32-x1-numpy-cpu",
        "lstm_multi-n2_h256_i16_t200-inference-b1-fp32-x1-numpy-cpu",
        "rnn-h128_t5-inference-b1-fp32-x1-numpy-cpu",
    ]


def test_axes_take_lists_and_spellings(plain: Suite) -> None:
    ids = collected(plain, *SMALL, "--batch-size=1,4", "--precision=16.16,full,16.32,bf16", "--mode=eval,training")

    axes: List[Set[str]] = [set(values) for values in zip(*(name.split("-") for name in ids))]
    assert len(ids) == 2 * 4 * 2
    assert axes[2:5] == [{"eval", "training"}, {"b1", "b4"}, {"fp16", "fp32", "fp16m", "bf16"}]


def test_dimensions_take_lists_and_combine(plain: Suite) -> None:
    ids = collected(plain, "-k", "lstm and not multi", "--hidden-size=8,16", "--timesteps=3,4", "--rnn-impl=cell")

    sizes = [name.split("-")[1] for name in ids]
    assert sizes == ["h8_t3_cell", "h8_t4_cell", "h16_t3_cell", "h16_t4_cell"]


def test_a_size_is_measured_once_however_it_was_asked_for(plain: Suite) -> None:
    assert len(collected(plain, "-k", "dense", "--sizes=all", "--units=8", "--activation=none")) == 1


def test_named_sizes_and_all_sizes(plain: Suite) -> None:
    named = collected(plain, "--sizes=u128,h1024_t25")
    everything = collected(plain, "--sizes=all")

    assert {name.rsplit("-", 6)[0] for name in named} == {"dense-u128", "lstm-h1024_t25", "rnn-h1024_t25"}
    assert len(everything) == len(set(everything)) > 30


def test_no_part_of_an_id_holds_a_hyphen(plain: Suite) -> None:
    ids = collected(plain, "--sizes=all", "--mode=inference,training", "--backend=numpy,torch")

    assert {len(name.split("-")) for name in ids} == {8}
    assert {name.split("-")[0] for name in ids} == LAYERS


def test_collecting_loads_no_framework_and_starts_nothing(suite: Suite) -> None:
    suite.add("witness.py", WITNESS)
    everything = ("--backend=numpy,torch,tensorflow,onnxruntime,openvino", "--device=cpu,cuda,ipu", "--sizes=all")

    result = suite.run("-p", "witness", "--collect-only", "-q", *everything, "--mode=inference,eval,training")

    assert result.returncode == 0, result.text
    loaded = set((suite.root / "loaded.txt").read_text().split())
    assert "bench.matrix" in loaded
    assert loaded & set(HEAVY) == set()
    assert (suite.root / "children.txt").read_text() == ""


def test_a_run_loads_no_framework_where_pytest_runs(suite: Suite) -> None:
    suite.add("witness.py", WITNESS)

    result = suite.run("-p", "witness", *SMALL)

    assert result.returncode == 0, result.text
    assert set((suite.root / "loaded.txt").read_text().split()) & set(HEAVY[:6]) == set()


def skipped(suite: Suite, *args: str, **env: str) -> str:
    """Run, require that every case skips, and return the reasons as pytest shows them."""
    result = suite.run("-k", "dense or lstm", "-rs", *args, **env)
    assert result.returncode == 0, result.text
    assert "passed" not in result.text
    assert "failed" not in result.text
    return "\n".join(line for line in result.stdout.splitlines() if line.startswith("SKIPPED"))


def test_a_framework_that_is_missing_skips(suite: Suite) -> None:
    suite.add_backend("absent")
    backend = suite.root / "bench/backends/absent.py"
    backend.write_text(backend.read_text().replace('PACKAGE = "numpy"', 'PACKAGE = "no_such_package_x"'))

    assert "not installed: no_such_package_x" in skipped(suite, "--backend=absent")


def test_a_device_that_is_missing_skips(plain: Suite, tmp_path: Path) -> None:
    # An empty PATH has no nvidia-smi, wherever this runs.
    reasons = skipped(plain, "--device=cuda,ipu", PATH=str(tmp_path))

    assert "not present: no CUDA device" in reasons
    assert "not present: no IPU" in reasons


@pytest.mark.parametrize(
    "args, reason",
    [
        (["--mode=training"], "not supported: numpy runs inference and eval, not training"),
        (["--precision=fp16"], "not supported: numpy has no fp16"),
        (["--replicas=2"], "not supported: replicas=2"),
    ],
)
def test_what_a_backend_cannot_do_skips(plain: Suite, args: List[str], reason: str) -> None:
    assert reason in skipped(plain, *args)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_backends_for_inference_skip_training(plain: Suite, backend: str) -> None:
    pytest.importorskip(backend)

    assert f"not supported: {backend} runs inference" in skipped(plain, "--mode=training", f"--backend={backend}")

"""What the command line selects, what that loads, and what skips with which reason."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Callable, Iterator, List, Set

import pytest
from suite import SMALL, Suite, finished

from bench import workloads

# Written out: whoever changes one of these breaks every stored baseline. Of each: -inference-b<batch>-fp32-x1.
CONTRACT = """
conv-w1920_h1080_c4_f64_k4_p3_s2 1        dense-u1024 32                  grouped_conv-c64_f64_k3_s1_i56_r10_g1 1
gru-h128_i128_t5 1                        hmc-l5_n1000 1                  lstm-h128_t5 1
lstm_multi-n2_h256_i16_t200 1             rnn-h128_t5 1
efficientnet_b0-i224 1                    efficientnet_b1-i240 1          efficientnet_b2-i260 1
efficientnet_b3-i300 1                    efficientnet_b4-i380 1          efficientnet_b5-i456 1
efficientnet_b6-i528 1                    efficientnet_b7-i600 1
mobilenet_v2-i224 1                       mobilenet_v3_small-i224 1       mobilenet_v3_large-i224 1
resnet18-i224 1          resnet34-i224 1  resnet50-i224 1                 resnet101-i224 1
resnet152-i224 1         resnet8-i32 1    resnet20-i32 1
resnext14_32x4d-i224 1                    resnext50_32x4d-i224 1          resnext101_32x4d-i224 1
resnext101_32x8d-i224 1                   resnext29_32x4d-i32 1
host_pipeline-i224 32
""".split()
HEAVY = ("numpy", "torch", "tensorflow", "onnx", "onnxruntime", "openvino", "jax", "rich")

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
    return re.findall(r"::test_\w+\[(.+)\]", result.stdout)


@pytest.fixture(scope="module")
def plain(new_suite: Callable[[], Suite]) -> Iterator[Suite]:
    """A copy for runs that leave nothing behind."""
    made = new_suite()
    with made.loaded():
        yield made


def test_ids_are_a_public_contract(plain: Suite) -> None:
    expected = [
        f"{name}-inference-b{batch_size}-fp32-x1-numpy-cpu" for name, batch_size in zip(CONTRACT[::2], CONTRACT[1::2])
    ]

    known = {name.split("-")[0] for name in expected}

    found = collected(plain)

    assert sorted(name for name in found if name.split("-")[0] in known) == sorted(expected)
    assert sorted(name.split("-")[0] for name in found) == sorted(workloads.names())


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
    assert len(everything) == len(set(everything)) == sum(len(workloads.load(name).sizes) for name in workloads.names())


def test_no_part_of_an_id_holds_a_hyphen(plain: Suite) -> None:
    ids = collected(plain, "--sizes=all", "--mode=inference,training", "--backend=numpy,torch")

    assert {len(name.split("-")) for name in ids} == {8}
    assert {name.split("-")[0] for name in ids} == set(workloads.names())


def test_no_value_of_a_dimension_brings_a_hyphen_into_an_id() -> None:
    dimensions = workloads.dimensions(workloads.names()).values()

    parts = [each.name_part(choice) for each in dimensions for choice in each.choices or (each.minimum, each.maximum)]

    assert [part for part in parts if "-" in part] == []


def test_collecting_loads_no_framework_and_starts_nothing(suite: Suite) -> None:
    suite.add("witness.py", WITNESS)
    axes = ("--device=cpu,cuda,ipu", "--sizes=all", "--mode=inference,eval,training")
    everything = ("--backend=numpy,torch,tensorflow,onnxruntime,openvino", *axes)

    result = finished(suite.start("-p", "witness", "--collect-only", "-q", *everything))

    assert result.returncode == 0, result.text
    loaded = set((suite.root / "loaded.txt").read_text().split())
    assert "bench.selection" in loaded
    assert loaded & set(HEAVY) == set()
    assert (suite.root / "children.txt").read_text() == ""


def test_a_run_loads_no_framework_where_pytest_runs(suite: Suite) -> None:
    suite.add("witness.py", WITNESS)

    result = finished(suite.start("-p", "witness", *SMALL))

    assert result.returncode == 0, result.text
    assert set((suite.root / "loaded.txt").read_text().split()) & set(HEAVY[:-1]) == set()


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


def test_a_primitive_that_a_backend_lacks_skips_before_anything_is_compiled(suite: Suite) -> None:
    suite.add(
        "bench/workloads/layers/normed.py",
        """
        from bench.cases.dimension import Dimension

        ITEM = "row"
        DIMENSIONS = {"units": Dimension("u", "units of a row")}
        SIZES = ({"units": 8, "batch_size": 2},)
        TINY = {"units": 8}


        def build(net, *, units):
            return net.layer_norm(net.input(units))
        """,
    )
    primitives = suite.root / "bench/graph/primitives.py"
    primitives.write_text(
        primitives.read_text()
        + "\n\nGraph.layer_norm = lambda net, x: net._add('layer_norm', [x], [x.shape], flops=0)\n"
    )
    reference = suite.root / "bench/graph/reference.py"
    reference.write_text(
        reference.read_text() + "\n\nOPS['layer_norm'] = lambda node, w, x: x - x.mean(axis=-1, keepdims=True)\n"
    )
    suite.add_backend("with_it")
    backend = suite.root / "bench/backends/with_it.py"
    backend.write_text(
        backend.read_text() + "\n\nfrom bench.backends import CORE\nPRIMITIVES = CORE | {'layer_norm'}\n"
    )
    suite.add_backend("without_it")

    result = suite.run("-k", "normed", "--backend=with_it,without_it", "--steps=2", "-rsP")

    assert "1 passed, 1 skipped" in result.stdout, result.text
    assert "not supported: without_it lacks layer_norm" in result.text
    assert "without_it" not in (suite.root / "workers.txt").read_text()


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
        (["--replicas=512", "--threads=1"], "not present: 512 cores for 512 replicas of 1 thread"),
    ],
)
def test_what_a_backend_cannot_do_skips(plain: Suite, args: List[str], reason: str) -> None:
    assert reason in skipped(plain, *args)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_backends_for_inference_skip_training(plain: Suite, backend: str) -> None:
    pytest.importorskip(backend)

    assert f"not supported: {backend} runs inference" in skipped(plain, "--mode=training", f"--backend={backend}")

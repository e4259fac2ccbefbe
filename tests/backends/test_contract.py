"""What a backend says of itself before its framework is loaded."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest

from bench import backends, devices, registry, workloads
from bench.backends._onnx import primitives
from bench.cases.case import Case
from bench.graph import Graph, reference

MODES = ("inference", "eval", "training")
# One norm, which none of the nodes that OpenVINO names when it multiplies is in.
ROOT = Path(__file__).resolve().parents[2]
NORM_ALONE = """
from bench import backends
from bench.cases.case import Case, Settings
from bench.graph import Graph, draws
net = Graph(2)
net.output = net.batch_norm(net.image(3, 4), eps=1e-5, momentum=0.1)
case = Case("norm", "tiny", {}, "inference", 2, "fp32", 1, "openvino", "cpu")
inputs = [draws.inputs(net, "float32")]
program = backends.load("openvino").compile(net, draws.weights(net, "float32"), inputs, case, Settings())
print(program.compute_dtype)
"""


FUNCTIONS = ("unsupported", "environment", "version", "compile")


def module_of(*names):
    module = types.ModuleType("bench.backends.half")
    for name in names:
        setattr(module, name, print)
    return module


def test_a_backend_whose_module_lacks_something_is_refused_by_name():
    module = module_of("PACKAGE", "DEVICES", "compile")

    with pytest.raises(TypeError, match=r"bench\.backends\.half lacks MODES, unsupported, environment, version"):
        registry.filled(backends.Backend, module)


def test_what_a_module_does_not_say_is_the_default():
    found = registry.filled(backends.Backend, module_of("PACKAGE", "DEVICES", "MODES", *FUNCTIONS))

    assert (found.all_reduce, found.checkable, found.exported, found.extra) == (False, None, None, "")
    assert found.primitives == backends.CORE


def cases():
    for name in workloads.names():
        module = workloads.load(name)
        for size, values in workloads.named_sizes(module).items():
            for mode in MODES:
                if workloads.unsupported(name, mode, "fp32") is None:
                    dimensions = {key: values[key] for key in module.dimensions}
                    yield Case(name, size, dimensions, mode, 2, "fp32", 1, "numpy", "cpu")


def test_the_reference_has_the_primitives_of_the_suite_s_workloads():
    needed = frozenset().union(*(workloads.primitives(case) for case in cases()))

    assert needed <= backends.load("numpy").primitives


@pytest.mark.parametrize("name", [name for name in backends.names() if "cpu" in backends.load(name).devices])
def test_an_extra_of_the_project_installs_each_backend_of_the_processor(name):
    project = (ROOT / "pyproject.toml").read_text()
    extras = dict(re.findall(r"^(\w+) = (\[.*\])$", project.split("[project.optional-dependencies]")[1], re.MULTILINE))
    found = backends.load(name)

    # numpy comes with the suite; scikit-learn of the tests brings it too.
    assert found.package == "numpy" or f'"{found.package}' in extras[found.extra or name]


@pytest.mark.parametrize(
    "name", ["numpy", "torch", "tensorflow", "onnxruntime", "openvino", *devices.load("ipu").backends]
)
def test_a_backend_of_the_suite_has_the_primitives_of_the_core(name):
    assert backends.load(name).primitives >= backends.CORE


def test_a_row_in_the_reference_or_in_the_onnx_lowering_is_all_that_says_what_they_lower():
    """A loop and what is drawn are no functions of the reference."""
    assert backends.load("numpy").primitives == {*reference.OPS, "scan", "fill", "random"}
    assert {backends.load(name).primitives for name in ("onnxruntime", "openvino", "popart")} == {
        frozenset(primitives.OPS)
    }


def test_the_operations_of_a_graph_are_those_of_its_loops_too():
    net = Graph(2)
    net.output = net.scan(lambda inner, states, slices: [inner.relu(slices[0])], [net.fill(0.0, 4)], [net.input(3, 4)])

    assert net.operations == {"fill", "scan", "relu"}


@pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="openvino is not installed")
def test_openvino_says_what_a_model_without_any_product_ran_in():
    done = subprocess.run([sys.executable, "-c", NORM_ALONE], cwd=ROOT, capture_output=True, text=True)

    assert (done.returncode, done.stdout.strip()) == (0, "float32"), done.stderr

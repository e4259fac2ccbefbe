"""torch.compile needs a C++ compiler. Where none works, cases run eager and the record says why."""

from __future__ import annotations

import shutil

import pytest

from bench import backends, workloads
from bench.cases.case import Case, Settings
from bench.graph import draws

needs_gxx = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ here")


@pytest.fixture
def compiler():
    """Not imported where the tests are collected: torch takes seconds in every process."""
    pytest.importorskip("torch")
    from bench.backends.torch import compiler

    return compiler


@pytest.fixture
def fault_of(compiler, tmp_path):
    """A function that tells what is wrong with a compiler, whose text as a shell script may be given."""

    config = pytest.importorskip("torch._inductor.config")
    builder = pytest.importorskip("torch._inductor.cpp_builder")

    def fault(name, script=""):
        if script:
            path = tmp_path / name
            path.write_text(f"#!/bin/sh\n{script}\n")
            path.chmod(0o755)
            name = str(path)
        builder.cpp_compiler_search.cache_clear()
        with config.patch({"cpp.cxx": (None, name)}):
            return compiler.fault.__wrapped__()

    yield fault
    builder.cpp_compiler_search.cache_clear()


@needs_gxx
def test_a_compiler_that_works_has_no_fault(fault_of):
    assert fault_of("g++") == ""


@needs_gxx
def test_a_gxx_without_a_cxx_beside_it_is_used(fault_of, monkeypatch, tmp_path):
    for name in ("g++", "as", "ld"):
        (tmp_path / name).symlink_to(shutil.which(name))
    monkeypatch.setenv("PATH", str(tmp_path))

    assert shutil.which("c++") is None
    assert fault_of("g++") == ""


@pytest.mark.parametrize("name", ["false", "/no/such/compiler", "ccache g++", "/"])
def test_what_is_no_compiler_is_a_fault_in_one_line(fault_of, name):
    text = fault_of(name)

    assert text.startswith("torch has no C++ compiler: ")
    assert "\n" not in text


def test_a_machine_without_compilers_is_a_fault(fault_of, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))

    assert fault_of("g++").startswith("torch has no C++ compiler: ")


@pytest.mark.parametrize(
    "script, reason",
    [
        (
            "case $* in *--version*) ;; *) echo note >&2; echo 'x.cpp:1: fatal error: Python.h' >&2; exit 1; esac",
            "Python.h",
        ),
        ("case $* in *--version*) ;; *) exit 3; esac", "exit code 3"),
        # It says that all is well, and leaves nothing behind.
        ("exit 0", "exit code 0"),
    ],
)
def test_a_compiler_that_has_a_version_and_does_not_compile_is_a_fault(fault_of, script, reason):
    text = fault_of("liar", script)

    assert "liar does not compile for torch: " in text
    assert text.endswith(reason)
    assert "note" not in text


def compiled(workload, mode="inference", tuning="best"):
    module = workloads.load(workload)
    size, named = next(iter(workloads.named_sizes(module).items()))
    dimensions = {name: named[name] for name in module.dimensions}
    case = Case(workload, size, dimensions, mode, 1, "fp32", 1, "torch", "cpu")
    graph = workloads.of_case(case)
    inputs = [draws.inputs(graph, "float32", 0)]
    return backends.load("torch").compile(graph, draws.weights(graph, "float32"), inputs, case, Settings(tuning=tuning))


@pytest.mark.parametrize("workload", ["hmc", "mobilenet_v2"])
def test_without_a_compiler_a_case_runs_eager_and_says_why(compiler, monkeypatch, workload):
    monkeypatch.setattr(compiler, "fault", lambda: "it is broken")

    program = compiled(workload)

    assert program.facts["compiled"] is False
    assert program.not_compiled == "it is broken"


@pytest.mark.parametrize(
    "workload, mode, tuning",
    [("dense", "inference", "best"), ("dense", "training", "best"), ("hmc", "inference", "default")],
)
def test_a_case_that_nobody_compiles_asks_for_no_compiler(compiler, monkeypatch, workload, mode, tuning):
    monkeypatch.setattr(compiler, "fault", lambda: pytest.fail("asked for a compiler"))

    assert compiled(workload, mode, tuning).not_compiled is None


def test_a_run_with_a_broken_compiler_says_so_in_one_line(suite):
    pytest.importorskip("torch")
    run = ("-k", "hmc", "--backend", "torch", "--steps", "3", "--benchmark-json=out.json")

    result = suite.run(*run, CXX="/no/such/compiler")

    assert result.returncode == 0
    assert "Traceback" not in result.text
    assert [line for line in result.text.splitlines() if "not compiled" in line] == [
        "not compiled, so slower: 1 case, since torch has no C++ compiler: No working C++ compiler found in"
        " torch._inductor.config.cpp.cxx: (None, '/no/such/compiler')"
    ]
    record = suite.read("out.json")["benchmarks"][0]["extra_info"]
    assert record["tuned_compiled"] is False
    assert "/no/such/compiler" in record["not_compiled"]

"""The C++ compiler of torch.compile: which it is, and whether it works."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

# What torch's own sources need of a compiler: C++17, Python's headers and OpenMP.
SOURCE = """
#include <Python.h>
#include <omp.h>
#include <optional>
extern "C" int threads() { return std::optional<int>(omp_get_max_threads()).value(); }
"""
TIMEOUT_S = 60.0


@functools.lru_cache(maxsize=None)
def fault() -> str:
    """Why torch.compile cannot compile C++ here, in one line; empty: it can."""
    try:
        name = _name()
        with tempfile.TemporaryDirectory(prefix="layerbench-") as folder:
            library = Path(folder, "probe.so")
            # As torch calls it; clang on a Mac has OpenMP from elsewhere.
            openmp = ["-Xclang", "-fopenmp"] if sys.platform == "darwin" else ["-fopenmp"]
            options = ["-x", "c++", "-std=c++17", "-shared", "-fPIC", *openmp]
            include = f"-I{sysconfig.get_paths()['include']}"
            result = subprocess.run(
                [name, *options, include, "-", "-o", str(library)],
                input=SOURCE,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=TIMEOUT_S,
            )
            if library.exists() and not result.returncode:
                return ""
            lines = result.stderr.splitlines()
            wrong = [line.strip() for line in lines if "error" in line] or lines or [f"exit code {result.returncode}"]
            return f"{name} does not compile for torch: {wrong[0]}"
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:
        return f"torch has no C++ compiler: {str(error).splitlines()[0]}"


def _name() -> str:
    """The compiler that torch would use, asked of torch. Raises RuntimeError and OSError where it has none."""
    try:
        from torch._inductor.cpp_builder import get_cpp_compiler
    except ImportError:  # before torch 2.5
        return os.environ.get("CXX", "g++")
    return str(get_cpp_compiler())

"""Workloads of users' files: what such a file must contain, and how another process loads it.

The text of the file is sent with the case. So a worker needs neither the file nor pytest's import rules, and a host
that lacks the file can run it. Whatever the file imports must be importable there.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, Dict, Mapping, Optional

from bench.cases.dimension import Dimension
from bench.cases.errors import Refused

NEEDED = ("ITEM", "DIMENSIONS", "SIZES", "build")


def fault(module: ModuleType, name: str) -> Optional[str]:
    """Why a module is not a workload, or None."""
    if not re.fullmatch(r"[A-Za-z0-9_]+", name):
        return f"{name!r} cannot be a workload's name: letters, digits and _ only; rename the file"
    lacking = [name for name in NEEDED if not hasattr(module, name)]
    if lacking:
        return f"a workload needs {', '.join(NEEDED)}; {', '.join(lacking)} is missing (bench/workloads/ explains them)"
    contract: Any = module
    if not isinstance(contract.ITEM, str):
        return f"ITEM is one word, such as row, not {contract.ITEM!r}"
    if not callable(contract.build):
        return "build is a function: build(net, *, ...)"
    if hasattr(module, "loss") and not hasattr(module, "LEARNING_RATE"):
        return "loss needs LEARNING_RATE beside it"
    return _fault_of_sizes(contract.DIMENSIONS, contract.SIZES)


def _fault_of_sizes(dimensions: Any, named: Any) -> Optional[str]:
    if not isinstance(dimensions, Mapping) or not all(isinstance(value, Dimension) for value in dimensions.values()):
        return "DIMENSIONS is a dictionary of bench.cases.dimension.Dimension"
    if not isinstance(named, (tuple, list)) or not named or not all(isinstance(values, Mapping) for values in named):
        return "SIZES is a tuple of one or more dictionaries"
    for values in named:
        for key in values:
            if key not in dimensions and key != "batch_size":
                return f"{key!r} in SIZES is no dimension; there are {', '.join(dimensions) or 'none'}"
        for key, dimension in dimensions.items():
            if key not in values and dimension.default is None:
                return f"{key!r} has no value in {dict(values)} of SIZES"
    return None


def transferable(module: ModuleType, shown: str) -> Dict[str, str]:
    """What another process needs to load a module. `shown` is the name of its file in messages and records."""
    file = Path(str(module.__file__)).resolve()
    depth = module.__name__.count(".")
    return {
        "module": module.__name__,
        "file": str(file),
        "shown": shown,
        "folder": str(file.parents[depth]),
        "text": file.read_text(encoding="utf-8"),
    }


def load(source: Mapping[str, str]) -> ModuleType:
    """Load a module from what `transferable` returned in another process. Raises Refused, in one line, if it fails."""
    if source["folder"] not in sys.path and os.path.isdir(source["folder"]):
        # Last, so that no file beside it hides a framework.
        sys.path.append(source["folder"])
    spec = importlib.util.spec_from_loader(source["module"], loader=None, origin=source["file"])
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    module.__file__ = source["file"]
    sys.modules.setdefault(source["module"], module)
    try:
        exec(compile(source["text"], source["file"], "exec"), module.__dict__)
    except BaseException as error:  # pytest's skips too: whatever a user's file raises becomes one line
        if isinstance(error, KeyboardInterrupt):
            raise
        if sys.modules.get(source["module"]) is module:
            del sys.modules[source["module"]]
        raise Refused(f"{source['shown']} does not load in the worker: {failure(error, source['file'])}") from None
    return module


def failure(error: BaseException, file: str) -> str:
    """An error in one line, with the line number in `file` that raised it."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    lines = []
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == file:
            lines.append(trace.tb_lineno)
        trace = trace.tb_next
    return f"{text} (line {lines[-1]})" if lines else text

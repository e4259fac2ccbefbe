"""The fakes of the IPU API (tests/fakes), for tests that look into them."""

from __future__ import annotations

import enum
import functools
import inspect
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, Dict, List, Tuple

FAKES = Path(__file__).resolve().parent / "fakes"
if str(FAKES) not in sys.path:
    sys.path.append(str(FAKES))

import contract  # noqa: E402

# The SDK's tools on the path. They look for python3 there: a shim of pyenv takes three times as long to find it.
TOOLS_PATH = os.pathsep.join([str(FAKES / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]])


@functools.lru_cache(maxsize=None)
def built() -> Dict[str, ModuleType]:
    """Return the modules of every framework by name, without behaviours."""
    return {name: module for framework in contract.ROOTS for name, module in contract.build(framework).items()}


def find(name: str) -> Tuple[Any, Any]:
    """Return what the dotted `name` stands for, and the object that holds it."""
    module = max((one for one in built() if name.startswith(one + ".")), key=len)
    holder: Any = None
    found: Any = built()[module]
    rest = name[len(module) + 1 :]
    # The C++ names of nested classes have no dot before their members' one.
    for part in rest.rsplit(".", 1) if "::" in rest else rest.split("."):
        holder = contract.new(found) if inspect.isclass(found) and not issubclass(found, enum.Enum) else found
        found = getattr(holder, part)
    return found, holder


def callables() -> List[Dict[str, Any]]:
    """Return the facts about what can be called."""
    kinds = ("function", "method", "staticmethod", "classmethod")
    return [entry for entry in contract.facts()["entries"] if entry["kind"] in kinds]


def python(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run `code` in a Python that has the fakes on its path."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "SYSTEMROOT", "TMPDIR") if name in os.environ}
    full = {**kept, "PYTHONPATH": str(FAKES), "TF_CPP_MIN_LOG_LEVEL": "3", **env}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=full)

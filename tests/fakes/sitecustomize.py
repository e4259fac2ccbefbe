"""Puts the fakes in the place of the Graphcore SDK: with this folder on PYTHONPATH, `import poptorch` finds one.

Nothing is imported until something asks for it. Behaviours are those of poptorch_fake.py, popart_fake.py,
popdist_fake.py and tensorflow_fake.py beside this file, where they exist.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import os
import sys
from types import ModuleType
from typing import Any, Dict, Optional

HEADS = ("poptorch", "popart", "popdist", "ipu_tensorflow_addons", "tensorflow.python.ipu", "keras.ipu")
ALIASES = {"tensorflow.keras.ipu": "keras.ipu", "keras._tf_keras.keras.ipu": "keras.ipu"}
# Stock modules that have `ipu` in Graphcore's build.
KERAS = ("keras", "keras._tf_keras.keras")
BEHAVIOURS = {
    "poptorch": "poptorch_fake",
    "popart": "popart_fake",
    "popdist": "popdist_fake",
    "tensorflow": "tensorflow_fake",
}
ORDER = "It looks like onnx has already been imported. Due to an ongoing issue, popart must be imported before onnx."

_built: Dict[str, Dict[str, ModuleType]] = {}


def framework_of(name: str) -> str:
    """Return the framework whose build has the module `name`."""
    if name.startswith("popdist"):
        return name
    head = name.partition(".")[0]
    return head if head in ("poptorch", "popart") else "tensorflow"


def modules(framework: str) -> Dict[str, ModuleType]:
    """Return the modules of a framework, made when first asked for."""
    if framework not in _built:
        import contract

        file = BEHAVIOURS[framework.partition(".")[0]]
        found: Dict[str, Any] = {}
        if importlib.machinery.PathFinder.find_spec(file, [os.path.dirname(__file__)]):
            found = importlib.import_module(file).BEHAVIOURS
        # One file for popdist and its parts: each is built when it is imported, with what is its own.
        others = [name for other in contract.ROOTS if other.startswith("popdist") for name in contract.entries(other)]
        mine = contract.entries(framework)
        found = {name: one for name, one in found.items() if name in mine or name not in others}
        _built[framework] = contract.build(framework, found)
    return _built[framework]


class Loader(importlib.abc.Loader):
    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        if spec.name in ALIASES:
            return importlib.import_module(ALIASES[spec.name])
        if spec.name == "popart" and "onnx" in sys.modules:
            raise ImportError(ORDER)
        return modules(framework_of(spec.name))[spec.name]

    def exec_module(self, module: ModuleType) -> None:
        """Nothing is left to run."""


class KerasLoader(importlib.abc.Loader):
    """Loads the stock Keras, and gives it an `ipu` that is imported when it is asked for."""

    def __init__(self, true: Any) -> None:
        self.true = true

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> Optional[ModuleType]:
        made: Optional[ModuleType] = self.true.create_module(spec)
        return made

    def exec_module(self, module: ModuleType) -> None:
        self.true.exec_module(module)

        def lazy(name: str) -> Any:
            if name == "ipu":
                return importlib.import_module("keras.ipu")
            raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")

        module.__dict__.setdefault("__getattr__", lazy)


class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name: str, path: Any, target: Any = None) -> Optional[importlib.machinery.ModuleSpec]:
        if name in KERAS:
            spec = importlib.machinery.PathFinder.find_spec(name, path)
            if spec is not None and spec.loader is not None:
                spec.loader = KerasLoader(spec.loader)
            return spec
        if name in ALIASES:
            return importlib.machinery.ModuleSpec(name, Loader(), is_package=True)
        if not any(name == head or name.startswith(head + ".") for head in HEADS):
            return None
        import contract

        framework = framework_of(name)
        if framework not in contract.ROOTS or name not in contract.module_names(framework):
            return None
        return importlib.machinery.ModuleSpec(name, Loader(), is_package=True)


sys.meta_path.insert(0, Finder())

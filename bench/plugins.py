"""Folders are registries: a layer, a backend or a device is one file, found by being there."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType
from typing import List


def names(package: ModuleType) -> List[str]:
    """The modules in a folder, sorted; a leading underscore marks what several of them share."""
    found = (module.name for module in pkgutil.iter_modules(package.__path__))
    return sorted(name for name in found if not name.startswith("_"))


def load(package: ModuleType, name: str) -> ModuleType:
    """Import one module of a folder. Raises ValueError with the choices when it is not there."""
    kind = package.__name__.rsplit(".", 1)[-1][:-1]
    if name not in names(package):
        raise ValueError(f"no {kind} {name!r}; there are {', '.join(names(package))}")
    return importlib.import_module(f"{package.__name__}.{name}")

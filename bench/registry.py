"""Folders are registries: a layer, a backend or a device is one file or one folder, found by being there."""

from __future__ import annotations

import difflib
import functools
import importlib
import pkgutil
from types import ModuleType
from typing import List, Sequence


def names(package: str) -> List[str]:
    """The modules of a package, sorted; those whose names start with an underscore are shared by several."""
    path = importlib.import_module(package).__path__
    return sorted(module.name for module in pkgutil.iter_modules(path) if not module.name.startswith("_"))


@functools.lru_cache(maxsize=None)
def load(package: str, name: str) -> ModuleType:
    """Import one module of a package. Raises ValueError with the choices when it is not there."""
    if name not in names(package):
        kind = package.rsplit(".", 1)[-1][:-1]
        raise ValueError(f"{kind} {unknown(name, names(package))}")
    return importlib.import_module(f"{package}.{name}")


def unknown(name: str, known: Sequence[str]) -> str:
    """What to say of a name that is not known: the nearest that is, and all of them."""
    nearest = difflib.get_close_matches(name, known, 1)
    hint = f" (did you mean {nearest[0]}?)" if nearest else ""
    return f"{name!r}{hint} is not one of {', '.join(known)}"

"""Folders are registries: a layer, a backend or a device is one file or one folder, found by being there."""

from __future__ import annotations

import difflib
import functools
import importlib
import pkgutil
from dataclasses import MISSING, fields
from types import ModuleType
from typing import Any, Dict, List, Sequence, Type, TypeVar

Contract = TypeVar("Contract")


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


def filled(kind: Type[Contract], module: ModuleType) -> Contract:
    """A dataclass of what a module holds: its functions by their names, its constants in capitals.

    Raises TypeError, naming them, where the module lacks fields that have no default.
    """
    values: Dict[str, Any] = {}
    missing: List[str] = []
    for field in fields(kind):  # type: ignore[arg-type]
        name = field.name if "Callable" in str(field.type) else field.name.upper()
        if hasattr(module, name):
            values[field.name] = getattr(module, name)
        elif field.default is MISSING:
            missing.append(name)
    if missing:
        raise TypeError(f"{module.__name__} lacks {', '.join(missing)}: see {kind.__name__} in {kind.__module__}")
    return kind(**values)

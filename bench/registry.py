"""Folders are registries: each file or folder in them is a layer, a backend or a device."""

from __future__ import annotations

import difflib
import functools
import importlib
import pkgutil
from dataclasses import MISSING, fields
from types import ModuleType
from typing import Any, Dict, List, Sequence, Tuple, Type, TypeVar

Contract = TypeVar("Contract")


@functools.lru_cache(maxsize=None)
def names(package: str) -> Tuple[str, ...]:
    """The modules of a package, sorted, without those whose name starts with an underscore: they hold shared code."""
    path = importlib.import_module(package).__path__
    return tuple(sorted(module.name for module in pkgutil.iter_modules(path) if not module.name.startswith("_")))


@functools.lru_cache(maxsize=None)
def load(package: str, name: str) -> ModuleType:
    """Import one module of a package. Raises ValueError, with the choices, for an unknown name."""
    if name not in names(package):
        kind = package.rsplit(".", 1)[-1][:-1]
        raise ValueError(f"{kind} {unknown(name, names(package))}")
    return importlib.import_module(f"{package}.{name}")


def unknown(name: str, known: Sequence[str]) -> str:
    """The text of an error for an unknown name: the closest known name, and all known names."""
    closest = difflib.get_close_matches(name, known, 1)
    hint = f" (did you mean {closest[0]}?)" if closest else ""
    return f"{name!r}{hint} is not one of {', '.join(known)}"


def filled(kind: Type[Contract], module: Any) -> Contract:
    """Return a dataclass filled from a module: functions have the names of the fields, constants are in capitals.

    Raises TypeError, with their names, if the module lacks fields that have no default.
    """
    values: Dict[str, Any] = {}
    missing: List[str] = []
    for field in fields(kind):  # type: ignore[arg-type]
        name = field.name if "Callable" in str(field.type) else field.name.upper()
        if hasattr(module, name):
            values[field.name] = getattr(module, name)
        elif field.default is MISSING and field.default_factory is MISSING:
            missing.append(name)
    if missing:
        raise TypeError(f"{module.__name__} lacks {', '.join(missing)}: see {kind.__name__} in {kind.__module__}")
    return kind(**values)

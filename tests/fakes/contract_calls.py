"""What the fakes were asked to do, in order, and what they were told to fail at.

Every call lands in `calls`. Where FAKE_IPU_CALLS names a file, it is also appended there as a line of JSON, so
that a test can read what a worker process called. FAKE_IPU_FAULTS holds a JSON object: the dotted name of a call to
`{"exception": "popart.popart_exception", "message": "...", "times": 2, "attributes": {...}}`.
"""

from __future__ import annotations

import builtins
import collections
import enum
import functools
import importlib
import json
import os
from types import SimpleNamespace
from typing import Any, Counter, Dict, List, Mapping, NamedTuple, Optional, Set


class Call(NamedTuple):
    """One call: its dotted name, what was passed without what was left to defaults, and the object called."""

    name: str
    arguments: Dict[str, Any]
    of: Optional[str] = None


calls: List[Call] = []
# The classes of the fakes by dotted name.
classes: Dict[str, Any] = {}
_instances: Counter[str] = collections.Counter()
_raised: Counter[str] = collections.Counter()
# The names of the facts, once they are read.
names: Set[str] = set()


def state(instance: Any) -> SimpleNamespace:
    """Return what a fake object remembers: any name a behaviour likes."""
    held: SimpleNamespace = instance.__dict__.setdefault("_fake", SimpleNamespace())
    return held


def label(instance: Any) -> str:
    """Return the name of a fake object: its class and the how-manieth of it."""
    held = state(instance)
    if not hasattr(held, "label"):
        name = type(instance)._fake_name
        _instances[name] += 1
        held.label = f"{name}#{_instances[name]}"
    text: str = held.label
    return text


def plain(value: Any, depth: int = 6) -> Any:
    """Return `value` as JSON can hold it."""
    if isinstance(value, enum.Enum):
        return f"{type(value).__name__}.{value.name}"
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if hasattr(type(value), "_fake_name"):
        return label(value)
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    if depth and isinstance(value, dict):
        return {str(plain(key)): plain(item, depth - 1) for key, item in value.items()}
    if depth and isinstance(value, (list, tuple)):
        return [plain(item, depth - 1) for item in value]
    if depth and isinstance(value, (set, frozenset)):
        return sorted((plain(item, depth - 1) for item in value), key=str)
    if isinstance(value, type) or (callable(value) and hasattr(value, "__qualname__")):
        return f"<{value.__module__}.{value.__qualname__}>"
    if type(value).__name__ in ("dtype", "DType"):
        return str(value)
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"<{type(value).__name__} {tuple(value.shape)} {value.dtype}>"
    return f"<{type(value).__module__}.{type(value).__name__}>"


def record(name: str, arguments: Dict[str, Any], of: Any = None) -> None:
    """Add one call. A behaviour uses it for what the facts do not name, such as an inherited method."""
    call = Call(name, {key: plain(value) for key, value in arguments.items()}, None if of is None else label(of))
    calls.append(call)
    path = os.environ.get("FAKE_IPU_CALLS")
    if path:
        line = json.dumps({**call._asdict(), "pid": os.getpid()})
        with open(path, "a", encoding="utf-8") as file:
            file.write(line + "\n")


@functools.lru_cache(maxsize=None)
def _faults(text: str) -> Dict[str, Any]:
    faults: Dict[str, Any] = json.loads(text)
    for name, fault in faults.items():
        extra = set(fault) - {"exception", "message", "times", "attributes"}
        if name not in names or extra or "exception" not in fault:
            # Without the fault's own text, which would be taken for the SDK's.
            raise ValueError(f"FAKE_IPU_FAULTS cannot fail {name} with {sorted(fault)}")
    return faults


def exception(name: str, message: str, near: Mapping[str, Any] = classes) -> BaseException:
    """Return an exception of the class `name`: one of the fakes, `near` first, of TensorFlow or built in."""
    found: Any = near.get(name) or classes.get(name, builtins)
    if found is builtins:
        parts = name.split(".")
        found = importlib.import_module(parts.pop(0)) if parts[1:] else builtins
        for part in parts:
            found = getattr(found, part)
    made: BaseException = found(None, None, message) if name.startswith("tensorflow.errors.") else found(message)
    if getattr(found, "message", "") is None:
        made.message = message  # type: ignore[attr-defined]
    return made


def fail(name: str, near: Mapping[str, Any] = classes) -> None:
    """Raise what FAKE_IPU_FAULTS has for the call `name`, as often as it says."""
    fault = _faults(os.environ.get("FAKE_IPU_FAULTS", "") or "{}").get(name)
    if fault is None or _raised[name] >= fault.get("times", float("inf")):
        return
    _raised[name] += 1
    error = exception(fault["exception"], fault.get("message", ""), near)
    for key, value in fault.get("attributes", {}).items():
        setattr(error, key, value)
    raise error


def reset() -> None:
    """Forget the calls, the numbers of the objects and how often faults were raised."""
    calls.clear()
    _instances.clear()
    _raised.clear()

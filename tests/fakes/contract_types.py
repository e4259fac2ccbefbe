"""What a value must be: types as the facts write them, rules for arguments, enums, and attributes that check."""

from __future__ import annotations

import contextlib
import difflib
import enum
import numbers
import re
from typing import Any, Callable, Dict, List, Mapping, Optional

from contract_calls import record, state

PLAIN: Dict[str, type] = {"bool": bool, "int": int, "float": float, "str": str, "dict": dict}
CONTAINERS = {"List": (list, tuple), "Tuple": (tuple, list), "Set": (set, frozenset, list, tuple)}
Named = Callable[[str], Any]


class BoundEnum(enum.Enum):
    """An enum of pybind11: no integer, though it turns into one."""

    def __int__(self) -> int:
        return int(self.value)


def make_enum(entry: Mapping[str, Any]) -> Any:
    """Return the enum of a fact."""
    module, _, name = entry["name"].rpartition(".")
    bases = entry.get("bases", [])
    base: Any = BoundEnum
    if bases:
        base = enum.IntEnum if bases[0].endswith("IntEnum") else enum.Enum
    # Where the facts give no value, or text in its place, the name stands for it: it is unique.
    members = {key: key if value is None else value for key, value in entry["members"].items()}
    made = base(name, members, module=module)
    made._fake_enum = entry["name"]
    return made


def _parts(text: str) -> List[str]:
    """Return the arguments of a subscript: split at commas outside brackets."""
    return [part.strip() for part in re.split(r",(?![^\[]*\])", text) if part.strip()]


def fits(text: str, value: Any, named: Named, exact: bool) -> bool:
    """Tell whether `value` is of the type written as `text`; `exact` refuses subclasses, as IPUConfig does."""
    head, _, rest = text.replace("typing.", "").partition("[")
    inner = _parts(rest[:-1]) if rest else []
    if head == "Union":
        return any(fits(one, value, named, exact) for one in inner)
    if head in CONTAINERS:
        kinds = CONTAINERS[head]
        fine = type(value) is kinds[0] if exact else isinstance(value, kinds)
        return fine and all(fits(inner[0], item, named, exact) for item in value)
    if head == "Dict":
        key, item = inner
        fine = isinstance(value, dict) and all(fits(key, one, named, exact) for one in value)
        return fine and all(fits(item, one, named, exact) for one in value.values())
    if head in PLAIN and exact:
        return type(value) is PLAIN[head]
    if head in ("int", "float"):
        wanted = numbers.Integral if head == "int" else numbers.Real
        return isinstance(value, wanted) and not isinstance(value, bool)
    return isinstance(value, PLAIN[head] if head in PLAIN else named(head))


def obeys(rule: Mapping[str, Any], value: Any, named: Named, ignore_case: bool) -> bool:
    """Tell whether an argument is what its rule allows."""
    if "enum" in rule:
        return isinstance(value, named(rule["enum"]))
    if "type" in rule:
        return isinstance(value, PLAIN[rule["type"]])
    if "min" in rule:
        return type(value) is int and bool(value >= rule["min"])
    if "range" in rule:
        low, high, step = rule["range"]
        return type(value) is int and value in range(low, high + 1, step)
    if "dtypes" in rule:
        names = {"torch.half": "torch.float16", "torch.float": "torch.float32"}
        return str(value) in [names.get(one, one) for one in rule["dtypes"]]
    if "classes" in rule:
        return type(value).__name__ in rule["classes"]
    if "proportion" in rule:
        return isinstance(value, (int, float)) and 0 < value <= 1
    if "proportions" in rule:
        keys = isinstance(value, dict) and all(re.fullmatch(r"IPU\d+", str(key)) for key in value)
        return keys and all(isinstance(one, (int, float)) and 0 < one <= 1 for one in value.values())
    if ignore_case and isinstance(value, str):
        return value.lower() in [one.lower() for one in rule["values"]]
    return value in rule["values"]


def like(default: Any, value: Any) -> bool:
    """Tell whether pybind11 could take `value` where the default is `default`."""
    if isinstance(default, enum.Enum):
        return isinstance(value, type(default))
    for kind, wanted in ((bool, bool), (int, numbers.Integral), (float, numbers.Real)):
        if isinstance(default, kind):
            return isinstance(value, wanted)
    if isinstance(default, str) and default == "":
        return isinstance(value, str)
    return not isinstance(default, (list, tuple)) or (hasattr(value, "__iter__") and not isinstance(value, str))


class Strings(Dict[str, str]):
    """A map from text to text that writes through to its owner, and takes nothing but text."""

    def __init__(self, name: str, values: Mapping[str, str], owner: Any) -> None:
        super().__init__(values)
        self._name, self._owner = name, owner

    def __setitem__(self, key: str, value: str) -> None:
        if not (isinstance(key, str) and isinstance(value, str)):
            raise TypeError(f"{self._name}[{key!r}] = {value!r}: keys and values must be strings")
        record(self._name, {"key": key, "value": value}, self._owner)
        super().__setitem__(key, value)

    def update(self, *args: Any, **kwargs: Any) -> None:
        for key, value in dict(*args, **kwargs).items():
            self[key] = value

    def setdefault(self, key: str, default: Any = None) -> str:
        if key not in self:
            self[key] = default
        return self[key]


class Attribute:
    """An attribute whose type is checked, and whose setting is recorded as a call."""

    def __init__(self, entry: Mapping[str, Any], named: Named, default: Callable[[], Any], exact: bool) -> None:
        self._entry, self._named, self._default, self._exact = entry, named, default, exact
        self._name: str = entry["name"]

    def _values(self, instance: Any) -> Dict[str, Any]:
        held: Dict[str, Any] = state(instance).__dict__.setdefault("values", {})
        return held

    def __get__(self, instance: Any, owner: Optional[type] = None) -> Any:
        if instance is None:
            return self
        values = self._values(instance)
        if self._name not in values:
            self.store(instance, self._default())
        value = values[self._name]
        # pybind11 hands out copies of plain containers: changing one in place is lost, as on the true object.
        lost = not self._exact and type(value) in (dict, list, set)
        return type(value)(value) if lost else value

    def __set__(self, instance: Any, value: Any) -> None:
        record(self._name, {"value": value}, instance)
        if self._entry["kind"] == "category":
            raise Exception(f"{self._name} is a category and cannot be assigned to.")
        text = self._entry.get("type")
        if text and not fits(text, value, self._named, self._exact):
            raise TypeError(f"Trying to set {self._name} to {value!r}, but it must be of type {text}")
        if text == "dict":
            only_text(self._name, value)
        if not self._entry.get("writable", True):
            raise AttributeError(f"can't set attribute {self._name}")
        self.store(instance, value)

    def store(self, instance: Any, value: Any) -> None:
        """Keep `value` unchecked and unrecorded: a default, or what a constructor was given."""
        live = Strings(self._name, value, instance) if self._entry.get("live") else value
        self._values(instance)[self._name] = live


def only_text(name: str, options: Mapping[Any, Any]) -> None:
    """Raise TypeError for a dictionary of Poplar options that is not text to text."""
    for key, value in options.items():
        if not (isinstance(key, str) and isinstance(value, str)):
            raise TypeError(f"{name}: {key!r}: {value!r}: keys and values must be strings")


class Closed:
    """An object without attributes but those of its class."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not hasattr(getattr(type(self), name, None), "__set__"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r} to set")
        object.__setattr__(self, name, value)


class Tree(Closed):
    """A tree of settings. The true one raises ValueError, with a suggestion, for a name that it lacks."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        names = [one for one in dir(type(self)) if not one.startswith("_")]
        near = difflib.get_close_matches(name, names)
        suggestion = f"Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{name!r} is not a valid attribute of this config. {suggestion}")

    def __setattr__(self, name: str, value: Any) -> None:
        if not hasattr(type(self), name):
            getattr(self, name)
        super().__setattr__(name, value)


def check_tree(tree: Tree) -> None:
    """Raise TypeError where a dictionary somewhere in `tree` was filled with something else than text."""
    for name in dir(type(tree)):
        with contextlib.suppress(AttributeError):
            if isinstance(getattr(type(tree), name), Attribute):
                value = getattr(tree, name)
                if isinstance(value, dict):
                    only_text(name, value)
                elif isinstance(value, Tree):
                    check_tree(value)

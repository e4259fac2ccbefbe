"""Fake modules of the IPU API, made from facts.json: true names, true signatures, no device.

    modules = contract.build("poptorch", {"poptorch.PoplarExecutor.__call__": run})

A behaviour is a callable under a dotted name of the facts. It is called after the signature was checked and the
call recorded: `self` and positional-only arguments by position, all others by name, defaults filled in; what it
returns is returned. For a class it runs at construction; where it is itself a class, it becomes a base of the fake,
and lends its methods. `state(instance)` is where behaviours keep what they know, `new(cls, ...)` makes an object
that only the framework makes, `settings(options)` is what a PopTorch Options was told.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import re
from types import ModuleType
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence

from contract_calls import Call, calls, classes, exception, label, plain, record, reset, state
from contract_function import (
    CONFIG,
    MEMBERS,
    OPTIONS,
    ROOTS,
    Function,
    entries,
    facts,
    freeze,
    module_names,
    new,
    settings,
)
from contract_types import Attribute, Closed, Tree, make_enum

__all__ = ["ROOTS", "Call", "build", "calls", "entries", "exception", "facts", "freeze", "label", "module_names"]
__all__ += ["new", "plain", "record", "reset", "settings", "state"]

Behaviours = Mapping[str, Callable[..., Any]]
Entry = Dict[str, Any]


class Expression(str):
    """A default that the facts hold as text only."""


def inherits(lender: Any, name: str) -> bool:
    """Tell whether `lender` has `name` from a class above: Keras, say, which looks into the signatures it wraps."""
    return hasattr(lender, name) and name not in vars(lender) and not hasattr(object, name)


class Build:
    """The modules of one framework, being made."""

    def __init__(self, framework: str, behaviours: Behaviours) -> None:
        self.entries = dict(entries(framework))
        self.behaviours = behaviours
        unknown = sorted(set(behaviours) - set(self.entries))
        if unknown:
            raise LookupError(f"the facts about {framework} have no " + ", ".join(unknown))
        for name, entry in entries(framework).items():
            owner = name.rpartition(".")[0]
            if owner not in self.entries and entry["kind"] in MEMBERS:
                self.entries[owner] = {"name": owner, "kind": "class", "init": []}
        self.children: Dict[str, List[Entry]] = {}
        for name, entry in self.entries.items():
            self.children.setdefault(name.rpartition(".")[0], []).append(entry)
        # Classes and enums by the last part of their names.
        self.by_last: Dict[str, List[str]] = {}
        for name, entry in self.entries.items():
            if entry["kind"] in ("class", "enum"):
                self.by_last.setdefault(name.rpartition(".")[2], []).append(name)
        self.classes: Dict[str, Any] = {}
        self.modules = {name: ModuleType(name) for name in module_names(framework)}
        for name, module in self.modules.items():
            module.__dict__["__fake__"] = True
            parent, _, last = name.rpartition(".")
            if parent in self.modules:
                setattr(self.modules[parent], last, module)
        for name, module in self.modules.items():
            for entry in self.children.get(name, []):
                setattr(module, entry["name"][len(name) + 1 :], self.value(entry))

    def value(self, entry: Entry) -> Any:
        """Return what stands under the name of a fact in its module."""
        name, kind = entry["name"], entry["kind"]
        if kind in ("class", "exception", "enum"):
            return self.class_of(name)
        if kind == "alias":
            target = entry["target"]
            return self.class_of(target if "." in target else f"{name.rpartition('.')[0]}.{target}")
        if kind == "function":
            return Function(self, entry, self.behaviours.get(name), member=False).make()
        assert kind == "attribute", entry
        return entry.get("default")

    def find(self, name: str, near: str = "") -> Any:
        """Return the class or enum that the facts call `name`: a full name, a sibling of `near`, or the only one."""
        for known in (name, f"{near.rpartition('.')[0]}.{name}"):
            if self.entries.get(known, {}).get("kind") in ("class", "exception", "enum"):
                return self.class_of(known)
        same = self.by_last.get(name.rpartition(".")[2], [])
        if "." not in name and len(same) == 1:
            return self.class_of(same[0])
        root = name.partition(".")[0]
        if root in ROOTS and root not in self.modules and "." in name:
            return classes.get(name) or getattr(importlib.import_module(root), name.rpartition(".")[2])
        return None

    def named(self, name: str) -> Any:
        """Return the class or enum `name`, which must be there."""
        found = self.find(name)
        if found is None:
            raise LookupError(f"the facts have no class {name}")
        return found

    def class_of(self, name: str) -> Any:
        """Return the fake class or enum `name`."""
        if name not in self.classes:
            entry = self.entries[name]
            self.classes[name] = make_enum(entry) if entry["kind"] == "enum" else self.make_class(entry)
            classes[name] = self.classes[name]
            if entry["kind"] == "enum":
                for child in self.children.get(name, []):
                    setattr(self.classes[name], child["name"].rpartition(".")[2], self.member(child, ()))
        return self.classes[name]

    def base(self, text: str, name: str) -> Any:
        """Return the base class that a fact writes as `text`; None where it is none of ours to have."""
        if text == "Exception":
            return Exception
        if text.startswith("torch."):
            try:
                module, _, last = text.rpartition(".")
                return getattr(importlib.import_module(module), last)
            except ImportError:
                return None
        # keras.layers.Dense is no sibling of the Dense that extends it.
        short = text if text.partition(".")[0] in (*ROOTS, "keras", "layers", "optimizer") else text.rpartition(".")[2]
        found = self.find(short, name)
        return None if found is self.classes.get(name, self) or (short == name.rpartition(".")[2]) else found

    def make_class(self, entry: Entry) -> Any:
        """Return the fake class of a fact."""
        name = entry["name"]
        module, _, last = name.rpartition(".")
        bases = [base for base in (self.base(text, name) for text in entry.get("bases", [])) if base is not None]
        behaviour = self.behaviours.get(name)
        lent = behaviour if inspect.isclass(behaviour) else None
        if lent is not None:
            bases.insert(0, lent)
        if name == CONFIG or entry["kind"] == "category":
            bases.append(Tree)
        elif "init" in entry or name.startswith(OPTIONS):
            bases.append(Closed)
        lenders = [one for one in bases if not hasattr(one, "_fake_name")]
        # A base that comes before one of its own children has no order of resolution.
        bases = [one for one in bases if not any(issubclass(other, one) for other in bases if other is not one)]
        space: Dict[str, Any] = {"__module__": module, "__qualname__": last, "__fake__": True, "_fake_name": name}
        space.update({attribute: None for attribute in entry.get("attributes", [])})
        if "refuses" in entry:
            space["_fake_refuses"] = tuple(entry["refuses"])
        for child in self.children.get(name, []):
            short = child["name"].rpartition(".")[2]
            if not any(inherits(lender, short) for lender in lenders):
                space[short] = self.member(child, lenders)
        fake_base = any(hasattr(base, "_fake_name") for base in bases)
        if entry["kind"] == "class" and ("params" in entry or "init" in entry or not fake_base):
            told = None if lent is not None else behaviour
            space["__init__"] = self.constructor(entry, told)
        return type(last, tuple(bases), space)

    def constructor(self, entry: Entry, behaviour: Optional[Callable[..., Any]]) -> Callable[..., None]:
        """Return the `__init__` of a class."""
        function = Function(self, entry, behaviour, member=True)

        def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
            if not function.signatures:
                raise TypeError(f"{entry['name']}: No constructor defined!")
            function(self, *args, **kwargs)

        if function.signatures:
            __init__.__signature__ = function.signatures[0]  # type: ignore[attr-defined]
        return __init__

    def construct(self, entry: Entry, instance: Any, given: Dict[str, Any]) -> None:
        """Do what every constructor does: set the attributes it names, and call a true base class."""
        cls = type(instance)
        for key, value in given.items():
            field = getattr(cls, key, None)
            if isinstance(field, Attribute):
                field.store(instance, value)
        true = [one for one in cls.__mro__ if not hasattr(one, "_fake_name") and one not in (Closed, Tree, object)]
        if not true or issubclass(true[0], BaseException):
            return
        wanted = inspect.signature(true[0].__init__).parameters
        lent = true[0] is self.behaviours.get(entry["name"])
        passed = {k: v for k, v in given.items() if lent or (k in wanted and v is not None)}
        if "defaults" in wanted:
            passed["defaults"] = {k: v for k, v in given.items() if k != "params" and v is not None}
        true[0].__init__(instance, **passed)

    def member(self, entry: Entry, lenders: Sequence[Any]) -> Any:
        """Return what stands under the name of a fact in its class; true bases lend what they have of it."""
        name, kind = entry["name"], entry["kind"]
        last = name.rpartition(".")[2]
        behaviour = self.behaviours.get(name)
        for lender in lenders:
            if behaviour is None and last in vars(lender):
                behaviour = getattr(lender, last)
                behaviour = behaviour.fget if isinstance(behaviour, property) else behaviour
        if kind == "property":
            return property(functools.partial(self.read, entry, behaviour))
        if kind in ("attribute", "category"):
            named = functools.partial(self.find, near=name.rpartition(".")[0])
            return Attribute(entry, named, functools.partial(self.initial, entry), exact=name.startswith(CONFIG))
        function = Function(self, entry, behaviour, member=kind != "staticmethod").make()
        wrap = {"staticmethod": staticmethod, "classmethod": classmethod}.get(kind, lambda made: made)
        return wrap(function)  # type: ignore[operator]

    def read(self, entry: Entry, behaviour: Optional[Callable[..., Any]], instance: Any) -> Any:
        """Return the value of a property."""
        name = entry["name"]
        last = name.rpartition(".")[2]
        if behaviour is not None:
            return behaviour(instance)
        held = state(instance).__dict__
        if last not in held:
            part = self.find(entry.get("returns") or last[0].upper() + last[1:], name)
            if name in self.children:
                part = self.class_of(name)
            if part is None or hasattr(part, "_fake_enum"):
                return None
            held[last] = new(part, root=instance)
        return held[last]

    def initial(self, entry: Entry) -> Any:
        """Return the first value of an attribute."""
        if entry["kind"] == "category":
            return new(self.class_of(entry["name"]))
        text, default = str(entry.get("type", "")), entry.get("default")
        kind = self.find(text, entry["name"].rpartition(".")[0]) if text.isidentifier() or "." in text else None
        if hasattr(kind, "_fake_enum"):
            return kind[str(default).rpartition(".")[2]]
        if kind is not None:
            return new(kind)
        if text.startswith("Set["):
            inner = self.find(text[4:-1])
            return {inner[str(one).rpartition(".")[2]] if inner else one for one in default}
        unknown = isinstance(default, dict) and "expr" in default
        return None if unknown else type(default)(default) if isinstance(default, (list, dict)) else default

    @functools.lru_cache(maxsize=None)  # noqa: B019 - a build lives as long as its process
    def shared(self, name: str) -> Any:
        """Return the one object that is the default of every call, as in the true API."""
        return new(self.class_of(name))

    def default(self, given: Any) -> Any:
        """Return the default that a fact writes as `given`."""
        if not isinstance(given, dict):
            return given
        text = given["expr"]
        if re.fullmatch(r"-?[\d.]+(e[+-]?\d+)?f", text):
            return float(text[:-1])
        if text == "()":
            return ()
        called = re.fullmatch(r"([\w.]+)\(\)", text)
        if called and called[1] in self.entries:
            return self.shared(called[1])
        cast = re.fullmatch(r"static_cast<int>\((.*)\)", text)
        owner, _, member = (cast[1] if cast else text).rpartition(".")
        found = self.find(owner.rpartition(".")[2]) if owner else None
        if not hasattr(found, "_fake_enum"):
            return Expression(text)
        return int(found[member]) if cast else found[member]


def build(framework: str, behaviours: Optional[Behaviours] = None) -> Dict[str, ModuleType]:
    """Return the modules of one framework by name."""
    return Build(framework, behaviours or {}).modules

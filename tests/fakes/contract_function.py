"""One call into a fake: its signature, what is checked, and what it gives when nobody says otherwise."""

from __future__ import annotations

import contextlib
import functools
import inspect
import json
import keyword
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple

from contract_calls import exception, fail, names, record, state
from contract_types import check_tree, like, obeys

Entry = Dict[str, Any]

ROOTS = {
    "poptorch": ("poptorch",),
    "popart": ("popart",),
    "popdist": ("popdist",),
    "popdist.poptorch": ("popdist.poptorch",),
    "popdist.popart": ("popdist.popart",),
    "popdist.tensorflow": ("popdist.tensorflow",),
    "tensorflow": ("tensorflow.python.ipu", "keras.ipu", "ipu_tensorflow_addons"),
}
OPTIONS = "poptorch.Options"
CONFIG = "tensorflow.python.ipu.config.IPUConfig"
CONFIGURING = (f"{CONFIG}.configure_ipu_system", "tensorflow.python.ipu.config.configure_ipu_system")
MEMBERS = ("method", "property", "classmethod", "staticmethod")
MARKS = (
    ("**", inspect.Parameter.VAR_KEYWORD),
    ("*", inspect.Parameter.VAR_POSITIONAL),
    ("/", inspect.Parameter.POSITIONAL_ONLY),
    ("!", inspect.Parameter.KEYWORD_ONLY),
    ("", inspect.Parameter.POSITIONAL_OR_KEYWORD),
)
# The default of a parameter that has none, behind one that has: C++ allows it.
REQUIRED = object()
# Parameters by which C++ tells one overload from another.
CLASSES = {"tensorInfo": "TensorInfo", "settings": "InputSettings", "variableSettings": "VariableSettings"}
ANYTHING = ["self", "*args", "**kwargs"]


@functools.lru_cache(maxsize=None)
def facts() -> Dict[str, Any]:
    """Return facts.json."""
    loaded: Dict[str, Any] = json.loads((Path(__file__).parent / "facts.json").read_text(encoding="utf-8"))
    names.update(entry["name"] for entry in loaded["entries"])
    return loaded


@functools.lru_cache(maxsize=None)
def entries(framework: str) -> Dict[str, Entry]:
    """Return the facts of one framework by name."""
    elsewhere = [root for other, roots in ROOTS.items() if other.startswith(framework + ".") for root in roots]

    def within(name: str, roots: Any) -> bool:
        return any(name.startswith(root + ".") for root in roots)

    every = facts()["entries"]
    return {e["name"]: e for e in every if within(e["name"], ROOTS[framework]) and not within(e["name"], elsewhere)}


@functools.lru_cache(maxsize=None)
def module_names(framework: str) -> Tuple[str, ...]:
    """Return the names of the modules of a framework, parents first."""
    known = entries(framework)
    # A class may have facts about its methods and none of its own.
    owners = {name.rpartition(".")[0] for name, entry in known.items() if entry["kind"] in MEMBERS}
    names = set(ROOTS[framework])
    for name in known:
        parent = name.rpartition(".")[0]
        if parent in known or parent in owners:
            continue
        for root in ROOTS[framework]:
            while parent.startswith(root):
                names.add(parent)
                parent = parent.rpartition(".")[0]
    return tuple(sorted(names))


def new(cls: Any, **known: Any) -> Any:
    """Return an object of a fake class that no constructor was called for; `known` is what its properties give."""
    made = cls.__new__(cls)
    state(made).__dict__.update(known)
    return made


def root_of(options: Any) -> Any:
    """Return the PopTorch Options that `options` is, or is a part of."""
    return getattr(state(options), "root", options)


def settings(options: Any) -> Dict[str, Any]:
    """Return what a PopTorch Options was told: `{"deviceIterations": 4, "Training.gradientAccumulation": 8}`."""
    told: Dict[str, Any] = state(root_of(options)).__dict__.setdefault("settings", {})
    return told


def freeze(options: Any) -> None:
    """Refuse every later change of a PopTorch Options."""
    state(root_of(options)).frozen = True


def signature(params: List[Any], default: Callable[[Any], Any], bound: bool) -> inspect.Signature:
    """Return the signature that the short form `params` says; `bound` puts a positional-only self in front."""
    made = [inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)] if bound else []
    for one in params:
        text, held = (one, inspect.Parameter.empty) if isinstance(one, str) else (one[0], default(one[1]))
        mark, kind = next(pair for pair in MARKS if text.startswith(pair[0]))
        name = text[len(mark) :]
        if made and held is inspect.Parameter.empty and made[-1].default is not inspect.Parameter.empty:
            held = REQUIRED if kind is inspect.Parameter.POSITIONAL_OR_KEYWORD else held
        # pybind11 takes names that Python cannot write, such as lambda.
        made.append(inspect.Parameter(name + "_" * keyword.iskeyword(name), kind, default=held))
    return inspect.Signature(made)


class Function:
    """One function or method of the API: binds, records, fails if told to, checks, behaves."""

    def __init__(self, build: Any, entry: Entry, behaviour: Optional[Callable[..., Any]], member: bool) -> None:
        self.build, self.entry, self.behaviour, self.member = build, entry, behaviour, member
        self.name: str = entry["name"]
        forms = entry.get("overloads", entry.get("init"))
        if forms is None:
            forms = [entry.get("params", ANYTHING if member else [])]
        first = forms[0][0] if forms and forms[0] and isinstance(forms[0][0], str) else ""
        # What is bound by pybind11 has no self among its parameters, and types that are checked.
        self.native = self.name.startswith("popart.") and first not in ("self", "cls")
        self.signatures = [signature(form, build.default, member and first not in ("self", "cls")) for form in forms]

    def bind(self, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> inspect.BoundArguments:
        """Return the arguments as the first fitting signature names them; TypeError where none fits."""
        named = {key + "_" * keyword.iskeyword(key): value for key, value in kwargs.items()}
        problems = []
        for form in self.signatures:
            try:
                bound = form.bind(*args, **named)
            except TypeError as error:
                problems.append(str(error))
                continue
            lacking = [k for k, one in form.parameters.items() if one.default is REQUIRED and k not in bound.arguments]
            if lacking:
                problems.append(f"missing a required argument: {lacking[0]!r}")
                continue
            wrong = [key for key, value in bound.arguments.items() if self.native and not self.takes(form, key, value)]
            if not wrong:
                return bound
            problems.append(f"{wrong[0]} cannot be {bound.arguments[wrong[0]]!r}")
        raise TypeError(f"{self.name}(): " + "; or ".join(problems))

    def takes(self, form: inspect.Signature, key: str, value: Any) -> bool:
        """Tell whether a C++ function could take `value`: it is typed where Python is not."""
        if key.startswith("nodeOutputName"):
            return isinstance(value, (str, set, list, tuple))
        if key in CLASSES:
            return isinstance(value, self.build.named(CLASSES[key]))
        if key == "shape":
            return hasattr(value, "__iter__") and not isinstance(value, str)
        default = form.parameters[key].default
        return any(default is one for one in (inspect.Parameter.empty, REQUIRED, None)) or like(default, value)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        bound = self.bind(args, kwargs)
        given: Dict[str, Any] = {}
        for key, value in bound.arguments.items():
            if bound.signature.parameters[key].kind is inspect.Parameter.VAR_KEYWORD:
                given.update(value)
            elif key not in ("self", "cls"):
                given[key[:-1] if keyword.iskeyword(key[:-1]) else key] = value
        instance = args[0] if self.member and args and not isinstance(args[0], type) else None
        record(self.name, given, instance if hasattr(type(instance), "_fake_name") else None)
        fail(self.name, self.build.classes)
        self.check(instance, given)
        if self.entry["kind"] == "class":
            self.build.construct(self.entry, instance, given)
        bound.apply_defaults()
        result = self.behave(bound) if self.behaviour else self.usual(instance, given)
        if "freezes" in self.entry and given.get(self.entry["freezes"]) is not None:
            freeze(given[self.entry["freezes"]])
        return result

    def behave(self, bound: inspect.BoundArguments) -> Any:
        """Call the behaviour: by position what must be, by name what can be."""
        assert self.behaviour
        kinds = {key: one.kind for key, one in bound.signature.parameters.items()}
        # What comes before *args can be given by position only.
        star = any(k is inspect.Parameter.VAR_POSITIONAL and bound.arguments[key] for key, k in kinds.items())
        by_position = {inspect.Parameter.POSITIONAL_ONLY} | (
            {inspect.Parameter.POSITIONAL_OR_KEYWORD} if star else set()
        )
        args: List[Any] = []
        named: Dict[str, Any] = {}
        for key, value in bound.arguments.items():
            if kinds[key] is inspect.Parameter.VAR_POSITIONAL:
                args += value
            elif kinds[key] is inspect.Parameter.VAR_KEYWORD:
                named.update(value)
            elif key in ("self", "cls") or kinds[key] in by_position:
                args.append(value)
            else:
                named[key] = value
        return self.behaviour(*args, **named)

    def check(self, instance: Any, given: Dict[str, Any]) -> None:
        """Raise what the true call raises for a value that it does not take, or an object past changing."""
        ignore_case = bool(self.entry.get("ignore_case"))
        for key, rule in self.entry.get("allowed", {}).items():
            value = given.get(key)
            if value is not None and not obeys(rule, value, self.build.named, ignore_case):
                kind = {"poptorch": "AssertionError", "popart": "popart.popart_exception"}
                error = kind.get(self.name.partition(".")[0], "ValueError")
                raise exception(error, f"{self.name}: {key} cannot be {value!r}: {rule}", self.build.classes)
        if self.name in CONFIGURING:
            check_tree(given.get("config", instance))
        if self.name.startswith(OPTIONS + ".") and self.entry.get("returns", "self") in ("self", "None"):
            self.change(instance, given)

    def change(self, options: Any, given: Dict[str, Any]) -> None:
        """Note what a setter of a PopTorch Options was told."""
        path = self.name[len(OPTIONS) + 1 :]
        root = root_of(options)
        if path.split(".")[0] in getattr(type(root), "_fake_refuses", ()):
            raise RuntimeError(f"{path} is set by popdist")
        if getattr(state(root), "frozen", False):
            raise AttributeError("Can't modify frozen Options")
        if getattr(given.get("output_mode"), "name", "") == "EveryN":
            period = given.get("output_return_period") or 0
            assert period > 0, "EveryN needs a positive output_return_period"
        if path == "_Popart.set":
            if isinstance(given["value"], dict):
                only = all(isinstance(text, str) for pair in given["value"].items() for text in pair)
                assert only, f"{given['key']}: keys and values must be strings"
            settings(root).setdefault(path, {})[given["key"]] = given["value"]
            return
        values = list(given.values())
        settings(root)[path] = values[0] if len(values) == 1 else dict(given)

    def usual(self, instance: Any, given: Dict[str, Any]) -> Any:
        """Return what the facts say that a call gives."""
        returns = self.entry.get("returns")
        if self.entry.get("context"):
            return contextlib.nullcontext()
        if returns == "self" or (self.name.endswith(".__enter__") and returns is None):
            return instance
        if returns == "copy":
            copied = new(type(instance))
            settings(copied).update(settings(instance))
            return copied
        if str(returns).startswith("="):
            return given[returns[1:]]
        known = self.build.find(returns) if returns not in (None, "None") else None
        return new(known) if known is not None and not hasattr(known, "_fake_enum") else None

    def make(self) -> Callable[..., Any]:
        """Return the function itself."""

        def call(*args: Any, **kwargs: Any) -> Any:
            return self(*args, **kwargs)

        call.__name__ = self.name.rpartition(".")[2]
        call.__qualname__ = call.__name__
        call.__module__ = self.name.rpartition(".")[0]
        call.__signature__ = self.signatures[0]  # type: ignore[attr-defined]
        return call

"""Loads PopTorch's real Python layer. Its signatures: `python poptorch_source.py FOLDER NAMES FILE`.

FOLDER is the `python` folder of a source checkout. A copy of it is imported with `poptorch_core.py` for its compiled
core. NAMES is a JSON list of dotted names. FILE receives `{name: [[parameter, kind], ...]}` for
those that exist.
"""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import json
import re
import shutil
import sys
import tempfile
from pathlib import Path
from types import ModuleType, SimpleNamespace

sys.path.append(str(Path(__file__).resolve().parents[1] / "fakes"))

import poptorch_core
import poptorch_trace
import torch

LIBRARIES = []


class Bar:
    """tqdm's bar, of whose lock PopTorch sets an attribute when it is imported."""

    get_lock = staticmethod(SimpleNamespace)


def load(folder, scratch):
    """Import a copy of the package, with its placeholders replaced."""
    package = Path(scratch) / "poptorch"
    shutil.copytree(folder, package)
    text = "".join(file.read_text(encoding="utf-8") for file in package.glob("*.py"))
    for file in package.glob("*.py*"):
        if file.suffix in (".py", ".in"):
            file.with_suffix(".py" if file.suffix == ".py" else "").write_text(filled(file), encoding="utf-8")
    sys.modules["poptorch.poptorch_core"] = poptorch_core
    stubs = [name for name in ("pkg_resources", "tqdm") if importlib.util.find_spec(name) is None]
    for name in stubs:
        sys.modules[name] = ModuleType(name)
        sys.modules[name].resource_filename, sys.modules[name].tqdm = (lambda *args: ""), Bar
    torch.ops.load_library = lambda *args: None
    poptorch_core.FACTS = facts = poptorch_trace.facts(Path(folder).parent)
    names = sorted(set(re.findall(r"torch\.ops\.poptorch\.(\w+)", text)))
    define(facts.schemas or [f"{name}(Tensor[] x) -> Tensor[]" for name in names], facts.whole)
    sys.path.insert(0, scratch)
    import poptorch

    for name in stubs:
        # Others ask whether it is installed.
        del sys.modules[name]
    return poptorch


def define(schemas, whole):
    """PopTorch's own operations, and torch's that it intercepts as a whole, which a device without them takes apart."""
    # A library that nobody holds disappears.
    LIBRARIES[:] = [torch.library.Library("poptorch", "DEF"), torch.library.Library("aten", "IMPL", "IPU")]
    own, device = LIBRARIES
    for schema in schemas:
        own.define(schema)
    if whole:
        LIBRARIES.append(torch.library.Library("_", "IMPL", "AutogradIPU"))
        LIBRARIES[-1].fallback(torch.library.fallthrough_kernel)
    for name in whole:
        # Some names are those of other versions of torch.
        with contextlib.suppress(RuntimeError):
            device.impl(name, _never_called)


def _never_called(*args, **kwargs):
    raise AssertionError("a trace is above the device")


def filled(file):
    text = file.read_text(encoding="utf-8").replace("@TORCH_VERSION@", torch.__version__)
    # In newer versions of torch AdamW is an Adam.
    adam = "isinstance(optimizer, torch.optim.Adam)"
    text = text.replace(adam, f"{adam} and not isinstance(optimizer, torch.optim.AdamW)")
    # This check fails with any torch but the SDK's.
    text = re.sub(r"^_check_constructor_match_parent\(.*\)$", "", text, flags=re.MULTILINE)
    return re.sub(r"@\w+@", "0", text)


def found(poptorch, name):
    """The object of a dotted name. Attributes of Options are those of an instance."""
    thing = poptorch
    for part in name.split(".")[1:]:
        if thing is poptorch.Options:
            thing = poptorch.Options()
        thing = getattr(thing, part)
    return thing


def parameters(thing):
    own = inspect.signature(thing.__init__ if inspect.isclass(thing) else thing).parameters.values()
    return [[one.name, one.kind.name] for one in own if one.name != "self"]


if __name__ == "__main__":
    source, names, answer = sys.argv[1:]
    with tempfile.TemporaryDirectory() as scratch:
        loaded, known = load(source, scratch), {}
        for name in json.loads(names):
            with contextlib.suppress(AttributeError):
                known[name] = parameters(found(loaded, name))
    Path(answer).write_text(json.dumps(known))

"""The signatures of PopTorch's real Python layer: `python poptorch_source.py FOLDER NAMES FILE`.

FOLDER is the `python` folder of a source checkout. A copy of it is imported with stubs of its compiled core, so it
cannot compile or run models. NAMES is a JSON list of dotted names. FILE receives `{name: [[parameter, kind], ...]}` for
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

import torch

CORE = """
class Error(Exception): pass
class RecoverableError(Error): pass
class UnrecoverableError(Error): pass
class TracingMode:
    PopART = MLIR = 0
    def __init__(self, *args): pass
class CompilerOptions: pass
def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    return lambda *args, **kwargs: None
"""


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
    (package / "poptorch_core.py").write_text(CORE)
    for name in ("pkg_resources", "tqdm"):
        if importlib.util.find_spec(name) is None:
            stub = ModuleType(name)
            stub.resource_filename, stub.tqdm = (lambda *args: ""), Bar
            sys.modules[name] = stub
    torch.ops.load_library = lambda *args: None
    library = torch.library.Library("poptorch", "DEF")
    for name in sorted(set(re.findall(r"torch\.ops\.poptorch\.(\w+)", text))):
        with contextlib.suppress(RuntimeError):
            library.define(f"{name}(Tensor[] x) -> Tensor[]")
    sys.path.insert(0, scratch)
    import poptorch

    return poptorch


def filled(file):
    text = file.read_text(encoding="utf-8").replace("@TORCH_VERSION@", torch.__version__)
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

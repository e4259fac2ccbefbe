"""Questions to several processes: `answering.py ENGINE LISTS`. They are forks of this one, which loads their framework.

LISTS is the JSON of one list a process, of [module, argument, ...]: the `main` of each module gets the arguments.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
import traceback

engine, lists = sys.argv[1], json.loads(sys.argv[2])
# They set variables that a framework reads, and the path.
modules = {name: importlib.import_module(name) for questions in lists for name, *_ in questions}

from bench import backends, parent  # noqa: E402

backends.load(engine).version()
if engine == "torch":
    # An optimiser loads torch's compiler, which takes a second.
    with contextlib.suppress(ImportError):
        importlib.import_module("torch._dynamo")

children = []
for questions in lists:
    children.append(os.fork())
    if not children[-1]:
        code = 1
        try:
            parent.end_with(os.getppid())
            for name, *arguments in questions:
                modules[name].main(*arguments)
            code = 0
        except BaseException:  # noqa: BLE001 - the process ends here
            traceback.print_exc()
        finally:
            os._exit(code)
sys.exit(any([os.waitpid(child, 0)[1] for child in children]))

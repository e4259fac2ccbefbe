"""Several questions to one process, which loads its framework once: `answering.py QUESTIONS`.

QUESTIONS is the JSON of a list of [module, argument, ...]: the `main` of each module gets the arguments.
"""

from __future__ import annotations

import importlib
import json
import sys

for module, *arguments in json.loads(sys.argv[1]):
    importlib.import_module(module).main(*arguments)

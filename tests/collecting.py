"""What many command lines select: collected in one process, which loads the suite only once."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Dict, Iterable, List, Sequence

from suite import Suite

# Takes the place of a run: runs every line of lines.json instead, one after the other, and notes what it printed.
PLUGIN = """
import contextlib
import io
import json
from importlib import metadata
from pathlib import Path

import pytest


def pytest_cmdline_main(config):
    # For each plug-in that it loads, pytest reads the entry points of every installed package.
    plugged = [one for one in metadata.distributions() if any(point.group == "pytest11" for point in one.entry_points)]
    metadata.distributions = lambda **_: plugged
    found = []
    for args in json.loads(Path("lines.json").read_text()):
        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            code = pytest.main(args)
        found.append([int(code), out.getvalue()])
    Path("collected.json").write_text(json.dumps(found))
    return 0
"""
ALWAYS = ("--collect-only", "-q", "-p", "pytest_benchmark.plugin", "-p", "no:cacheprovider")


@dataclass(frozen=True)
class Collected:
    """What one line printed, and its exit code."""

    returncode: int
    text: str

    @property
    def ids(self) -> List[str]:
        return re.findall(r"::test_\w+\[(.+)\]", self.text)

    @property
    def prefixes(self) -> List[str]:
        """The ids without backend and device, each once."""
        return list(dict.fromkeys(name.rsplit("-", 2)[0] for name in self.ids))


def collect(
    suite: Suite, lines: Iterable[Sequence[str]], paths: Sequence[str] = ("bench",), **env: str
) -> Dict[Sequence[str], Collected]:
    """Run each line, given as its arguments behind `pytest bench`, or behind `pytest` of other paths, with
    --collect-only; numpy is the backend where it names none."""
    distinct = list(dict.fromkeys(tuple(line) for line in lines))
    backend = [[] if "--backend" in line else ["--backend", "numpy"] for line in distinct]
    suite.add("collecting.py", PLUGIN)
    suite.add("lines.json", json.dumps([[*paths, *ALWAYS, *more, *line] for more, line in zip(backend, distinct)]))
    done = suite.run("-p", "collecting", **env)
    assert done.returncode == 0, done.text
    return {line: Collected(code, text) for line, (code, text) in zip(distinct, suite.read("collected.json"))}

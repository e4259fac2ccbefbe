"""Runs of copies of the suite that each take a fork of one process, which has loaded pytest already.

Each has a process, a session, a folder, an environment and an exit code of its own, as one that `Suite.start` starts;
it saves the third of a second in which Python starts and loads pytest. Variables of `AT_START` are those with which
the process started. A test of what a run loads starts it.

A run that computes in its own process, by --in-process, can have frameworks loaded already too: they take seconds. Its
process loads them when a run first asks for them.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

# Variables that Python or the loader reads when a process starts: runs that change one need a process of their own.
AT_START = ("PYTHON", "LANG", "LC_", "LD_", "MALLOC_")
# Takes the place of a run: forks for each line of standard input.
PLUGIN = """
import atexit
import contextlib
import gc
import importlib
import json
import os
import signal
import sys
import tempfile
import threading
import traceback
from importlib import metadata

import pytest

# What each run loads besides pytest-benchmark, and what is no part of the suite.
for name in ("execnet", "rich.console", "rich.table", "rich.ansi", "concurrent.futures.thread", "email.parser", "pdb",
             "multiprocessing.connection", "ctypes", "pytest_benchmark.storage.file", "cpuinfo"):
    importlib.import_module(name)


def cpu_info():
    import cpuinfo

    # pytest-benchmark asks for it with each file of results, and it starts processes to find out.
    known = cpuinfo.get_cpu_info()
    cpuinfo.get_cpu_info = lambda: dict(known)


def entry_points():
    # For each plug-in that it loads, pytest reads the entry points of every installed package.
    everything = metadata.distributions
    plugged = [one for one in everything() if any(point.group == "pytest11" for point in one.entry_points)]
    metadata.distributions = lambda **named: everything(**named) if named else plugged


def run(request, out, err):
    os.setsid()
    signal.alarm(request["timeout_s"])
    os.chdir(request["folder"])
    sys.path[0] = request["folder"]
    sys.path.remove(os.path.dirname(__file__))
    os.environ.clear()
    os.environ.update(request["env"])
    for target, file in enumerate([open(os.devnull), out, err]):
        os.dup2(file.fileno(), target)
    sys.argv[1:] = request["args"]
    try:
        code = int(pytest.main(request["args"]))
    except BaseException:
        # As Python ends on one: pytest-benchmark raises what --benchmark-compare-fail finds.
        traceback.print_exc()
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def start(request):
    files = [tempfile.TemporaryFile("w+") for _ in range(2)]
    child = os.fork()
    if child == 0:
        code = 70
        try:
            code = run(request, *files)
        finally:
            os._exit(code)
    return child, files


def ended(child, files):
    status = os.waitpid(child, 0)[1]
    texts = [(file.seek(0), file.read(), file.close())[1] for file in files]
    return [os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status), *texts]


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    cpu_info()
    entry_points()
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        for name in json.loads(line)["loads"]:
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
        gc.freeze()
        request = json.loads(line)
        started = [start({**request, "env": env, "args": args}) for args, env in request["runs"]]
        print(json.dumps([ended(*one) for one in started]), file=sys.__stdout__, flush=True)
    return 0
"""


class Forks:
    """Runs, one after the other or together. Their process starts with the first of them, by `pytest` with `arguments`
    and `env` in a folder; without a folder, in an empty one, so that it has nothing of the suite."""

    def __init__(self, arguments: List[str], env: Dict[str, str], folder: Optional[Path] = None) -> None:
        self._arguments, self._env, self._folder = arguments, env, folder
        self._server: Any = None
        self._own = tempfile.TemporaryDirectory()

    def run(
        self, arguments: List[str], folder: Path, env: Dict[str, str], timeout_s: int, loads: Sequence[str] = ()
    ) -> Any:
        """The exit code and what was printed to standard output and to standard error. The run has `loads` loaded."""
        return self.run_together([(arguments, env)], folder, timeout_s, loads)[0]

    def run_together(
        self,
        runs: Sequence[Tuple[List[str], Dict[str, str]]],
        folder: Path,
        timeout_s: int,
        loads: Sequence[str] = (),
    ) -> Any:
        """The same of several runs at once, of arguments and environment each."""
        if self._server is None:
            self._start()
        request = {"runs": list(runs), "folder": str(folder), "timeout_s": timeout_s, "loads": list(loads)}
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        return json.loads(self._server.stdout.readline())

    def _start(self) -> None:
        (Path(self._own.name) / "forking.py").write_text(PLUGIN)
        self._server = subprocess.Popen(
            [sys.executable, "-m", "pytest", *self._arguments, "-p", "forking", "-s"],
            cwd=str(self._folder or self._own.name),
            env={**self._env, "PYTHONPATH": os.pathsep.join([self._own.name, self._env.get("PYTHONPATH", "")])},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        atexit.register(self.close)

    def close(self) -> None:
        if self._server is not None:
            self._server.communicate()
            self._server = None
            self._own.cleanup()

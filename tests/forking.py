"""Runs of a copy of the suite that each take a fork of one process, which has loaded the suite already.

Each has a process, a session, an environment and an exit code of its own, as one that `Suite.run` starts; it saves the
third of a second in which Python, pytest and the suite are imported. It does not see a changed PYTHONPATH.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any, Dict, List

from suite import TIMEOUT_S, Result, Suite, defaults

# Takes the place of a run: forks for each line of standard input.
PLUGIN = """
import json
import os
import signal
import sys
import tempfile

import pytest


def run(request, out, err):
    os.setsid()
    signal.alarm(request["timeout_s"])
    os.environ.update(request["env"])
    for target, file in enumerate([open(os.devnull), out, err]):
        os.dup2(file.fileno(), target)
    sys.argv[1:] = request["args"]
    code = pytest.main(request["args"])
    sys.stdout.flush()
    sys.stderr.flush()
    return int(code)


def pytest_cmdline_main(config):
    for line in sys.stdin:
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            child = os.fork()
            if child == 0:
                code = 70
                try:
                    code = run(json.loads(line), out, err)
                finally:
                    os._exit(code)
            status = os.waitpid(child, 0)[1]
            texts = [(file.seek(0), file.read())[1] for file in (out, err)]
        code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)
        print(json.dumps([code, *texts]), file=sys.__stdout__, flush=True)
    return 0
"""


class Forks:
    """Runs of one copy, one after the other. The process starts with the first of them."""

    def __init__(self, suite: Suite) -> None:
        self.suite = suite
        self._server: Any = None
        suite.add("forking.py", PLUGIN)

    def run(self, *args: str, **env: str) -> Result:
        """As `Suite.run`."""
        if self._server is None:
            command = [sys.executable, "-m", "pytest", *self.suite.paths, *defaults(()), "-p", "forking", "-s"]
            self._server = subprocess.Popen(
                command,
                cwd=str(self.suite.root),
                env=self.suite._environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        request: Dict[str, Any] = {"env": env, "timeout_s": int(TIMEOUT_S)}
        words: List[str] = [*self.suite.paths, *defaults(args), *args]
        self._server.stdin.write(json.dumps({**request, "args": words}) + "\n")
        self._server.stdin.flush()
        return Result(*json.loads(self._server.stdout.readline()))

    def close(self) -> None:
        if self._server is not None:
            self._server.communicate()

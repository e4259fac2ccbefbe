"""Workers, seen from the process that runs pytest: started when needed, kept warm, ended for certain.

A worker is an execnet gateway, kept for as long as its backend and settings stay the same, so that a
framework is imported once. It is a session of its own: killing its group takes its children along.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Dict, Mapping, Optional

import execnet

from bench import lease

Reply = Dict[str, Any]

START_TIMEOUT_S = 60.0
STDERR_LINES = 5

BOOT = """
spec = channel.receive()
import sys
sys.path.insert(0, spec["root"])
from bench import worker
worker.serve(channel, spec)
"""


class Died(Exception):
    """A worker ended, or was ended, in the middle of a request."""


class Worker:
    """One process. `request` asks it to do something and waits for the reply."""

    def __init__(self, group: Any, spec: Mapping[str, Any]) -> None:
        self.stderr = Path(spec["stderr"])
        self.gateway = group.makegateway("popen//execmodel=main_thread_only")
        # execnet has no public name for the process behind a gateway; its exit code is only there.
        self.process: subprocess.Popen[bytes] = self.gateway._io.popen
        self.channel = self.gateway.remote_exec(BOOT)
        self.channel.send(dict(spec))
        self._receive(time.monotonic() + START_TIMEOUT_S, START_TIMEOUT_S)

    def request(self, message: Mapping[str, Any], timeout_s: float, tell: Callable[[str], None]) -> Reply:
        """Return the reply. Raises Died when the worker ends or `timeout_s` passes; waiting for a
        device that somebody else holds does not count."""
        with contextlib.suppress(OSError):
            self.channel.send(dict(message))
        deadline = time.monotonic() + timeout_s
        waiting_since: Optional[float] = None
        while True:
            reply = self._receive(None if waiting_since else deadline, timeout_s)
            if waiting_since:
                deadline += time.monotonic() - waiting_since
                waiting_since = None
            if reply["kind"] != "phase":
                return reply
            if reply["phase"] == "waiting":
                waiting_since = time.monotonic()
            tell(reply["phase"])

    def kill(self) -> None:
        """End the process and its children now."""
        with contextlib.suppress(OSError):
            if os.getpgid(self.process.pid) == self.process.pid:
                os.killpg(self.process.pid, signal.SIGKILL)
        with contextlib.suppress(OSError):
            self.process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(10)

    def _receive(self, deadline: Optional[float], timeout_s: float) -> Reply:
        wait = None if deadline is None else max(0.0, deadline - time.monotonic())
        try:
            reply: Reply = self.channel.receive(wait)
            return reply
        except self.channel.TimeoutError:
            self.kill()
            raise Died(f"no result after {timeout_s:g} s (--case-timeout); the worker was killed") from None
        except (EOFError, self.channel.RemoteError) as error:
            raise Died(self._obituary(error)) from None

    def _obituary(self, error: Exception) -> str:
        try:
            code: Optional[int] = self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.kill()
            code = None
        if isinstance(error, EOFError) and code is not None and code < 0:
            hint = " (out of memory?)" if code == -signal.SIGKILL else ""
            how = f"was killed by {signal.Signals(-code).name}{hint}"
        elif isinstance(error, EOFError) and code is not None:
            how = f"exited with {code}"
        else:
            how = f"failed: {str(error).strip().splitlines()[-1]}"
        try:
            lines = self.stderr.read_text(errors="replace").splitlines()[-STDERR_LINES:]
        except OSError:
            lines = []
        return "\n".join([f"the worker {how}", *(f"  stderr: {line}" for line in lines)])


class Pool:
    """The workers of one run, by backend and settings."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.group = execnet.Group()
        self.workers: Dict[str, Worker] = {}
        self.folder = tempfile.TemporaryDirectory(prefix="layerbench-")

    def request(
        self,
        key: Mapping[str, Any],
        environment: Mapping[str, str],
        message: Mapping[str, Any],
        timeout_s: float,
        tell: Callable[[str], None] = lambda phase: None,
    ) -> Reply:
        """Send a request to the worker of `key` (with its `cores`), starting one where there is none.

        Raises Died, after which the key gets a new worker. Whatever else interrupts the wait, Ctrl-C
        above all, ends the worker too: it may be deep in a computation.
        """
        try:
            return self.start(key, environment, tell).request(message, timeout_s, tell)
        except BaseException:
            self.end(key)
            raise

    def start(
        self, key: Mapping[str, Any], environment: Mapping[str, str], tell: Callable[[str], None] = lambda phase: None
    ) -> Worker:
        """The worker of a key, started where there is none."""
        name = json.dumps(key, sort_keys=True)
        if name not in self.workers:
            tell("waiting")
            with lease.compiling(key["cores"]):
                tell("starting")
                self.workers[name] = Worker(self.group, self._spec(key, environment))
        return self.workers[name]

    def end(self, key: Mapping[str, Any]) -> None:
        """End the worker of a key, if there is one."""
        worker = self.workers.pop(json.dumps(key, sort_keys=True), None)
        if worker is not None:
            worker.kill()

    def end_all(self, name: str) -> None:
        """End the workers of a backend."""
        for text in list(self.workers):
            if json.loads(text)["name"] == name:
                self.end(json.loads(text))

    def close(self) -> None:
        """End every worker."""
        for worker in self.workers.values():
            worker.kill()
        self.workers.clear()
        self.group.terminate(timeout=1.0)
        self.folder.cleanup()

    def _spec(self, key: Mapping[str, Any], environment: Mapping[str, str]) -> Dict[str, Any]:
        handle, stderr = tempfile.mkstemp(dir=self.folder.name)
        os.close(handle)
        return {
            "root": str(self.root),
            "parent": os.getpid(),
            "environment": dict(environment),
            "cores": list(key["cores"]),
            "stderr": stderr,
        }

"""Workers, as the harness uses them: started when needed, reused, and always ended.

A worker is an execnet gateway. Cases of the same backend and settings share it, so that a framework is imported once.
It leads its own session: to kill its process group ends its children too.
"""

from __future__ import annotations

import contextlib
import json
import re
import signal
import time
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence

from bench.job import Pace
from bench.processes.host import START_TIMEOUT_S, Host, HostLost
from bench.processes.hosts import Hosts

Reply = Dict[str, Any]

# The last lines of a dead worker's stderr that are reported, and those in which a cause is searched for.
STDERR_LINES = 5
STDERR_SEARCHED = 2000
# How C++, TensorFlow's log, and Python's handler of faults begin a line that names the cause of an abort.
CAUSE = re.compile(r"terminate called|what\(\):|[Cc]heck failed|: F \w|\[(?:error|critical)\]|Fatal Python error")

BOOT = """
import os, sys
channel.send(os.getpid())
spec = channel.receive()
sys.path.insert(0, spec["root"])
# Before numpy is imported: it reads the number of its threads then.
os.environ.update(spec["environment"])
from bench.processes import worker
worker.serve(channel, spec)
"""


class Died(Exception):
    """A worker ended or was killed during a request."""


class Worker:
    """One process. `request` sends a message and waits for the reply."""

    def __init__(
        self, host: Host, environment: Mapping[str, str], cores: Sequence[int], variables: Mapping[str, str]
    ) -> None:
        self.host, self.stderr = host, host.file()
        self.channel = host.gateway(variables).remote_exec(BOOT)
        try:
            self.pid: int = self.channel.receive(START_TIMEOUT_S)
        except (EOFError, self.channel.TimeoutError):
            raise Died("the worker did not start") from None
        self._send(
            {
                "root": host.root,
                "parent": host.pid,
                "environment": dict(environment),
                "cores": list(cores),
                "stderr": self.stderr,
            }
        )
        self._receive(time.monotonic() + START_TIMEOUT_S, START_TIMEOUT_S)

    def request(
        self, message: Mapping[str, Any], timeout_s: float, tell: Callable[[str], None], pace: Optional[Pace] = None
    ) -> Reply:
        """Return the reply. Raises Died when the worker ends or `timeout_s` passes.

        The time in which the worker waits for a locked device, or for its turn, does not count.
        """
        self._send(dict(message))
        deadline = time.monotonic() + timeout_s
        waiting_since: Optional[float] = None
        while True:
            reply = self._receive(None if waiting_since else deadline, timeout_s)
            if waiting_since:
                deadline += time.monotonic() - waiting_since
                waiting_since = None
            if reply["kind"] == "turn" and pace is not None:
                asked = time.monotonic()
                self._send(pace(reply["block"]))
                deadline += time.monotonic() - asked
                continue
            if reply["kind"] != "phase":
                return reply
            if reply["phase"] == "waiting":
                waiting_since = time.monotonic()
            tell(reply["phase"])

    def kill(self) -> None:
        """Kill the process and its children."""
        with contextlib.suppress(HostLost):
            self.host.machine.end(self.pid)
            self.host.machine.exit_code(self.pid, 10.0)

    def _send(self, message: Any) -> None:
        """Send what the worker waits for. A worker that has ended gives no answer: `_receive` says how it ended."""
        with contextlib.suppress(OSError):
            self.channel.send(message)

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
        code: Optional[int] = self.host.machine.exit_code(self.pid, 5.0)
        if code is None:
            self.kill()
        if isinstance(error, EOFError) and code is not None and code < 0:
            hint = " (out of memory?)" if code == -signal.SIGKILL else ""
            how = f"was killed by {signal.Signals(-code).name}{hint}"
        elif isinstance(error, EOFError) and code is not None:
            how = f"exited with {code}"
        else:
            how = f"failed: {str(error).strip().splitlines()[-1]}"
        lines = told(self.host.machine.tail(self.stderr, STDERR_SEARCHED))
        return "\n".join([f"the worker {how}", *(f"  stderr: {line}" for line in lines)])


def told(lines: Sequence[str]) -> List[str]:
    """The lines of a dead worker's stderr that are reported: those that name a cause, and the last ones.

    A native abort prints its cause, and then dozens of frames.
    """
    last = list(lines[-STDERR_LINES:])
    causes = [line for line in lines[:-STDERR_LINES] if CAUSE.search(line)]
    return causes[-STDERR_LINES:] + last


class Pool:
    """The workers of one run, by backend and settings; or of one side of a pair.

    variables   of the environment in which the workers are started, in addition
    locked      this run holds the machine: to start a worker takes no lock
    """

    def __init__(self, hosts: Hosts, variables: Optional[Mapping[str, str]] = None, locked: bool = False) -> None:
        self.hosts, self.variables, self.locked = hosts, variables or {}, locked
        self.workers: Dict[str, Worker] = {}

    def request(
        self,
        key: Mapping[str, Any],
        environment: Mapping[str, str],
        message: Mapping[str, Any],
        timeout_s: float,
        tell: Callable[[str], None] = lambda phase: None,
        pace: Optional[Pace] = None,
    ) -> Reply:
        """Send a request to the worker of `key`, and start one if the key has none. A key holds its `cores`.

        Raises Died and HostLost; the next request gets a new worker, or a new host. Any other interruption, such as
        Ctrl-C, kills the worker too, since it may be computing.
        """
        try:
            return self.start(key, environment, tell).request(message, timeout_s, tell, pace)
        except HostLost:
            self.hosts.lose()
            raise
        except BaseException:
            self.end(key)
            raise

    def start(
        self, key: Mapping[str, Any], environment: Mapping[str, str], tell: Callable[[str], None] = lambda phase: None
    ) -> Worker:
        """The worker of a key; it is started if the key has none."""
        name, host = json.dumps(key, sort_keys=True), self.hosts.now()
        if name not in self.workers or self.workers[name].host is not host:
            tell("waiting")
            with contextlib.nullcontext() if self.locked else host.compiling(key["cores"]):
                tell("starting")
                cores = key.get("compile_cores") or key["cores"]
                self.workers[name] = Worker(host, environment, cores, self.variables)
        return self.workers[name]

    def end(self, key: Mapping[str, Any]) -> None:
        """Kill the worker of a key, if it has one."""
        worker = self.workers.pop(json.dumps(key, sort_keys=True), None)
        if worker is not None:
            worker.kill()

    def end_all(self, name: str) -> None:
        """Kill the workers of a backend."""
        for text in list(self.workers):
            if json.loads(text)["name"] == name:
                self.end(json.loads(text))

    def pause(self, paused: bool) -> None:
        """Stop all workers, or let them go on."""
        for worker in list(self.workers.values()):
            worker.host.machine.pause(worker.pid, paused)

    def close(self) -> None:
        """Kill all workers."""
        while self.workers:
            _, worker = self.workers.popitem()
            worker.kill()

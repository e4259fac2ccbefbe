"""Where workers run: on this machine, or on others that execnet reaches, with the suite's code sent there."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import tempfile
import threading
import zipfile
from pathlib import Path
from typing import Any, ContextManager, Dict, Iterator, List, Optional, Protocol, Sequence

import execnet

from bench import locks
from bench.group import Hub
from bench.processes import agent

START_TIMEOUT_S = 60.0
# How a process shows that it is not there, or not any more.
SILENT = (OSError, EOFError, execnet.TimeoutError)
WORKER = "popen//execmodel=main_thread_only"
# What of an execnet specification is left to the user.
KEYS = ("popen", "ssh", "python", "ssh_config", "nice", "chdir")
# A host that does not answer is gone: ssh asks every 5 s, three times, and never for a password.
SSH = "-o BatchMode=yes -o ConnectTimeout=10 -o ServerAliveInterval=5 -o ServerAliveCountMax=3"

BOOT = """
import io, shutil, sys, tempfile, zipfile
folder = tempfile.mkdtemp(prefix="layerbench-")
try:
    zipfile.ZipFile(io.BytesIO(channel.receive())).extractall(folder)
    sys.path.insert(0, folder)
    from bench.processes import agent
except BaseException:
    shutil.rmtree(folder)
    raise
channel.send(folder)
agent.heartbeat(channel, folder)
"""


class HostLost(Exception):
    """A host cannot be reached, or does not answer any more."""


class Rendezvous(Protocol):
    """A hub of replicas; see `bench.group.Hub`."""

    @property
    def waiting_for(self) -> List[int]: ...

    def place(self, rank: int) -> Dict[str, Any]: ...

    def close(self) -> None: ...


class Host(Protocol):
    """`name`: as the command line has it, empty for this machine. `root`: where the suite's code is there."""

    name: str
    root: str
    pid: int

    @property
    def facts(self) -> Dict[str, Any]:
        """What agent.facts says of it and of the devices that were asked for: to ask for others takes time."""

    def ask(self, question: str, *arguments: Any) -> Any:
        """The answer to one of agent.QUESTIONS. Raises ValueError where that does, and HostLost."""

    def gateway(self) -> Any:
        """A new process there, by execnet. Raises HostLost."""

    def file(self) -> str:
        """The path of a new file there, which goes with the host."""

    def compiling(self, cores: Sequence[int]) -> ContextManager[None]:
        """Leave to compile there."""

    def hub(self, count: int) -> Rendezvous:
        """Where replicas meet."""

    def close(self) -> None: ...


class LocalHost:
    """This machine and this interpreter."""

    name = ""

    def __init__(self, root: Path, devices: Sequence[str] = ("cpu",)) -> None:
        self._devices = list(devices)
        self.root, self.pid = str(root), os.getpid()
        self._group: Any = None
        self._folder: Optional[tempfile.TemporaryDirectory[str]] = None

    @functools.cached_property
    def facts(self) -> Dict[str, Any]:
        return agent.facts(self._devices)

    def ask(self, question: str, *arguments: Any) -> Any:
        return agent.QUESTIONS[question](*arguments)

    def gateway(self) -> Any:
        self._group = self._group or execnet.Group()
        return self._group.makegateway(WORKER)

    def file(self) -> str:
        self._folder = self._folder or tempfile.TemporaryDirectory(prefix="layerbench-")
        return agent.file(self._folder.name)

    def compiling(self, cores: Sequence[int]) -> ContextManager[None]:
        return locks.compiling(cores)

    def hub(self, count: int) -> Rendezvous:
        return Hub(count)

    def close(self) -> None:
        _end(self._group)
        if self._folder is not None:
            self._folder.cleanup()


class RemoteHost:
    """A host that execnet reaches, by its specification: `ssh=HOST` or `popen//python=FILE`. Raises HostLost."""

    def __init__(self, name: str, root: Path, devices: Sequence[str] = ("cpu",)) -> None:
        self.name, self._devices = name, list(devices)
        self._group = execnet.Group()
        self._folder = tempfile.TemporaryDirectory(prefix="layerbench-")
        self._log = f"{self._folder.name}/ssh.log"
        self._closed = threading.Event()
        try:
            self._agent = self._group.makegateway(_specification(name, self._log))
            self._life = self._agent.remote_exec(BOOT)
            self._life.send(_archive(root))
            self.root = self._life.receive(START_TIMEOUT_S)
            self.pid = self._life.receive(START_TIMEOUT_S)["pid"]
        except (*SILENT, AssertionError, execnet.HostNotFound, execnet.RemoteError) as error:
            why = self._why(error)
            self.close()
            raise HostLost(f"{name}: {why}") from None
        threading.Thread(target=self._pulse, daemon=True).start()

    @functools.cached_property
    def facts(self) -> Dict[str, Any]:
        return dict(self.ask("facts", self._devices))

    def ask(self, question: str, *arguments: Any) -> Any:
        with self._channel("serve") as channel:
            channel.send([question, *arguments])
            reply = channel.receive(START_TIMEOUT_S)
            if reply["kind"] == "refused":
                raise ValueError(reply["text"])
            return reply["value"]

    def gateway(self) -> Any:
        with self._gone():
            return self._group.makegateway(f"{WORKER}//via={self._agent.id}")

    def file(self) -> str:
        return str(self.ask("file", self.root))

    @contextlib.contextmanager
    def compiling(self, cores: Sequence[int]) -> Iterator[None]:
        with self._channel("hold") as channel:
            channel.send(list(cores))
            channel.receive()
            yield

    def hub(self, count: int) -> Rendezvous:
        with self._gone():
            return _RemoteRendezvous(self._exec("serve_rendezvous"), count)

    def close(self) -> None:
        self._closed.set()
        _end(self._group)
        self._folder.cleanup()

    def _exec(self, function: str) -> Any:
        return self._agent.remote_exec(f"from bench.processes import agent; agent.{function}(channel)")

    @contextlib.contextmanager
    def _channel(self, function: str) -> Iterator[Any]:
        """A thread of the agent, until the context ends."""
        with self._gone():
            channel = self._exec(function)
            try:
                yield channel
            finally:
                with contextlib.suppress(OSError):
                    channel.close()

    @contextlib.contextmanager
    def _gone(self) -> Iterator[None]:
        try:
            yield
        except SILENT as error:
            raise HostLost(f"the host {self.name} was cut off: {self._why(error)}") from None

    def _why(self, error: BaseException) -> str:
        said = [line for line in agent.tail(self._log, 5) if not line.startswith("Warning: Permanently added")]
        if isinstance(error, execnet.RemoteError):
            return str(error).strip().splitlines()[-1]
        if isinstance(error, execnet.TimeoutError):
            return f"no answer for {START_TIMEOUT_S:g} s"
        if said:
            return said[-1].strip()
        return "no answer" if hasattr(self, "pid") else "no Python of 3.8 or later starts there (//python=FILE)"

    def _pulse(self) -> None:
        while not self._closed.wait(agent.PULSE_S):
            try:
                self._life.send(None)
            except OSError:
                return


class _RemoteRendezvous:
    def __init__(self, channel: Any, count: int) -> None:
        self._channel = channel
        channel.send(count)
        self._place: Dict[str, Any] = channel.receive(START_TIMEOUT_S)

    @property
    def waiting_for(self) -> List[int]:
        try:
            self._channel.send("missing")
            return list(self._channel.receive(START_TIMEOUT_S))
        except SILENT:
            return []

    def place(self, rank: int) -> Dict[str, Any]:
        return {**self._place, "rank": rank}

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._channel.close()


def _end(group: Any) -> None:
    """End the processes of a group. One on a host that is gone is out of reach, and ends by itself."""
    while group:
        with contextlib.suppress(*SILENT):
            group.terminate(timeout=1.0)


def require_name(name: str) -> str:
    """Return a specification that can be one of a host. Raises ValueError."""
    try:
        given = execnet.XSpec(name)
    except (ValueError, AttributeError):
        given = None
    keys = [key for key in vars(given) if not key.startswith("_") and key != "env"] if given else []
    strange = [key for key in keys if key not in KEYS]
    if given is None or strange or bool(given.ssh) == bool(given.popen) or given.ssh is True:
        raise ValueError(f"{name!r}: ssh=HOST or popen is needed, and //python=FILE where it is not python3")
    return name


def _specification(name: str, log: str) -> str:
    """What execnet is told."""
    given = execnet.XSpec(name)
    parts = [part if not part.startswith("ssh=") else f"ssh={SSH} -E {log} {given.ssh}" for part in name.split("//")]
    if given.ssh and not given.python:
        parts.append("python=python3")
    return "//".join([*parts, "execmodel=thread", "id=agent"])


def _archive(root: Path) -> bytes:
    """The suite's code, as a zip file."""
    found = io.BytesIO()
    with zipfile.ZipFile(found, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted((root / "bench").rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                archive.write(str(path), str(path.relative_to(root)))
    return found.getvalue()

"""Hosts of workers: this machine, or another that execnet reaches and that receives a copy of the suite's code."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import shlex
import subprocess
import sys
import tempfile
import threading
import zipfile
from pathlib import Path
from typing import Any, Callable, ContextManager, Dict, Iterator, List, Mapping, Optional, Protocol, Sequence, cast

import execnet

from bench import locks
from bench.devices import load as load_device
from bench.group import Hub
from bench.processes import agent
from bench.processes.agent import Machine

START_TIMEOUT_S = 60.0
# The errors of a process that did not start, or has ended.
SILENT = (OSError, EOFError, execnet.TimeoutError)
WORKER = "popen//execmodel=main_thread_only"
# The keys of an execnet specification that a user may set.
KEYS = ("popen", "ssh", "python", "ssh_config", "nice", "chdir")
# ssh asks the host for a sign of life every 5 s, gives up after three, and never asks for a password.
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
    """A host cannot be reached, or no longer answers."""


class Rendezvous(Protocol):
    """A hub of replicas; see `bench.group.Hub`."""

    @property
    def waiting_for(self) -> List[int]: ...

    def place(self, rank: int) -> Dict[str, Any]: ...

    def close(self) -> None: ...


class Host(Protocol):
    """Where workers run.

    name      the host's specification on the command line; empty: this machine
    root      the folder of the suite's code on the host
    pid       the process that is the parent of the workers
    machine   what can be asked of the host. Each call raises HostLost, and ValueError where the method does
    """

    name: str
    root: str
    pid: int
    machine: Machine

    @property
    def facts(self) -> Dict[str, Any]:
        """`machine.facts` of the devices that this run uses, asked once."""

    def gateway(self, variables: Mapping[str, str]) -> Any:
        """A new process on the host, started with these variables, as an execnet gateway. Raises HostLost."""

    def file(self) -> str:
        """The path of a new file on the host, deleted when the host is closed."""

    def compiling(self, cores: Sequence[int]) -> ContextManager[None]:
        """Hold the host's lock for compiling on these cores."""

    def timing(self, device: str) -> ContextManager[None]:
        """Hold the host's lock for timing on this device."""

    def hub(self, count: int) -> Rendezvous:
        """A new hub for `count` replicas."""

    def close(self) -> None: ...


class LocalHost:
    """This machine and this interpreter."""

    name = ""

    def __init__(self, root: Path, devices: Sequence[str] = ("cpu",)) -> None:
        self._devices = list(devices)
        self.root, self.pid, self.machine = str(root), os.getpid(), Machine()
        self._group: Any = None
        self._folder: Optional[tempfile.TemporaryDirectory[str]] = None

    @functools.cached_property
    def facts(self) -> Dict[str, Any]:
        return self.machine.facts(self._devices)

    def gateway(self, variables: Mapping[str, str]) -> Any:
        self._group = self._group or execnet.Group()
        return self._group.makegateway(_started_with(variables, sys.executable))

    def file(self) -> str:
        self._folder = self._folder or tempfile.TemporaryDirectory(prefix="layerbench-")
        return self.machine.file(self._folder.name)

    def compiling(self, cores: Sequence[int]) -> ContextManager[None]:
        return locks.compiling(cores)

    def timing(self, device: str) -> ContextManager[None]:
        return load_device(device).lease()

    def hub(self, count: int) -> Rendezvous:
        return Hub(count)

    def close(self) -> None:
        _end(self._group)
        if self._folder is not None:
            self._folder.cleanup()


class RemoteHost:
    """A host that execnet reaches, by its specification: `ssh=HOST` or `popen//python=FILE`. Raises HostLost.

    revision   the commit whose code is sent to the host; empty: the code as it is
    """

    def __init__(self, name: str, root: Path, devices: Sequence[str] = ("cpu",), revision: str = "") -> None:
        self.name, self._devices = name, list(devices)
        self.machine = cast(Machine, _RemoteMachine(self._ask))
        self._group = execnet.Group()
        self._folder = tempfile.TemporaryDirectory(prefix="layerbench-")
        self._log = f"{self._folder.name}/ssh.log"
        self._closed = threading.Event()
        archive = _archive_of(root, revision) if revision else _archive(root)
        try:
            self._agent = self._group.makegateway(_specification(name, self._log))
            self._life = self._agent.remote_exec(BOOT)
            self._life.send(archive)
            self.root = self._life.receive(START_TIMEOUT_S)
            started = self._life.receive(START_TIMEOUT_S)
            self.pid, self._python = started["pid"], started.get("python", "")
        except (*SILENT, AssertionError, execnet.HostNotFound, execnet.RemoteError) as error:
            why = self._why(error)
            self.close()
            raise HostLost(f"{name}: {why}") from None
        threading.Thread(target=self._pulse, daemon=True).start()
        if not self._python:
            self.close()
            raise ValueError(f"the code of revision {revision} is too old: it cannot be timed in turns with another")

    @functools.cached_property
    def facts(self) -> Dict[str, Any]:
        return self.machine.facts(self._devices)

    def _ask(self, question: str, *arguments: Any) -> Any:
        """The result of a method of the host's Machine."""
        with self._channel("serve") as channel:
            with self._cut_off():
                channel.send([question, *arguments])
                reply = channel.receive(START_TIMEOUT_S)
            if reply["kind"] == "refused":
                raise ValueError(reply["text"])
            return reply["value"]

    def gateway(self, variables: Mapping[str, str]) -> Any:
        with self._cut_off():
            return self._group.makegateway(f"{_started_with(variables, self._python)}//via={self._agent.id}")

    def file(self) -> str:
        return self.machine.file(self.root)

    def compiling(self, cores: Sequence[int]) -> ContextManager[None]:
        return self._held("hold", list(cores))

    def timing(self, device: str) -> ContextManager[None]:
        return self._held("hold_device", device)

    @contextlib.contextmanager
    def _held(self, function: str, what: Any) -> Iterator[None]:
        """Hold a lock of the host by a function of the agent."""
        with self._channel(function) as channel:
            with self._cut_off():
                channel.send(what)
                channel.receive()
            yield

    def hub(self, count: int) -> Rendezvous:
        with self._cut_off():
            return _RemoteRendezvous(self._exec("serve_rendezvous"), count)

    def close(self) -> None:
        self._closed.set()
        _end(self._group)
        self._folder.cleanup()

    def _exec(self, function: str) -> Any:
        return self._agent.remote_exec(f"from bench.processes import agent; agent.{function}(channel)")

    @contextlib.contextmanager
    def _channel(self, function: str) -> Iterator[Any]:
        """A channel to a function that runs in a thread of the agent until the context ends."""
        with self._cut_off():
            channel = self._exec(function)
        try:
            yield channel
        finally:
            with contextlib.suppress(OSError):
                channel.close()

    @contextlib.contextmanager
    def _cut_off(self) -> Iterator[None]:
        try:
            yield
        except SILENT as error:
            raise HostLost(f"the host {self.name} was cut off: {self._why(error)}") from None

    def _why(self, error: BaseException) -> str:
        lines = [line for line in Machine.tail(self._log, 5) if not line.startswith("Warning: Permanently added")]
        if isinstance(error, execnet.RemoteError):
            return str(error).strip().splitlines()[-1]
        if isinstance(error, execnet.TimeoutError):
            return f"no answer for {START_TIMEOUT_S:g} s"
        if lines:
            return lines[-1].strip()
        return "no answer" if hasattr(self, "pid") else "no Python of 3.8 or later starts there (//python=FILE)"

    def _pulse(self) -> None:
        while not self._closed.wait(agent.PULSE_S):
            try:
                self._life.send(None)
            except OSError:
                return


class _RemoteMachine:
    """Sends each call of a method of Machine to the host."""

    def __init__(self, ask: Callable[..., Any]) -> None:
        self._ask = ask

    def __getattr__(self, method: str) -> Callable[..., Any]:
        return functools.partial(self._ask, method)


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
    """End the processes of a group. Those of a lost host are out of reach; they end by themselves."""
    while group:
        with contextlib.suppress(*SILENT):
            group.terminate(timeout=1.0)


def require_name(name: str) -> str:
    """Return the specification of a host. Raises ValueError if it is none."""
    try:
        spec = execnet.XSpec(name)
    except (ValueError, AttributeError):
        spec = None
    keys = [key for key in vars(spec) if not key.startswith("_") and key != "env"] if spec else []
    unknown = [key for key in keys if key not in KEYS]
    if spec is None or unknown or bool(spec.ssh) == bool(spec.popen) or spec.ssh is True:
        raise ValueError(f"{name!r}: ssh=HOST or popen is needed, and //python=FILE where it is not python3")
    return name


def _specification(name: str, log: str) -> str:
    """The specification that execnet gets, with the options of ssh."""
    spec = execnet.XSpec(name)
    parts = [part if not part.startswith("ssh=") else f"ssh={SSH} -E {log} {spec.ssh}" for part in name.split("//")]
    if spec.ssh and not spec.python:
        parts.append("python=python3")
    return "//".join([*parts, "execmodel=thread", "id=agent"])


def _started_with(variables: Mapping[str, str], python: str) -> str:
    """The specification of a worker. The variables are there when its process starts, for the loader and for the size
    of its environment."""
    if not variables:
        return WORKER
    texts = [shlex.quote(text) for text in ("env", *(f"{name}={value}" for name, value in variables.items()), python)]
    return f"{WORKER}//python={' '.join(texts)}"


def _archive_of(root: Path, revision: str) -> bytes:
    """The suite's code at a commit, as a zip file. Raises ValueError if git does not know it."""
    if revision.startswith("-"):
        raise ValueError(f"no code of revision {revision}: it is no name of a commit")
    git = ["git", "-C", str(root), "archive", "--format=zip", revision, "bench"]
    done = subprocess.run(git, capture_output=True)
    if done.returncode != 0:
        reason = done.stderr.decode(errors="replace").strip().splitlines()
        raise ValueError(f"no code of revision {revision}: {reason[0] if reason else 'git failed'}")
    return done.stdout


def _archive(root: Path) -> bytes:
    """The suite's code, as a zip file."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted((root / "bench").rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                archive.write(str(path), str(path.relative_to(root)))
    return buffer.getvalue()

"""What the harness asks of the machine on which its workers run: of itself, or of another host.

On another host, `heartbeat` keeps one process with the suite's code alive, and each question is a thread of it. When no
heartbeat of the harness arrives, the process ends its workers and itself: nothing computes on a host that was cut off.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import shutil
import signal
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence

from bench import backends, locks, selection, workloads
from bench import devices as device
from bench.backends._ipu import variables
from bench.cases.case import Case, Settings
from bench.cases.errors import Refused, Unavailable
from bench.clock import calibration
from bench.devices import cpu, cuda
from bench.group import Hub
from bench.real_data import material

# The harness says every PULSE_S that it is there. Whoever did not hear it for SILENCE_S is alone: long enough for a
# framework that does not let other threads run.
PULSE_S = 5.0
SILENCE_S = 30.0


def facts(devices: Sequence[str]) -> Dict[str, Any]:
    """The machine, those of its devices that are asked for (None: not there), and its software."""
    absent = {name: device.load(name).absent() for name in devices}
    return {
        "python": platform.python_version(),
        "cores": cpu.usable_cores(),
        "devices": {name: None if absent[name] else device.load(name).describe() for name in devices},
        "absent": absent,
        "versions": {name: _version(backends.load(name).package) for name in backends.names()},
        "machine": {
            "node": platform.node(),
            "processor": platform.processor(),
            "machine": platform.machine(),
            "python_compiler": platform.python_compiler(),
            "python_implementation": platform.python_implementation(),
            "python_implementation_version": platform.python_version(),
            "python_version": platform.python_version(),
            "python_build": list(platform.python_build()),
            "release": platform.release(),
            "system": platform.system(),
            "cpu": {"brand_raw": cpu.describe()["model"]},
        },
    }


def _version(package: str) -> str:
    """The version of an installed package, which need not have the name under which it is imported."""
    for name in (package, f"{package}-cpu", f"{package}-gpu"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(name)
    return ""


def require(case: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """Why a case cannot run here, or nothing. Raises ValueError where its workload does not load."""
    try:
        received = workloads.received(case)
        selection.require(received)
        material.require_readers(received, Settings(**settings))
    except Unavailable as error:
        return str(error)
    except Refused as error:
        raise ValueError(str(error)) from None
    return ""


def require_images(case: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Raise ValueError where the folder of images does not have what a case needs."""
    material.require(workloads.received(case), Settings(**settings))


def environment(name: str, settings: Mapping[str, Any], device_name: str) -> Dict[str, str]:
    """The variables that a worker of a backend needs."""
    return backends.load(name).environment(Settings(**settings), device_name)


def require_poplar(settings: Mapping[str, Any]) -> None:
    """Raise ValueError where Poplar's environment contradicts the settings."""
    variables.environment(Settings(**settings), os.environ)
    variables.tf_flags([], os.environ)


def computed_peak(case: Mapping[str, Any], settings: Mapping[str, Any]) -> Dict[str, Any]:
    """What the devices of a case could do together, where no worker is needed to tell."""
    computed = device.load(case["device"]).computed_peak
    return computed(Case(**case), Settings(**settings)) if computed is not None else {}


def file(folder: str) -> str:
    """A new file for what a worker says."""
    handle, path = tempfile.mkstemp(dir=folder)
    os.close(handle)
    return path


def tail(path: str, lines: int) -> List[str]:
    """The last lines of a file; none where there is none."""
    try:
        return Path(path).read_text(errors="replace").splitlines()[-lines:]
    except OSError:
        return []


def end(pid: int) -> None:
    """End a child process, and the children of one that leads a group of its own."""
    with contextlib.suppress(OSError):
        if os.getpgid(pid) == pid:
            os.killpg(pid, signal.SIGKILL)
    with contextlib.suppress(OSError):
        os.kill(pid, signal.SIGKILL)


def exit_code(pid: int, timeout_s: float) -> Optional[int]:
    """What a child process ended with, as subprocess has it; None while it runs."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            found, status = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:  # somebody else has asked
            return 0
        if found:
            return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        if time.monotonic() > deadline:
            return None
        time.sleep(0.01)


QUESTIONS: Dict[str, Callable[..., Any]] = {
    **{question.__name__: question for question in (facts, require, require_images, environment, require_poplar)},
    **{question.__name__: question for question in (computed_peak, file, tail, end, exit_code)},
    "gpus": cuda.visible,
    "calibration": calibration.known,
    "keep_peak": calibration.keep_peak,
    "exists": os.path.exists,
    "is_file": os.path.isfile,
}


def heartbeat(channel: Any, folder: str) -> None:
    """Be there for as long as the harness says that it is; then end this process, its children and its folder."""
    with contextlib.suppress(OSError):
        os.setsid()
    channel.send({"kind": "ready", "pid": os.getpid()})
    try:
        while True:
            try:
                channel.receive(SILENCE_S)
            except channel.TimeoutError:
                # Perhaps it was this process that did not listen: what came meanwhile is there in a moment.
                channel.receive(PULSE_S)
    except (EOFError, channel.TimeoutError):
        pass
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        # The children have asked the kernel to end them with this process.
        os._exit(0)


def serve(channel: Any) -> None:
    """Answer one question, a list of its name and arguments."""
    question, *arguments = channel.receive()
    try:
        channel.send({"kind": "answer", "value": QUESTIONS[question](*arguments)})
    except ValueError as error:
        channel.send({"kind": "refused", "text": str(error)})


def hold(channel: Any) -> None:
    """Hold leave to compile on some cores, until the other side lets go."""
    with locks.compiling(channel.receive()):
        channel.send("held")
        channel.waitclose()


def serve_rendezvous(channel: Any) -> None:
    """Be the hub of replicas, until the other side lets go; tell whom they wait for, whenever asked."""
    hub = Hub(channel.receive())
    with contextlib.closing(hub):
        channel.send(hub.place(0))
        for _ in channel:
            channel.send(hub.waiting_for)

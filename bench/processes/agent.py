"""The machine on which workers run, as the harness asks it: this one, or another host.

On another host, `heartbeat` keeps one process with the suite's code alive, and each question is a thread of it. When no
heartbeat of the harness arrives, the process ends its workers and itself: a host that was cut off computes nothing.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence

from bench import backends, calibration, locks, quota, selection, workloads
from bench import devices as device
from bench.backends._ipu import variables
from bench.cases.case import Case, Settings
from bench.cases.errors import Refused, Unavailable
from bench.devices import cpu, cuda
from bench.group import Hub
from bench.real_data import material

# The harness sends a heartbeat every PULSE_S. After SILENCE_S without one it is lost. That is long enough for a
# framework that does not let other threads run.
PULSE_S = 5.0
SILENCE_S = 30.0


class Machine:
    """What the harness asks of the machine of the workers; arguments and results are plain data.

    Raises ValueError for what the user must mend.
    """

    @staticmethod
    def facts(devices: Sequence[str]) -> Dict[str, Any]:
        """The machine, its devices of these names (None: not present), and the versions of its software."""
        absent = {name: device.load(name).absent() for name in devices}
        return {
            "python": platform.python_version(),
            "cores": cpu.usable_cores(),
            "quota": quota.cores(),
            "devices": {name: None if absent[name] else device.load(name).describe() for name in devices},
            "absent": absent,
            "versions": {name: backends.installed(name) for name in backends.names()},
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

    @staticmethod
    def require(case: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
        """Why a case cannot run here, or nothing. Raises ValueError if its workload does not load."""
        try:
            received = workloads.received(case)
            selection.require(received)
            material.require_readers(received, Settings(**settings))
        except Unavailable as error:
            return str(error)
        except Refused as error:
            raise ValueError(str(error)) from None
        return ""

    @staticmethod
    def require_images(case: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        """Raise ValueError if the folder lacks the images that a case needs."""
        material.require(workloads.received(case), Settings(**settings))

    @staticmethod
    def environment(name: str, settings: Mapping[str, Any], device_name: str) -> Dict[str, str]:
        """The environment variables that a worker of a backend needs."""
        return backends.load(name).environment(Settings(**settings), device_name)

    @staticmethod
    def require_poplar(settings: Mapping[str, Any]) -> None:
        """Raise ValueError if Poplar's environment variables contradict the settings."""
        variables.environment(Settings(**settings), os.environ)
        variables.tf_flags([], os.environ)

    @staticmethod
    def computed_peak(case: Mapping[str, Any], settings: Mapping[str, Any]) -> Dict[str, Any]:
        """The peak of all devices of a case, if it can be computed without a worker; else empty."""
        compute = device.load(case["device"]).computed_peak
        return compute(Case(**case), Settings(**settings)) if compute is not None else {}

    @staticmethod
    def file(folder: str) -> str:
        """The path of a new file for a worker's standard error."""
        handle, path = tempfile.mkstemp(dir=folder)
        os.close(handle)
        return path

    @staticmethod
    def tail(path: str, lines: int) -> List[str]:
        """The last lines of a file; none if it cannot be read."""
        try:
            return Path(path).read_text(errors="replace").splitlines()[-lines:]
        except OSError:
            return []

    @staticmethod
    def end(pid: int) -> None:
        """Kill a child process, and its process group if it leads one."""
        with contextlib.suppress(OSError):
            if os.getpgid(pid) == pid:
                os.killpg(pid, signal.SIGKILL)
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)

    @staticmethod
    def pause(pid: int, paused: bool) -> None:
        """Stop a child process with its process group, or let it go on."""
        with contextlib.suppress(OSError):
            os.killpg(pid, signal.SIGSTOP if paused else signal.SIGCONT)

    @staticmethod
    def exit_code(pid: int, timeout_s: float) -> Optional[int]:
        """The exit code of a child process, as in subprocess: negative for a signal. None: it still runs."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                ended, status = os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:  # another thread has collected it
                return 0
            if ended:
                return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
            if time.monotonic() > deadline:
                return None
            time.sleep(0.01)

    gpus = staticmethod(cuda.visible)
    known_calibration = staticmethod(calibration.known)
    uncalibrated = staticmethod(calibration.wanting)
    keep_canary = staticmethod(calibration.keep_canary)
    raise_peak = staticmethod(calibration.raise_peak)
    exists = staticmethod(os.path.exists)
    is_file = staticmethod(os.path.isfile)


def heartbeat(channel: Any, folder: str) -> None:
    """Wait while heartbeats of the harness arrive; then end this process and its children, and delete its folder."""
    with contextlib.suppress(OSError):
        os.setsid()
    _outlive_workers()
    channel.send({"kind": "ready", "pid": os.getpid(), "python": sys.executable})
    try:
        while True:
            try:
                channel.receive(SILENCE_S)
            except channel.TimeoutError:
                # Perhaps this process was stopped: heartbeats that arrived meanwhile are received at once.
                channel.receive(PULSE_S)
    except (EOFError, channel.TimeoutError):
        pass
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        # The kernel ends the children with this process (PR_SET_PDEATHSIG).
        os._exit(0)


def _outlive_workers() -> None:
    """Drop what is written to a worker that has just ended; its end shows at the pipe from which it is read.

    In execnet 2.1.2 the thread that forwards messages to the workers fails at such a write, and the host is lost:
    `ChannelFactory._local_close` gets the text of an error for an error.
    """
    try:
        from execnet import gateway_base as execnet
    except ImportError:  # a host without execnet: the harness has sent its code
        import __main__ as execnet
    write = execnet.Popen2IO.write

    def write_if_alive(self: Any, data: bytes) -> None:
        with contextlib.suppress(BrokenPipeError):
            write(self, data)

    execnet.Popen2IO.write = write_if_alive


def serve(channel: Any) -> None:
    """Call one method of Machine: receive its name and arguments, send its result."""
    question, *arguments = channel.receive()
    try:
        channel.send({"kind": "answer", "value": getattr(Machine, question)(*arguments)})
    except ValueError as error:
        channel.send({"kind": "refused", "text": str(error)})


def hold(channel: Any) -> None:
    """Hold the lock for compiling on some cores until the channel is closed."""
    with locks.compiling(channel.receive()):
        channel.send("held")
        channel.waitclose()


def hold_device(channel: Any) -> None:
    """Hold a device, by its name, for timing until the channel is closed."""
    with device.load(channel.receive()).lease():
        channel.send("held")
        channel.waitclose()


def serve_rendezvous(channel: Any) -> None:
    """Be the hub of replicas until the channel is closed; each message asks for the ranks that are missing."""
    hub = Hub(channel.receive())
    with contextlib.closing(hub):
        channel.send(hub.place(0))
        for _ in channel:
            channel.send(hub.waiting_for)

"""Hosts to run workers on: each an sshd of ours in a network and with a name of its own, on this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import List, Optional

SSHD = shutil.which("sshd") or "/usr/sbin/sshd"
PORT = 2222


def missing() -> Optional[str]:
    """Why there can be none here, or None."""
    if not Path(SSHD).exists():
        return "no sshd (openssh-server)"
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return "networks of our own need root and iproute2"
    probe = f"layerbench{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", probe], stderr=subprocess.DEVNULL).returncode == 0
    subprocess.run(["ip", "netns", "delete", probe], stderr=subprocess.DEVNULL)
    return None if made else "networks cannot be made here"


class FarHost:
    """A host called `name`, the `number`-th of this test. `spec` is what --worker-host takes."""

    def __init__(self, name: str, number: int, folder: Path, cache: Path) -> None:
        self.name, self.folder, self.cache = name, folder, cache
        self.space = f"{name}{os.getpid()}"
        self.link = f"lb{os.getpid() % 10**6}n{number}"
        net = f"10.{200 + number}.{os.getpid() % 250}"
        self.address = f"{net}.2"
        folder.mkdir(parents=True)
        for kind in ("host", "user"):
            _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / kind))
        self._write_settings()
        _run("ip", "netns", "add", self.space)
        _run("ip", "link", "add", self.link, "type", "veth", "peer", "name", "far", "netns", self.space)
        _run("ip", "addr", "add", f"{net}.1/24", "dev", self.link)
        _run("ip", "link", "set", self.link, "up")
        for args in (["addr", "add", f"{self.address}/24", "dev", "far"], ["link", "set", "far", "up"]):
            _run("ip", "netns", "exec", self.space, "ip", *args)
        _run("ip", "netns", "exec", self.space, "ip", "link", "set", "lo", "up")
        Path("/run/sshd").mkdir(exist_ok=True)
        named = f'hostname {name}; exec {SSHD} -D -f "{folder}/sshd_config" -E "{folder}/sshd.log"'
        self.sshd = subprocess.Popen(["ip", "netns", "exec", self.space, "unshare", "--uts", "sh", "-c", named])
        self._await()

    @property
    def spec(self) -> str:
        return (
            f"ssh={self.name}//ssh_config={self.folder}/config//python={sys.executable}"
            f"//env:LAYERBENCH_CACHE={self.cache}"
        )

    def pids(self) -> List[int]:
        """The processes on this host, but for its sshd."""
        found = subprocess.run(["ip", "netns", "pids", self.space], stdout=subprocess.PIPE, text=True).stdout.split()
        return [pid for pid in map(int, found) if b"python" in _command(pid)]

    def cut_off(self) -> None:
        """Let no packet through any more: neither side is told."""
        _run("ip", "link", "set", self.link, "down")

    def remove(self) -> None:
        for pid in self.pids():
            os.kill(pid, 9)
        self.sshd.terminate()
        self.sshd.wait()
        subprocess.run(["ip", "link", "delete", self.link])
        subprocess.run(["ip", "netns", "delete", self.space])

    def _write_settings(self) -> None:
        (self.folder / "sshd_config").write_text(
            f"Port {PORT}\nHostKey {self.folder}/host\nAuthorizedKeysFile {self.folder}/user.pub\n"
            f"PidFile {self.folder}/pid\nStrictModes no\nUsePAM no\n"
        )
        (self.folder / "config").write_text(
            f"Host {self.name}\n HostName {self.address}\n Port {PORT}\n IdentityFile {self.folder}/user\n"
            " StrictHostKeyChecking no\n UserKnownHostsFile /dev/null\n"
        )

    def _await(self) -> None:
        deadline = time.monotonic() + 20
        while subprocess.run(
            ["ssh", "-F", f"{self.folder}/config", self.name, "true"], stderr=subprocess.DEVNULL
        ).returncode:
            assert time.monotonic() < deadline, (self.folder / "sshd.log").read_text()
            time.sleep(0.1)


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _run(*args: str) -> None:
    subprocess.run(args, check=True, stdin=subprocess.DEVNULL)

"""The hosts of a run: one in use, others that stand in for it, all of one kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence

from bench.processes.host import Host, HostLost, LocalHost, RemoteHost


class Hosts:
    """The host in use, and those that stand in for it when it is gone.

    names      as the command line has them; empty: this machine
    devices    the CPU, and what else is asked for
    backends   those of which all hosts must have the same version
    """

    def __init__(self, names: Sequence[str], root: Path, devices: Sequence[str], backends: Sequence[str]) -> None:
        self._devices, self._backends = devices, backends
        self.names, self._root = tuple(names), root
        self._left = list(names)
        self._gone: List[str] = []
        self._known: Optional[Dict[str, Any]] = None
        self._now: Optional[Host] = None if names else LocalHost(root, devices)

    def now(self) -> Host:
        """The host in use: where the last one was cut off, the same again if it can be reached, or else the next that
        is like it. Raises HostLost when none is left."""
        while self._now is None:
            if not self._left:
                start = "no host is left" if self._known else "--worker-host: no host can be reached"
                raise HostLost(f"{start}: {'; '.join(self._gone)}")
            try:
                self._now = self._like_the_first(RemoteHost(self._left[0], self._root, self._devices))
            except HostLost as error:
                self._gone.append(str(error))
                self._left.pop(0)
        return self._now

    def lose(self) -> None:
        """Let the host in use go."""
        if self._now is not None:
            self._now.close()
            self._now = None

    def _like_the_first(self, host: Host) -> Host:
        self._known = self._known or host.facts
        differs = difference(self._known, host.facts, self._backends)
        if differs:
            host.close()
            raise HostLost(f"{host.name} has changed: {differs}")
        return host


def difference(one: Mapping[str, Any], other: Mapping[str, Any], backends: Sequence[str]) -> str:
    """What of two hosts' facts makes their rates no rates of one machine; nothing where they are alike."""
    found = [f"{what} {one[what]} and {other[what]}" for what in ("python", "cores") if one[what] != other[what]]
    pairs = [(name, one["devices"][name], other["devices"].get(name)) for name in one["devices"]]
    pairs += [(name, one["versions"].get(name), other["versions"].get(name)) for name in backends]
    found += [f"{name} {here or 'none'} and {there or 'none'}" for name, here, there in pairs if here != there]
    return "; ".join(found)

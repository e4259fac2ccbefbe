"""The hosts of a run: one in use, and equal ones to replace it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence

from bench.processes.host import Host, HostLost, LocalHost, RemoteHost


class Hosts:
    """The host in use, and those that replace it when it is lost.

    names      specifications from the command line; empty: this machine
    devices    the CPU, and the other devices of the run
    backends   all hosts must have the same versions of these
    revision   the commit whose code the hosts run; empty: the code as it is
    """

    def __init__(
        self, names: Sequence[str], root: Path, devices: Sequence[str], backends: Sequence[str], revision: str = ""
    ) -> None:
        self._devices, self._backends, self._revision = devices, backends, revision
        self.names, self._root = tuple(names), root
        self._remaining = list(names)
        self._failures: List[str] = []
        self._first_facts: Optional[Dict[str, Any]] = None
        self._current: Optional[Host] = None if names else LocalHost(root, devices)

    def now(self) -> Host:
        """The host in use. A lost host is tried again first, then the next one that is equal to the first.

        Raises HostLost when none is left."""
        while self._current is None:
            if not self._remaining:
                start = "no host is left" if self._first_facts else "no host can be reached"
                raise HostLost(f"{start}: {'; '.join(self._failures)}")
            try:
                host = RemoteHost(self._remaining[0], self._root, self._devices, self._revision)
                self._current = self._require_equal(host)
            except HostLost as error:
                self._failures.append(str(error))
                self._remaining.pop(0)
        return self._current

    def lose(self) -> None:
        """Close the host in use; `now` opens the next."""
        if self._current is not None:
            self._current.close()
            self._current = None

    def _require_equal(self, host: Host) -> Host:
        self._first_facts = self._first_facts or host.facts
        text = difference(self._first_facts, host.facts, self._backends)
        if text:
            host.close()
            raise HostLost(f"{host.name} has changed: {text}")
        return host


def difference(first: Mapping[str, Any], second: Mapping[str, Any], backends: Sequence[str]) -> str:
    """The facts in which two hosts differ, so that their rates cannot be compared; empty if they are equal."""
    texts = [f"{key} {first[key]} and {second[key]}" for key in ("python", "cores") if first[key] != second[key]]
    facts = [(name, first["devices"][name], second["devices"].get(name)) for name in first["devices"]]
    facts += [(name, first["versions"].get(name), second["versions"].get(name)) for name in backends]
    texts += [f"{name} {left or 'none'} and {right or 'none'}" for name, left, right in facts if left != right]
    return "; ".join(texts)

"""Replicas of one case that agree: each is a process, and one of them, or the harness, is the hub.

`all` is the one operation: every member gives a value and gets everyone's, by rank. It is the start barrier, the vote
on how many steps there are, and the way of samples to rank 0; the gradients go through the framework's own engine.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener, wait
from typing import Any, Dict, List, Mapping, Optional, Protocol, Tuple

from bench.cases.errors import Lost

LOOPBACK = "127.0.0.1"


class Group(Protocol):
    """`rank` of `count`; `all` returns the values of all members, by rank. `host`: where rank 0 is.

    no_timeout   the others may take as long as they like, as whoever waits for a device does
    """

    rank: int
    count: int
    host: str

    def all_gather(self, value: Any, no_timeout: bool = False) -> List[Any]: ...

    def finish(self, reply: Any) -> List[Any]: ...


class _Alone:
    rank, count, host = 0, 1, LOOPBACK

    def all_gather(self, value: Any, no_timeout: bool = False) -> List[Any]:
        return [value]

    def finish(self, reply: Any) -> List[Any]:
        return [reply]


ALONE: Group = _Alone()


class Member:
    """One replica, connected to the hub. Raises Lost, naming the rank, when another one is.

    timeout_s   how long the others may take to come, each time; None: for ever
    """

    def __init__(self, place: Mapping[str, Any], timeout_s: Optional[float] = None, patience_s: float = 0.0) -> None:
        self.rank, self.count, self.host = int(place["rank"]), int(place["count"]), str(place["host"])
        self.timeout_s = timeout_s
        self._hub = _connected(place, patience_s)
        _send(self._hub, self.rank)

    def all_gather(self, value: Any, no_timeout: bool = False) -> List[Any]:
        return self._asked("step", value, None if no_timeout else self.timeout_s)

    def finish(self, reply: Any) -> List[Any]:
        """Say how a case ended here, and get how it ended everywhere. Whoever is in the middle of it meanwhile is told
        that this one is lost, and will end it too."""
        return self._asked("end", reply, self.timeout_s)

    def _asked(self, kind: str, value: Any, timeout_s: Optional[float]) -> List[Any]:
        try:
            _send(self._hub, [kind, value])
            if not self._hub.poll(timeout_s):
                raise Lost(f"no word of the other {self.count - 1} replicas for {timeout_s:g} s")
            kind, found = _receive(self._hub)
        except (EOFError, OSError):
            raise Lost("the other replicas are gone: the hub of their group has closed") from None
        if kind == "lost":
            raise Lost(f"replica {found} of {self.count} is gone")
        return list(found)

    def close(self) -> None:
        self._hub.close()


def _connected(place: Mapping[str, Any], patience_s: float) -> Connection:
    """A connection to the hub, which may not be there yet."""
    deadline = time.monotonic() + patience_s
    while True:
        try:
            return Client((place["host"], place["port"]), authkey=bytes.fromhex(place["key"]))
        except OSError as error:
            if time.monotonic() >= deadline:
                where = f"{place['host']}:{place['port']}"
                raise Lost(f"rank 0 of {place['count']} cannot be reached at {where}: {error.strerror}") from None
        time.sleep(0.1)


# Plain data only: a pickle of a stranger would be his program.
def _send(connection: Connection, value: Any) -> None:
    connection.send_bytes(json.dumps(value).encode())


def _receive(connection: Connection) -> Any:
    return json.loads(connection.recv_bytes())


class Hub:
    """Where the members of one group meet: a thread that hands everyone's value to everyone."""

    def __init__(self, count: int, host: str = LOOPBACK, port: int = 0, key: Optional[bytes] = None) -> None:
        self._count = count
        self._key = key or os.urandom(16)
        self._listener = Listener((host, port), backlog=count, authkey=self._key)
        self._members: Dict[int, Connection] = {}
        self._values: Dict[int, Any] = {}
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def place(self, rank: int) -> Dict[str, Any]:
        """What a member of that rank needs to know, as plain data."""
        host, port = self._address
        return {"rank": rank, "count": self._count, "host": host, "port": port, "key": self._key.hex()}

    @property
    def waiting_for(self) -> List[int]:
        """The ranks that the others wait for."""
        given = set(self._values)
        return [rank for rank in range(self._count) if rank not in given]

    def close(self) -> None:
        """End the group: whoever waits is told."""
        with contextlib.suppress(OSError):
            self._listener.close()
        for connection in list(self._members.values()):
            with contextlib.suppress(OSError):
                connection.close()

    @property
    def _address(self) -> Tuple[str, int]:
        host, port = self._listener.address
        return str(host), int(port)

    def _serve(self) -> None:
        with contextlib.suppress(OSError, EOFError):
            while len(self._members) < self._count:
                with contextlib.suppress(AuthenticationError):
                    connection = self._listener.accept()
                    self._members[_receive(connection)] = connection
            while True:
                self._round()

    def _round(self) -> None:
        """One value of each member, then all of them to each; whoever ends the case early waits until all have."""
        values = self._values = {}
        ends: Dict[int, Any] = {}
        while len(ends) < self._count:
            values.clear()
            self._collect(values, ends)
            if not ends:
                self._tell(["all", [value for _, value in sorted(values.items())]])
                return
            for rank in values:
                self._tell(["lost", min(ends)], rank)
        self._tell(["ended", [reply for _, reply in sorted(ends.items())]])

    def _collect(self, values: Dict[int, Any], ends: Dict[int, Any]) -> None:
        """A message of each member that has not ended."""
        while len(values) + len(ends) < self._count:
            waiting = {c: rank for rank, c in self._members.items() if rank not in values and rank not in ends}
            ready = wait(list(waiting))
            for connection, rank in waiting.items():
                if connection not in ready:
                    continue
                try:
                    kind, value = _receive(connection)
                except (EOFError, OSError):
                    self._tell(["lost", rank])
                    raise EOFError from None
                (ends if kind == "end" else values)[rank] = value

    def _tell(self, message: Any, only: Optional[int] = None) -> None:
        for rank, connection in self._members.items():
            if only in (None, rank):
                with contextlib.suppress(OSError):
                    _send(connection, message)

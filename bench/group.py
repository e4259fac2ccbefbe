"""Communication between the replicas of one case. Each replica is a process; rank 0, or the harness, runs the hub.

The one operation is all-gather: every member sends a value and receives the values of all, by rank. It serves as the
start barrier, agrees on the number of steps, and brings the samples to rank 0. Gradients do not go this way: the
framework's own all-reduce averages them.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener, wait
from typing import Any, Dict, List, Mapping, Optional, Protocol, Tuple

from bench.cases.errors import Lost

LOOPBACK = "127.0.0.1"


class Group(Protocol):
    """Member `rank` of a group of `count`. `host` is the address of rank 0.

    all_gather   returns the values of all members, by rank. With `no_timeout` it waits for ever: another member may
                 be waiting for a device
    finish       returns the replies of all members, by rank
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
    """One replica, connected to the hub. Raises Lost, with the rank, when another replica is lost.

    timeout_s   seconds that each operation waits for the other replicas; None: for ever
    patience_s  seconds during which connecting to the hub is tried again
    """

    def __init__(self, place: Mapping[str, Any], timeout_s: Optional[float] = None, patience_s: float = 0.0) -> None:
        self.rank, self.count, self.host = int(place["rank"]), int(place["count"]), str(place["host"])
        self.timeout_s = timeout_s
        self._hub = _connect(place, patience_s)
        _send(self._hub, self.rank)

    def all_gather(self, value: Any, no_timeout: bool = False) -> List[Any]:
        return self._exchange("step", value, None if no_timeout else self.timeout_s)

    def finish(self, reply: Any) -> List[Any]:
        """Send the reply of this replica, and return those of all. A member that is still running the case raises
        Lost, and then finishes too."""
        return self._exchange("end", reply, self.timeout_s)

    def _exchange(self, kind: str, value: Any, timeout_s: Optional[float]) -> List[Any]:
        try:
            _send(self._hub, [kind, value])
            if not self._hub.poll(timeout_s):
                raise Lost(f"no message from the other {self.count - 1} replicas for {timeout_s:g} s")
            kind, answer = _receive(self._hub)
        except (EOFError, OSError):
            raise Lost("the other replicas are gone: the hub of their group has closed") from None
        if kind == "lost":
            raise Lost(f"replica {answer} of {self.count} is gone")
        return list(answer)

    def close(self) -> None:
        self._hub.close()


def _connect(place: Mapping[str, Any], patience_s: float) -> Connection:
    """Connect to the hub, which may not listen yet. Raises Lost after `patience_s` seconds."""
    deadline = time.monotonic() + patience_s
    while True:
        try:
            return Client((place["host"], place["port"]), authkey=bytes.fromhex(place["key"]))
        except OSError as error:
            if time.monotonic() >= deadline:
                address = f"{place['host']}:{place['port']}"
                raise Lost(f"rank 0 of {place['count']} cannot be reached at {address}: {error.strerror}") from None
        time.sleep(0.1)


# JSON, not pickle: unpickling a message from a stranger could run any code.
def _send(connection: Connection, value: Any) -> None:
    connection.send_bytes(json.dumps(value).encode())


def _receive(connection: Connection) -> Any:
    return json.loads(connection.recv_bytes())


class Hub:
    """The server of one group: a thread that receives a value from each member and sends all of them to each."""

    def __init__(self, count: int, host: str = LOOPBACK, port: int = 0, key: Optional[bytes] = None) -> None:
        self._count = count
        self._key = key or os.urandom(16)
        self._listener = Listener((host, port), backlog=count, authkey=self._key)
        self._members: Dict[int, Connection] = {}
        self._values: Dict[int, Any] = {}
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def place(self, rank: int) -> Dict[str, Any]:
        """The arguments with which the member of that rank connects, as plain data."""
        host, port = self._address
        return {"rank": rank, "count": self._count, "host": host, "port": port, "key": self._key.hex()}

    @property
    def waiting_for(self) -> List[int]:
        """The ranks that have not sent their value yet."""
        arrived = set(self._values)
        return [rank for rank in range(self._count) if rank not in arrived]

    def close(self) -> None:
        """Close all connections. Members that wait raise Lost."""
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
        self._hang_up()

    def _hang_up(self) -> None:
        """Let members that still ask for an answer raise Lost at once. What was sent to them arrives before that."""
        for connection in list(self._members.values()):
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(connection.fileno())) as end:
                end.shutdown(socket.SHUT_WR)

    def _round(self) -> None:
        """One all-gather. A member that finishes the case early waits until all have finished."""
        values = self._values = {}
        replies: Dict[int, Any] = {}
        while len(replies) < self._count:
            values.clear()
            self._collect(values, replies)
            if not replies:
                self._broadcast(["all", [value for _, value in sorted(values.items())]])
                return
            for rank in values:
                self._broadcast(["lost", min(replies)], rank)
        self._broadcast(["ended", [reply for _, reply in sorted(replies.items())]])

    def _collect(self, values: Dict[int, Any], replies: Dict[int, Any]) -> None:
        """Receive one message from each member that has not finished."""
        while len(values) + len(replies) < self._count:
            waiting = {c: rank for rank, c in self._members.items() if rank not in values and rank not in replies}
            ready = wait(list(waiting))
            for connection, rank in waiting.items():
                if connection not in ready:
                    continue
                try:
                    kind, value = _receive(connection)
                except (EOFError, OSError):
                    self._broadcast(["lost", rank])
                    raise EOFError from None
                (replies if kind == "end" else values)[rank] = value

    def _broadcast(self, message: Any, only: Optional[int] = None) -> None:
        """Send a message to all members, or to rank `only`.

        Rank 0 is the last: it may run in this process, and its next step may be a call that waits for the other
        members and holds the GIL all the while, as TensorFlow's does when it joins a cluster.
        """
        for rank, connection in sorted(self._members.items(), reverse=True):
            if only in (None, rank):
                with contextlib.suppress(OSError):
                    _send(connection, message)

"""One side of a pair: fresh workers, and the case that is open in them, which is timed when it is this side's turn.

A case is sent to the workers in a thread. It compiles, is checked and warms up, and then asks for its turns.
"""

from __future__ import annotations

import queue
import threading
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

from bench.cases.case import Case, Settings
from bench.processes import dispatch
from bench.processes.hosts import Hosts
from bench.processes.pool import Pool, Reply

ENDED = 0


class Failed(Exception):
    """A case of a side ended before its turns were over. `reply` says how: wrong, died, unavailable, error, lost."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.get("text", "it gave a result before its turns were over"))
        self.reply = reply


class Side:
    """The workers of one side of a pair. They are new, and end with `close`.

    hosts      where they run. These have an agent: on the local host, a worker would end with the thread of its case
    variables  of the environment in which they start
    timeout_s  the longest time that a case may take, without its waits
    pinned     the cores that the user has chosen; see `dispatch.send`
    """

    def __init__(
        self,
        hosts: Hosts,
        variables: Mapping[str, str],
        timeout_s: float,
        pinned: Optional[Sequence[int]] = None,
    ) -> None:
        self._pool = Pool(hosts, variables, locked=True)
        self._timeout_s, self._pinned = timeout_s, pinned
        # What the thread of the case says: a block's seconds, its reply, or an error of the harness.
        self._said: queue.Queue[Tuple[str, Any]] = queue.Queue()
        self._turns: queue.Queue[int] = queue.Queue()
        self._asking = False

    def open(
        self, case: Case, settings: Settings, canary_s: Optional[Mapping[str, float]], tell: Callable[[str], None]
    ) -> float:
        """Compile, check and warm up a case. Returns the seconds of one sample.

        Raises Failed, and HostLost.
        """
        message = {
            "do": "case",
            "case": case.plain(),
            "settings": settings.plain(),
            "canary_s": canary_s,
            "paced": True,
        }
        self._said, self._turns = queue.Queue(), queue.Queue()
        threading.Thread(target=self._run, args=(case, settings, message, tell), daemon=True).start()
        return self._hear()[0]

    def block(self, samples: int) -> List[float]:
        """Time a block of samples, and return the seconds of a step in each. Raises Failed, and HostLost."""
        self._asking = False
        self._turns.put(samples)
        return self._hear()

    def end(self) -> Reply:
        """End the case that is open, and return its reply: a record, or what went wrong. Raises HostLost."""
        self._asking = False
        self._turns.put(ENDED)
        kind, said = self._said.get()
        if kind == "error":
            raise said
        reply: Dict[str, Any] = said
        return reply

    def pause(self, paused: bool) -> None:
        """Stop the workers, or let them go on."""
        self._pool.pause(paused)

    def end_workers(self) -> None:
        """Kill the workers. The next case gets new ones."""
        self._pool.close()
        if self._asking:
            self._asking = False
            self._turns.put(ENDED)

    def _run(self, case: Case, settings: Settings, message: Mapping[str, Any], tell: Callable[[str], None]) -> None:
        said, turns = self._said, self._turns

        def pace(block: List[float]) -> int:
            said.put(("block", block))
            return turns.get()

        try:
            reply = dispatch.send(self._pool, case, settings, message, self._timeout_s, self._pinned, tell, pace)
        except BaseException as error:  # noqa: BLE001 - it is raised in the thread that asked
            said.put(("error", error))
        else:
            said.put(("reply", reply))

    def _hear(self) -> List[float]:
        """The seconds of the block that the case has just timed."""
        kind, said = self._said.get()
        if kind == "error":
            raise said
        if kind == "reply":
            raise Failed(said)
        self._asking = True
        block: List[float] = said
        return block

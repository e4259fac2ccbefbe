"""What a fake IPU system holds, and its replicas: threads of which one runs at a time, each with variables of its own.

They take turns where they exchange something, and where they end.
"""

from __future__ import annotations

import threading
from typing import Any, Callable, Dict, List, Optional

from tensorflow import errors


class System:
    """The IPUs of this process; None: none are configured. Whether they run what is compiled; every variable made
    under a strategy; the present call; the options of products, convolutions, norms; whether streams
    are fetched ahead, and 16-bit numbers rounded stochastically."""

    ipus: Optional[int] = None
    executes = True
    variables: List[Any] = []
    run: Any = None
    products: Dict[str, str] = {}
    convolutions: Dict[str, str] = {}
    stable = False
    prefetches = True
    rounds = False


class Ended(BaseException):
    """Another replica failed."""


class Run:
    """One call: its replicas, and what they have put down for each other."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self.function, self.shards, self.turn = function, 1, 0
        self.condition = threading.Condition()
        self.started, self.done = {0}, set()
        self.error: Optional[BaseException] = None
        self.result: Any = None
        self.held: Dict[int, List[Any]] = {}
        self.rounds: Dict[int, int] = {}
        self.put: Dict[int, Dict[int, Any]] = {}
        self.began = [variable.numpy() for variable in System.variables]

    @property
    def replicas(self) -> int:
        assert System.ipus is not None
        if System.ipus % self.shards:
            raise errors.InvalidArgumentError(None, None, f"{System.ipus} IPUs are no multiple of {self.shards} shards")
        return System.ipus // self.shards

    def go(self) -> Any:
        """Run every replica to its end, this thread being the first of them."""
        System.run = self
        try:
            self._live(0)
            with self.condition:
                self.condition.wait_for(lambda: self.error or len(self.done) == self.replicas)
        finally:
            System.run = None
        if self.error:
            raise self.error
        if self.replicas > 1:
            self._restore(0)  # what the host reads
        return self.result

    def exchange(self, value: Any) -> List[Any]:
        """Return what each replica gave in its call of the same number."""
        me = self.turn
        number = self.rounds[me] = self.rounds.get(me, -1) + 1
        given = self.put.setdefault(number, {})
        given[me] = value
        while len(given) < self.replicas:
            self._pass_on(me)
        return [given[replica] for replica in range(self.replicas)]

    def _live(self, me: int) -> None:
        try:
            result = self.function()
            self.result = result if me == 0 else self.result
            self.done.add(me)
            self._pass_on(me)
        except Ended:
            return
        except BaseException as error:  # noqa: BLE001 - `go` raises it
            with self.condition:
                self.error = self.error or error
                self.condition.notify_all()

    def _pass_on(self, me: int) -> None:
        """Let the next replica run; come back when it is this one's turn again, if it has one."""
        count = self.replicas
        if count > 1:
            self.held[me] = [variable.numpy() for variable in System.variables]
        order = [(me + step) % count for step in range(1, count + 1)]
        following = next((one for one in order if one not in self.done), None)
        with self.condition:
            if following is not None and following != me:
                self._restore(following)
                self.turn = following
                if following not in self.started:
                    self.started.add(following)
                    threading.Thread(target=self._live, args=(following,), daemon=True).start()
            self.condition.notify_all()
            if me not in self.done:
                self.condition.wait_for(lambda: self.error or self.turn == me)
                if self.error:
                    raise Ended

    def _restore(self, replica: int) -> None:
        for variable, value in zip(System.variables, self.held.get(replica, self.began)):
            variable.assign(value)

"""The timed unit: one blocking call that handles a known number of items."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Mapping, Optional, Sequence

Arrays = Dict[str, Any]


@dataclass
class Program:
    """What a backend makes of a graph: one batch of one replica, behind plain functions.

    run          run one batch and return when the device is done; in `generated` data mode this
                 moves the host's arrays in and the result out as well
    feed         give it other batches: numpy arrays by name, in the graph's shapes; synthetic data
                 keeps the first resident, generated data takes one after the other
    outputs      of the last run, as float64 numpy arrays: `output` in the graph's shape, and `loss`
    weights      the trained weights, as float64 numpy arrays in the graph's layouts; None: no training
    load         replace the weights
    set_learning_rate   None: no training
    compute, held   the types found on real tensors: of the arithmetic, and of the weights
    batches      how many batches one `run` keeps in flight
    facts        how it was tuned, to be recorded and matched
    """

    run: Callable[[], None]
    feed: Callable[[Sequence[Mapping[str, Any]]], None]
    outputs: Callable[[], Arrays]
    compute: str
    held: str
    weights: Optional[Callable[[], Arrays]] = None
    load: Optional[Callable[[Mapping[str, Any]], None]] = None
    set_learning_rate: Optional[Callable[[float], None]] = None
    batches: int = 1
    facts: Dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Step:
    """`iterations` batches of `batch_items` items on each of `replicas` replicas, behind one call."""

    run: Callable[[], None]
    batch_items: int
    replicas: int = 1
    iterations: int = 1

    @property
    def items(self) -> int:
        return self.batch_items * self.replicas * self.iterations


def repeat(run: Callable[[], None], times: int) -> Callable[[], None]:
    """Return a call that runs `run` so many times, one after the other."""
    if times == 1:
        return run

    def repeated() -> None:
        for _ in range(times):
            run()

    return repeated


def throughput(items: int, seconds: float) -> float:
    """Return the rate, in items per second, of a step of `items` items that takes `seconds`.

    Raises ValueError when `seconds` is not positive: a clock that did not move is a broken
    measurement, and an infinite rate would pass every baseline.
    """
    if not seconds > 0:
        raise ValueError(f"a step of {items} items took {seconds} s; the clock did not move")
    return items / seconds

"""The timed unit: one blocking call that handles a known number of items."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Union

Arrays = Dict[str, Any]
# A sequence is taken round and round, an iterator as it comes.
Batches = Union[Sequence[Mapping[str, Any]], Iterator[Mapping[str, Any]]]


def turns(batches: Batches, native: Callable[[Mapping[str, Any]], Any]) -> Iterator[Any]:
    """The batches for one run after another, each made `native` once."""
    if isinstance(batches, Sequence):
        return itertools.cycle([native(batch) for batch in batches])
    return map(native, batches)


def resident(batches: Batches, count: int) -> List[Mapping[str, Any]]:
    """The `count` batches that synthetic data keeps on the device."""
    if isinstance(batches, Sequence):
        return [batches[index % len(batches)] for index in range(count)]
    return [next(batches) for _ in range(count)]


@dataclass
class Program:
    """What a backend makes of a graph: one batch of one replica, behind plain functions.

    run          run one batch and return when the device is done; in `generated` data mode this
                 moves the host's arrays in and the result out as well
    feed         give it other batches: numpy arrays by name, in the graph's shapes; synthetic data
                 keeps the first resident (with accumulation, so many), other data takes one after the
                 other, from a sequence round and round, from an iterator as they come
    outputs      of the last run, as float64 numpy arrays: `output` in the graph's shape, and `loss`
    weights      the trained weights, as float64 numpy arrays in the graph's layouts; None: no training
    load         replace the weights, and forget what an optimiser remembers
    set_learning_rate   None: no training
    compute, held   the types found on real tensors: of the arithmetic, and of the weights
    batches      how many batches one `run` keeps in flight
    compute_only in other data modes than synthetic: run on what is on the device already, moving nothing;
                 None: `run` does that
    predict      the logits of a batch as a trained network gives them, its norms at their running
                 statistics; None: what `run` computes is that
    latencies    seconds that each batch of the last run was in flight; None: as long as the run
    facts        how it was tuned, to be recorded and matched
    looped       one `run` does all batches of a step, on all replicas: the loop is the device's
    local        the same step without the exchange of gradients; None: there is none
    told         what the device says of the last run, to be recorded: cycles, latency
    close        let the device go; None: nothing is held
    source       measured; ipu_model or fake: no rate comes of it
    """

    run: Callable[[], None]
    feed: Callable[[Batches], None]
    outputs: Callable[[], Arrays]
    compute: str
    held: str
    weights: Optional[Callable[[], Arrays]] = None
    load: Optional[Callable[[Mapping[str, Any]], None]] = None
    set_learning_rate: Optional[Callable[[float], None]] = None
    batches: int = 1
    compute_only: Optional[Callable[[], None]] = None
    predict: Optional[Callable[[Mapping[str, Any]], Any]] = None
    latencies: Optional[Callable[[], List[float]]] = None
    facts: Dict[str, Any] = field(default_factory=dict)
    looped: bool = False
    local: Optional[Callable[[], None]] = None
    told: Optional[Callable[[], Dict[str, Any]]] = None
    close: Optional[Callable[[], None]] = None
    source: str = "measured"


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

"""What a backend makes of a graph, and the timed unit: one blocking call that handles a known number of items."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterable, Iterator, List, Mapping, Optional, Sequence, Tuple, Union

from bench.cases.case import Case, Settings
from bench.graph import Graph
from bench.group import ALONE, Group

Arrays = Dict[str, Any]
# A sequence is taken round and round, an iterator as it comes.
Batches = Union[Sequence[Mapping[str, Any]], Iterator[Mapping[str, Any]]]


class Program:
    """One batch of a graph on one replica, compiled. A backend derives a class from it.

    `started(inputs)` makes it ready: it feeds and runs once. What is timed is `run`.

    A backend always writes convert, keep, run_resident, outputs and dtypes; in training also weights, load
    and set_learning_rate. It writes latencies where `batches_in_flight` is above 1, and run_without_all_reduce where
    `group` has several members. What else there is has a default.

    group              replicas that average their gradients
    batches_per_update how many batches one run takes: those of one weight update
    compute_dtype      type of the arithmetic, found on real tensors
    weight_dtype       type of the weights, found on real tensors
    facts              how it was tuned, to be recorded and matched
    batches_in_flight  how many batches one run has on the device at once
    batches_per_step   batches behind one timed step: so many runs, or one where `device_loop`
    device_loop        one run does all batches of a step, on all replicas: the loop is the device's
    alone              timed with nobody beside on other cores, also with --parallel-timing
    source             measured; ipu_model or fake: no rate comes of it
    wait               blocks until the device is done; None: `run_resident` does
    """

    batches_in_flight = 1
    device_loop = False
    alone = False
    source = "measured"
    wait: Optional[Callable[[], None]] = None

    def __init__(self, graph: Graph, case: Case, settings: Settings, group: Group = ALONE) -> None:
        self.graph, self.case, self.settings, self.group = graph, case, settings, group
        self.training = case.mode == "training"
        self.synthetic = settings.data == "synthetic"
        self.batches_per_step = settings.batches_per_step
        self.batches_per_update = settings.recipe.batches_per_update(case.mode)
        self.compute_dtype = self.weight_dtype = ""
        self.facts: Dict[str, Any] = {}
        self.batches: Iterator[Any] = iter(())

    def started(self, inputs: Sequence[Mapping[str, Any]]) -> Program:
        """This program, after its first run, which also compiles what is compiled when it is first called."""
        self.feed(inputs)
        self.run()
        self.compute_dtype, self.weight_dtype = self.dtypes()
        return self

    # ---- what is called from outside -----------------------------------------------------------

    def feed(self, batches: Batches) -> None:
        """Give it other batches: numpy arrays by name, in the graph's shapes.

        Synthetic data keeps the first `batches_per_update` on the device. Other data takes one batch after the other,
        from a sequence round and round, from an iterator as they come.
        """
        if self.synthetic:
            self.keep(map(self.convert, resident(batches, self.batches_per_update)))
        else:
            self.batches = turns(batches, self.convert)

    @property
    def run(self) -> Callable[[], None]:
        """Run one batch, in training all those of an update, and return when the device is done.

        A property: whoever times it asks once, and no branch is in the timed path.
        """
        return self.blocking(self.run_resident if self.synthetic else self.run_moved)

    def run_moved(self) -> None:
        """Move the next batches to the device, run, and move the result to the host."""
        self.move_in(next(self.batches) for _ in range(self.batches_per_update))
        self.run_resident()
        self.copy_back()

    def blocking(self, call: Callable[[], None]) -> Callable[[], None]:
        """`call`, made to return when the device is done."""
        wait = self.wait
        if wait is None:
            return call

        def blocking() -> None:
            call()
            wait()

        return blocking

    def predict(self, batch: Mapping[str, Any]) -> Any:
        """The logits of a batch as a trained network gives them, its norms at their running statistics."""
        self.feed([batch])
        self.run()
        return self.outputs()["output"]

    # ---- what a backend writes -----------------------------------------------------------------

    def convert(self, batch: Mapping[str, Any]) -> Any:
        """A batch as the framework's arrays or tensors on the host, in its types and layouts."""
        raise NotImplementedError

    def keep(self, batches: Iterable[Any]) -> None:
        """Put `batches_per_update` converted batches on the device, for `run_resident`."""
        raise NotImplementedError

    def run_resident(self) -> None:
        """Run on what is on the device already, moving nothing."""
        raise NotImplementedError

    def outputs(self) -> Arrays:
        """Of the last run, as float64 numpy arrays: `output` in the graph's shape and, where there is one, `loss`."""
        raise NotImplementedError

    def dtypes(self) -> Tuple[str, str]:
        """The types found on real tensors after a run: of the arithmetic, and of the weights."""
        raise NotImplementedError

    # ---- in training ---------------------------------------------------------------------------

    def weights(self) -> Arrays:
        """The weights, as float64 numpy arrays in the graph's layouts."""
        raise NotImplementedError

    def load(self, weights: Mapping[str, Any]) -> None:
        """Replace the weights, and forget what an optimiser remembers."""
        raise NotImplementedError

    def set_learning_rate(self, rate: float) -> None:
        raise NotImplementedError

    def run_without_all_reduce(self) -> None:
        """`run`, but every replica moves its weights by its own gradients."""
        raise NotImplementedError

    # ---- what a backend may write --------------------------------------------------------------

    def move_in(self, batches: Iterable[Any]) -> None:
        """Put the batches of one timed run on the device."""
        self.keep(batches)

    def copy_back(self) -> None:
        """Move what the last run made to the host, unless it is there already."""

    def latencies(self) -> List[float]:
        """The seconds that each batch of the last run was in flight."""
        raise NotImplementedError

    def device_facts(self) -> Dict[str, Any]:
        """What the device says of the last run, to be recorded: cycles, latency."""
        return {}

    def release(self) -> None:
        """Let the device go."""


def turns(batches: Batches, convert: Callable[[Mapping[str, Any]], Any]) -> Iterator[Any]:
    """The batches for one run after another, each converted once."""
    if isinstance(batches, Sequence):
        return itertools.cycle([convert(batch) for batch in batches])
    return map(convert, batches)


def resident(batches: Batches, count: int) -> List[Mapping[str, Any]]:
    """The `count` batches that synthetic data keeps on the device."""
    if isinstance(batches, Sequence):
        return [batches[index % len(batches)] for index in range(count)]
    return [next(batches) for _ in range(count)]


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

"""A graph compiled by a backend, and the timed unit: one blocking call that processes a known number of items."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Callable, Dict, Iterable, Iterator, List, Mapping, Optional, Sequence, Tuple, Union

from bench.cases.case import Case, Settings
from bench.graph import Graph
from bench.group import ALONE, Group
from bench.profiling import Profile, Unprofiled

Arrays = Dict[str, Any]
# A sequence is repeated in a cycle. An iterator is consumed once.
Batches = Union[Sequence[Mapping[str, Any]], Iterator[Mapping[str, Any]]]


class Program:
    """A graph compiled for one replica. Each backend derives its own class.

    `started(inputs)` feeds it and runs it once. `run` is what is timed.

    Every backend implements convert, keep, run_resident, outputs and dtypes; for training also weights, load,
    set_learning_rate and predict. It implements latencies if `batches_in_flight` is above 1, and
    run_without_all_reduce if `group` has several members. Every other method has a default.

    group              the replicas that average their gradients
    batches_per_update the number of batches in one weight update, and so in one run
    compute_dtype      type of the arithmetic, read from tensors after a run
    weight_dtype       type of the weights, read from tensors after a run
    facts              the tuning, which is recorded, and which a baseline must match
    batches_in_flight  the number of batches that one run has on the device at once
    batches_per_step   the number of batches in one timed step: one run each, or one run for all if `device_loop`
    device_loop        one run processes all batches of a step on all replicas, in a loop on the device
    alone              no other case runs while this one is timed, even with --parallel-timing
    source             measured; or ipu_model or fake, which give no rate
    not_compiled       why the framework interprets what the tuning would compile; None: it does not
    wait               blocks until the device is done; None: `run_resident` blocks itself
    """

    batches_in_flight = 1
    device_loop = False
    alone = False
    source = "measured"
    not_compiled: Optional[str] = None
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
        self.first_steps_s: List[float] = []

    def started(self, inputs: Sequence[Mapping[str, Any]]) -> Program:
        """Run once, so that everything is compiled, and return the program itself."""
        self.feed(inputs)
        self.run_noted()
        self.compute_dtype, self.weight_dtype = self.dtypes()
        return self

    # ---- the interface to callers --------------------------------------------------------------

    def feed(self, batches: Batches) -> None:
        """Replace the input batches: numpy arrays by name, in the graph's shapes.

        Synthetic data puts the first `batches_per_update` batches on the device once. Other data moves new batches to
        the device in every run: a sequence is repeated in a cycle, an iterator is consumed.
        """
        if self.synthetic:
            self.keep(map(self.convert, resident(batches, self.batches_per_update)))
        else:
            self.batches = converted(batches, self.convert)

    @property
    def run(self) -> Callable[[], None]:
        """A call that processes one batch, or in training one weight update, and returns when the device is done.

        It is a property that the timing loop reads once, so that no branch is in the timed path.
        """
        return self.blocking(self.run_resident if self.synthetic else self.run_moved)

    def run_noted(self) -> None:
        """Run once. Of the first two runs, `first_steps_s` has the seconds."""
        run = self.run
        start = perf_counter()
        run()
        if len(self.first_steps_s) < 2:
            self.first_steps_s.append(perf_counter() - start)

    def run_moved(self) -> None:
        """Move the next batches to the device, process them, and move the result to the host."""
        self.move_in(next(self.batches) for _ in range(self.batches_per_update))
        self.run_resident()
        self.copy_back()

    def blocking(self, call: Callable[[], None]) -> Callable[[], None]:
        """A version of `call` that returns when the device is done."""
        wait = self.wait
        if wait is None:
            return call

        def blocking() -> None:
            call()
            wait()

        return blocking

    def predict(self, batch: Mapping[str, Any]) -> Any:
        """The logits of a batch in inference: norms use their running statistics. The default is for no training."""
        self.feed([batch])
        self.run()
        return self.outputs()["output"]

    # ---- what every backend implements ---------------------------------------------------------

    def convert(self, batch: Mapping[str, Any]) -> Any:
        """A batch as arrays or tensors on the host, in the types and layouts of the framework."""
        raise NotImplementedError

    def keep(self, batches: Iterable[Any]) -> None:
        """Put `batches_per_update` converted batches on the device, for `run_resident`."""
        raise NotImplementedError

    def run_resident(self) -> None:
        """Process the batches that are on the device, without moving any."""
        raise NotImplementedError

    def outputs(self) -> Arrays:
        """The results of the last run in float64: `output` in the graph's shape, and `loss` if the graph has one."""
        raise NotImplementedError

    def dtypes(self) -> Tuple[str, str]:
        """The types of the arithmetic and of the weights, read from tensors after a run."""
        raise NotImplementedError

    # ---- in training ---------------------------------------------------------------------------

    def weights(self) -> Arrays:
        """The weights, as float64 numpy arrays in the graph's layouts."""
        raise NotImplementedError

    def load(self, weights: Mapping[str, Any]) -> None:
        """Replace the weights, and reset the state of the optimiser."""
        raise NotImplementedError

    def set_learning_rate(self, rate: float) -> None:
        raise NotImplementedError

    def run_without_all_reduce(self) -> None:
        """`run`, but each replica updates its weights from its own gradients only."""
        raise NotImplementedError

    # ---- what a backend may override -----------------------------------------------------------

    def move_in(self, batches: Iterable[Any]) -> None:
        """Move the batches of one timed run to the device."""
        self.keep(batches)

    def copy_back(self) -> None:
        """Move the result of the last run to the host. The default is for results that are already there."""

    def latencies(self) -> List[float]:
        """The latency of each batch of the last run, in seconds."""
        raise NotImplementedError

    def compiles(self) -> int:
        """How often the framework has compiled or traced so far. The default is for frameworks that compile once, ahead
        of the first run."""
        return 0

    def device_facts(self) -> Dict[str, Any]:
        """Measurements by the device itself, to be recorded: cycles, latency."""
        return {}

    def profile(self, steps: int) -> Profile:
        """Run `steps` times under the profiler of the framework, after a step that warms it up.

        It is the last that happens to a program: afterwards it may be slower. Raises Unprofiled.
        """
        raise Unprofiled(f"{self.case.backend} on the {self.case.device} has no profiler that names operations")

    def release(self) -> None:
        """Release the device."""


def converted(batches: Batches, convert: Callable[[Mapping[str, Any]], Any]) -> Iterator[Any]:
    """The batches in the framework's types. A sequence is converted once, and then repeated in a cycle."""
    if isinstance(batches, Sequence):
        return itertools.cycle([convert(batch) for batch in batches])
    return map(convert, batches)


def resident(batches: Batches, count: int) -> List[Mapping[str, Any]]:
    """The first `count` batches, which synthetic data keeps on the device. A sequence that is too short is repeated."""
    if isinstance(batches, Sequence):
        return [batches[index % len(batches)] for index in range(count)]
    return [next(batches) for _ in range(count)]


@dataclass(frozen=True)
class Step:
    """One call that processes `iterations` batches of `batch_items` items on each of `replicas` replicas."""

    run: Callable[[], None]
    batch_items: int
    replicas: int = 1
    iterations: int = 1

    @property
    def items(self) -> int:
        return self.batch_items * self.replicas * self.iterations


def repeat(run: Callable[[], None], times: int) -> Callable[[], None]:
    """Return a function that calls `run` `times` times."""
    if times == 1:
        return run

    def repeated() -> None:
        for _ in range(times):
            run()

    return repeated


def throughput(items: int, seconds: float) -> float:
    """Return the rate, in items per second, of a step of `items` items that takes `seconds`.

    Raises ValueError if `seconds` is not positive. The clock did not advance, so the measurement is broken, and an
    infinite rate would pass every baseline.
    """
    if not seconds > 0:
        raise ValueError(f"a step of {items} items took {seconds} s; the clock did not move")
    return items / seconds

"""The contract of a file in pipelines/, and what every input pipeline can be asked without loading it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ContextManager, Protocol, Tuple, cast

from bench import registry
from bench.images.batches import Batches
from bench.images.dataset import Dataset
from bench.images.faults import one_line, require_packages

ERRORS = ("stop", "skip")


class Pipeline(Protocol):
    """PACKAGE: the framework that must be importable."""

    PACKAGE: str

    def open(
        self,
        dataset: Dataset,
        *,
        batch_size: int,
        image_size: int,
        workers: int,
        training: bool,
        seed: int,
        errors: str,
        repeat: bool,
        rest: bool = False,
        replica: int = 0,
        replicas: int = 1,
    ) -> ContextManager[Batches]:
        """Read, decode and cut images, in batches.

        dataset    counted: see bench/images/counting.py
        workers    so many processes or threads decode; 0: the caller does, and nothing runs ahead
        training   random parts, mirrored or not, of shuffled images; else the middle, in order. Both
                   are the same again with the same seed and workers
        errors     stop: the first BadImage ends it; skip: it is counted and left out
        repeat     for ever, with the rest of an epoch in the next one's first batch; else one pass,
                   and the rest is dropped
        rest       one pass ends with a batch of what is left, instead
        replica    of so many `replicas`, each of which gets its share of every epoch

        Raises Unavailable without a package, ValueError without a whole batch, and Stopped when a
        process dies. Leaving the context ends every process.
        """


def names() -> Tuple[str, ...]:
    return tuple(registry.names(__name__))


def load(name: str) -> Pipeline:
    """Import one input pipeline, without its framework."""
    return cast(Pipeline, registry.load(__name__, name))


@dataclass(frozen=True)
class Asked:
    """The arguments of `open`, judged when made: ValueError, in one line, for what makes no sense."""

    dataset: Dataset
    batch_size: int
    image_size: int
    workers: int
    training: bool
    seed: int
    errors: str
    repeat: bool
    rest: bool = False
    replica: int = 0
    replicas: int = 1

    def __post_init__(self) -> None:
        for name, least in {"batch_size": 1, "image_size": 1, "workers": 0, "seed": 0}.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)}; at least {least} is needed")
        if self.errors not in ERRORS:
            raise ValueError(f"errors={self.errors!r}; allowed are {' and '.join(ERRORS)}")
        if not 0 <= self.replica < self.replicas:
            raise ValueError(f"replica={self.replica} of {self.replicas}; they count from 0")
        count = self.dataset.count
        if count is None:
            raise ValueError(f"{one_line(self.dataset.root)} is not counted yet: see bench/images/counting.py")
        if not self.repeat and not self.rest and count < self.batch_size:
            raise ValueError(
                f"{one_line(self.dataset.root)} has {count} images, fewer than a batch of {self.batch_size};"
                " use a smaller batch, or repeat"
            )
        require_packages(self.dataset.format)

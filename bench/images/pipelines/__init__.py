"""The contract of a file in pipelines/, and the checks that need no framework."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ContextManager, Protocol, Tuple, cast

from bench import registry
from bench.images.dataset import Dataset
from bench.images.faults import BadImage, BadSet, one_line, require_packages

if TYPE_CHECKING:  # They import numpy.
    from bench.images.batches import Batches
    from bench.images.epoch import Part

ERRORS = ("stop", "skip")


class Pipeline(Protocol):
    """PACKAGE: the framework that it needs. A pipeline has the name of the backend whose pipeline it is."""

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
        """Read, decode and crop images, in batches.

        dataset    counted: see bench/images/counting.py
        workers    the number of decoding processes or threads; 0: the caller decodes, without prefetching
        training   random parts, mirrored or not, of shuffled images; else the centre, in order. The same
                   seed and workers give the same images and labels in the same order, in every pipeline
        errors     stop: the first BadImage is raised; skip: bad images are counted and skipped
        repeat     epochs without an end; the rest of an epoch is in the first batch of the next. Else one
                   pass, without the rest
        rest       the last batch of one pass is the rest, which may be smaller
        replica    the number of this replica among `replicas`, which share the images of each epoch

        Raises Unavailable if a package is missing, ValueError if the images do not fill a batch, and
        Stopped if a process dies. Leaving the context ends every process.
        """


def names() -> Tuple[str, ...]:
    return registry.names(__name__)


def load(name: str) -> Pipeline:
    """Import one input pipeline, without its framework."""
    return cast(Pipeline, registry.load(__name__, name))


@dataclass(frozen=True)
class Request:
    """The arguments of `open`. Raises ValueError, in one line, for invalid ones."""

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

    def part(self, worker: int, workers: int) -> Part:
        """The images that a worker of this replica reads.

        Batches are assigned to the replicas in turn, and those of a replica to its workers in turn.
        """
        from bench.images.epoch import Part  # imports numpy

        return Part(worker * self.replicas + self.replica, workers * self.replicas, self.batch_size)

    def stops(self, fault: BadImage) -> bool:
        """Whether a fault ends the pipeline; otherwise its image is skipped."""
        return self.errors == "stop" or isinstance(fault, BadSet)

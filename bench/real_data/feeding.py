"""Images for a network: batches of an input pipeline become the named inputs of its graph."""

from __future__ import annotations

import contextlib
import os
import platform
from typing import Any, Callable, Dict, Iterator, List, Tuple

import numpy as np

from bench.cases.case import Case, Settings
from bench.cases.errors import Lost
from bench.devices import cpu
from bench.graph import Graph, Node
from bench.group import ALONE, Group
from bench.images import Dataset, Stopped, pipelines
from bench.images.batches import Batches
from bench.images.pixels import normalised
from bench.real_data import material
from bench.training.mixing import Mix

Array = Any
Named = Dict[str, Array]
# Each image unmixed.
WHOLE = Mix(np.float32(1), (0,), np.float32(1), np.float32(1))
Pair = Tuple[Array, Array]


class Opened:
    """An iterator of batches (images, labels), opened. `facts`: what their rate depends on."""

    def __init__(self, batches: Batches, facts: Dict[str, Any]) -> None:
        self.batches = batches
        self.facts = facts
        self._first = [next(batches)]

    def __iter__(self) -> Iterator[Pair]:
        return self

    def __next__(self) -> Pair:
        return self._first.pop() if self._first else next(self.batches)

    @property
    def skipped(self) -> int:
        """The number of bad images skipped so far."""
        return self.batches.skipped.total


@contextlib.contextmanager
def images(
    case: Case,
    settings: Settings,
    dataset: Dataset,
    *,
    training: bool,
    size: int,
    once: bool = False,
    group: Group = ALONE,
) -> Iterator[Opened]:
    """Open the pipeline of a case's framework; each replica of a group gets its share of the images.

    once   True: one pass, whose last batch may be smaller. False: epochs without an end

    Decoding runs on cores that do not compute, if there are any. Raises ValueError, in one line, for bad images, and
    Unavailable if a package is missing.
    """
    others, workers = _decoding(settings, group)
    opened = pipelines.load(material.pipeline_of(case)).open(
        dataset,
        batch_size=case.batch_size,
        image_size=size,
        workers=workers,
        training=training,
        seed=0,
        errors=settings.data_errors,
        repeat=not once,
        rest=once,
        replica=group.rank,
        replicas=group.count,
    )
    with contextlib.ExitStack() as stack:
        # Decoding threads and processes start with the first batch, and stay on the cores on which they start.
        with _bound_to(others if workers else []):
            batches = Opened(
                stack.enter_context(opened), {"images": f"{dataset.format} {dataset.count}", "workers": workers}
            )
        yield batches


def _decoding(settings: Settings, group: Group) -> Tuple[List[int], int]:
    """The cores on which to decode, and the number of decoding processes or threads of this replica.

    Replicas on one machine share the cores on which none of them computes.
    """
    node = platform.node()
    computing = [cores for name, cores in group.all_gather([node, settings.cores]) if name == node]
    taken = {core for cores in computing for core in cores}
    others = [core for core in cpu.usable_cores() if core not in taken] or cpu.usable_cores()
    workers = max(1, len(others) // len(computing)) if settings.data_workers is None else settings.data_workers
    return others, workers


def in_lockstep(batches: Iterator[Named], group: Group) -> Iterator[Named]:
    """Yield each batch when all replicas have theirs; otherwise the others would wait for the gradients of one without.

    Raises the error of this replica's images, or Lost for that of another replica.
    """
    while True:
        batch: Named = {}
        errors: List[Exception] = []
        try:
            batch = next(batches)
        except (ValueError, Stopped) as error:
            errors.append(error)
        ready = group.all_gather(not errors)
        if errors:
            raise errors[0]
        if not all(ready):
            raise Lost(f"replica {ready.index(False)} of {group.count} has stopped: something is wrong with its images")
        yield batch


def named(
    graph: Graph, case: Case, settings: Settings, blended: bool = True, replica: int = 0
) -> Callable[[Pair], Named]:
    """Return a function from a batch of images (uint8) and labels to the inputs of `graph`.

    blended   True: mixed as the recipe draws it, with a generator per replica. False: unmixed, for scoring

    If the graph normalises the images, they stay uint8. Otherwise the host normalises them in float32, as
    `normalization_location` says. The function raises ValueError for a label beyond the classes of the network.
    """
    generator = np.random.default_rng(replica)
    inputs = {_role(node): (name, node) for name, node in graph.inputs.items()}
    mixing = settings.recipe.mixing

    def make(batch: Pair) -> Named:
        pictures, labels = batch
        name, node = inputs["images"]
        arrays = {name: _pixels(pictures, node, str(case.dimensions["normalization_location"]))}
        if "labels" in inputs:
            name, node = inputs["labels"]
            _require_classes(labels, node.attrs["count"])
            arrays[name] = labels
        if "shares" in inputs:
            mix = mixing.draw(generator, pictures.shape) if blended else WHOLE
            for role, value in (("shares", mix.weights), ("mixup", mix.coefficient), ("cutmix", mix.mask)):
                if role in inputs:
                    name, node = inputs[role]
                    arrays[name] = np.broadcast_to(value, node.shape)
        return arrays

    return make


def _role(node: Node) -> str:
    kind = node.attrs["values"]
    if kind == "unit":
        return "mixup" if node.shape[2:] == (1, 1) else "cutmix"
    return {"classes": "labels", "distribution": "shares"}.get(kind, "images")


def _pixels(pictures: Array, node: Node, location: str) -> Array:
    if node.attrs["values"] == "uint8":
        return pictures
    if node.attrs["values"] == "pixels":
        return pictures.astype(np.float32)
    return normalised(pictures) if location == "host" else pictures / np.float32(255)


def _require_classes(labels: Array, classes: int) -> None:
    if int(labels.max()) >= classes:
        raise ValueError(f"an image has label {int(labels.max())}, and the network {classes} classes; see --classes")


@contextlib.contextmanager
def _bound_to(cores: Any) -> Iterator[None]:
    """Bind this thread to some cores; threads and processes that it starts meanwhile inherit them."""
    if not cores or not hasattr(os, "sched_getaffinity"):
        yield
        return
    previous = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, previous)


def scored(
    predict: Callable[[Named], Array], batches: Iterator[Pair], make: Callable[[Pair], Named], batch_size: int
) -> Dict[str, Any]:
    """Return the top-1 and top-5 accuracy in percent, and the number of images.

    Raises ValueError for a label beyond the classes of the network.
    """
    top1, top5, count = 0, 0, 0
    for pictures, labels in batches:
        batch = pictures, labels
        if len(labels) < batch_size:
            # The last image fills up the batch, and counts once.
            full = np.minimum(np.arange(batch_size), len(labels) - 1)
            batch = pictures[full], labels[full]
        logits = predict(make(batch))[: len(labels)]
        _require_classes(labels, logits.shape[1])
        order = np.argsort(-logits, axis=1)[:, :5]
        top1 += int((order[:, 0] == labels).sum())
        top5 += int((order == labels[:, None]).any(axis=1).sum())
        count += len(labels)
    return {"top1_percent": 100 * top1 / count, "top5_percent": 100 * top5 / count, "images_scored": count}

"""Images for a network: from an input pipeline, as the inputs that its graph names."""

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
# All of an image's own, and nothing of its neighbours.
WHOLE = Mix(np.float32(1), (0,), np.float32(1), np.float32(1))
Pair = Tuple[Array, Array]


class Opened:
    """Batches of (images, labels), one after the other; `facts` is what their rate depends on."""

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
        """Bad images left out so far."""
        return self.batches.skipped.total


@contextlib.contextmanager
def images(
    case: Case,
    settings: Settings,
    found: Dataset,
    *,
    training: bool,
    size: int,
    once: bool = False,
    group: Group = ALONE,
) -> Iterator[Opened]:
    """Open the pipeline of a case's framework; each replica of a group gets its share of the images.

    once   one pass, whose last batch may be smaller; else epoch after epoch, without an end

    What decodes runs beside the cores that compute, where there are others. Raises ValueError, in one
    line, for what is wrong with the images, and Unavailable without a package.
    """
    others, workers = _decoding(settings, group)
    opened = pipelines.load(material.pipeline_of(case)).open(
        found,
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
        # What decodes starts with the first batch, at the latest, and stays on the cores that it started on.
        with _bound_to(others if workers else []):
            made = Opened(stack.enter_context(opened), {"images": f"{found.format} {found.count}", "workers": workers})
        yield made


def _decoding(settings: Settings, group: Group) -> Tuple[List[int], int]:
    """The cores on which to decode, and how many processes or threads of this replica do. Replicas of one machine
    share the cores on which none of them computes."""
    node = platform.node()
    there = [cores for other, cores in group.all_gather([node, settings.cores]) if other == node]
    taken = {core for cores in there for core in cores}
    others = [core for core in cpu.usable_cores() if core not in taken] or cpu.usable_cores()
    workers = max(1, len(others) // len(there)) if settings.data_workers is None else settings.data_workers
    return others, workers


def in_lockstep(batches: Iterator[Named], group: Group) -> Iterator[Named]:
    """The batches, each once all replicas have theirs: one that has none would let the others wait for its gradients.

    Raises what a replica's own images raise, and Lost in the others.
    """
    while True:
        batch: Named = {}
        fault: List[Exception] = []
        try:
            batch = next(batches)
        except (ValueError, Stopped) as error:
            fault.append(error)
        well = group.all_gather(not fault)
        if fault:
            raise fault[0]
        if not all(well):
            raise Lost(f"replica {well.index(False)} of {group.count} has stopped: something is wrong with its images")
        yield batch


def named(
    graph: Graph, case: Case, settings: Settings, blended: bool = True, replica: int = 0
) -> Callable[[Pair], Named]:
    """Return what makes the inputs of `graph` of a batch of images (uint8) and labels.

    blended   as the recipe draws it, each replica by itself; False: every image whole, as it is to be scored

    Bytes stay bytes where the graph normalises them; else the host does, in float32, as the program's
    `normalization_location` says. Raises ValueError for a label that the network has no class for.
    """
    generator = np.random.default_rng(replica)
    inputs = {_role(node): (name, node) for name, node in graph.inputs.items()}
    mixing = settings.recipe.mixing

    def make(batch: Pair) -> Named:
        pictures, labels = batch
        name, node = inputs["images"]
        found = {name: _pixels(pictures, node, str(case.dimensions["normalization_location"]))}
        if "labels" in inputs:
            name, node = inputs["labels"]
            _require_classes(labels, node.attrs["count"])
            found[name] = labels
        if "shares" in inputs:
            mix = mixing.draw(generator, pictures.shape) if blended else WHOLE
            for role, value in (("shares", mix.weights), ("mixup", mix.coefficient), ("cutmix", mix.mask)):
                if role in inputs:
                    name, node = inputs[role]
                    found[name] = np.broadcast_to(value, node.shape)
        return found

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
    """Start what is started within on some cores, then go back to our own."""
    if not cores or not hasattr(os, "sched_getaffinity"):
        yield
        return
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, own)


def scored(
    predict: Callable[[Named], Array], batches: Iterator[Pair], make: Callable[[Pair], Named], batch_size: int
) -> Dict[str, Any]:
    """Return the share of images whose label is the likeliest, and among the likeliest five, in percent.

    Raises ValueError for a label that the network has no class for.
    """
    hits, near, done = 0, 0, 0
    for pictures, labels in batches:
        given = pictures, labels
        if len(labels) < batch_size:
            # The last image is seen again and again until the batch is full: it counts once.
            full = np.minimum(np.arange(batch_size), len(labels) - 1)
            given = pictures[full], labels[full]
        logits = predict(make(given))[: len(labels)]
        _require_classes(labels, logits.shape[1])
        order = np.argsort(-logits, axis=1)[:, :5]
        hits += int((order[:, 0] == labels).sum())
        near += int((order == labels[:, None]).any(axis=1).sum())
        done += len(labels)
    return {"top1_percent": 100 * hits / done, "top5_percent": 100 * near / done, "images_scored": done}

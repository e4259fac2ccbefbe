"""Images for a network: from an input pipeline, as the inputs that its graph names."""

from __future__ import annotations

import contextlib
import os
from typing import Any, Callable, Dict, Iterator, Tuple

import numpy as np

from bench.case import Case, Settings
from bench.devices import cpu
from bench.graph import Graph, Node
from bench.images import Dataset, find, normalised, pipeline, samples
from bench.images.batches import Batches
from bench.mixing import Mix

Array = Any
Named = Dict[str, Array]
# All of an image's own, and nothing of its neighbours.
WHOLE = Mix(np.float32(1), (0,), np.float32(1), np.float32(1))
Pair = Tuple[Array, Array]


def dataset(settings: Settings, split: str) -> Dataset:
    """The images of a run: those asked for, or a small generated set in the cache folder."""
    return find(settings.data_dir, split) if settings.data_dir else samples.kept()


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
    case: Case, settings: Settings, found: Dataset, *, training: bool, repeat: bool, size: int
) -> Iterator[Opened]:
    """Open the pipeline of a case's framework.

    What decodes runs beside the cores that compute, where there are others. Raises ValueError, in one
    line, for what is wrong with the images, and Unavailable without a package.
    """
    chosen = "tensorflow" if case.backend == "tensorflow" else "torch"
    others = [core for core in cpu.usable_cores() if core not in settings.cores] or cpu.usable_cores()
    workers = len(others) if settings.data_workers is None else settings.data_workers
    opened = pipeline.load(chosen).open(
        found,
        batch_size=case.batch_size,
        image_size=size,
        workers=workers,
        training=training,
        seed=0,
        errors=settings.data_errors,
        repeat=repeat,
    )
    with contextlib.ExitStack() as stack:
        # What decodes starts with the first batch, at the latest, and stays on the cores that it started on.
        with _bound_to(others if workers else []):
            made = Opened(stack.enter_context(opened), {"images": f"{found.format} {found.count}", "workers": workers})
        yield made


def named(graph: Graph, case: Case, settings: Settings, blended: bool = True) -> Callable[[Pair], Named]:
    """Return what makes the inputs of `graph` of a batch of images (uint8) and labels.

    blended   as the recipe draws it; False: every image whole, as it is to be scored

    Bytes stay bytes where the graph normalises them; else the host does, in float32, as the program's
    `normalization_location` says. Raises ValueError for a label that the network has no class for.
    """
    generator = np.random.default_rng(0)
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
    predict: Callable[[Named], Array], batches: Iterator[Pair], make: Callable[[Pair], Named], count: int
) -> Dict[str, Any]:
    """Return the share of the first `count` images whose label is the likeliest, and among the likeliest five, in
    percent. Raises ValueError for a label that the network has no class for."""
    hits, near, done = 0, 0, 0
    while done < count:
        pictures, labels = next(batches)
        logits = predict(make((pictures, labels)))
        # What follows the last image, up to a whole batch, is not counted.
        kept = labels[: count - done]
        _require_classes(kept, logits.shape[1])
        order = np.argsort(-logits[: len(kept)], axis=1)[:, :5]
        hits += int((order[:, 0] == kept).sum())
        near += int((order == kept[:, None]).any(axis=1).sum())
        done += len(kept)
    return {"top1_percent": 100 * hits / done, "top5_percent": 100 * near / done, "images_scored": done}

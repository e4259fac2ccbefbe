"""torch's DataLoader: processes that read, decode with Pillow, and cut images.

Tars go through webdataset, TFRecords through bench/images/tfrecords.py. Each process makes whole
batches, which cross in shared memory; two of each are made ahead.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import re
import signal
import sys
from multiprocessing.process import BaseProcess
from typing import Any, Iterator, List, Optional

from bench.images.batches import Batches, Chunk
from bench.images.dataset import Dataset
from bench.images.faults import BadImage, Stopped, one_line, require_packages
from bench.images.pipelines import Asked

PACKAGE = "torch"
PREFETCHED = 2
# A worker that gives nothing for so long hangs, or its storage does.
SILENCE_S = 120.0
# For a worker to end by itself, after it was told to.
GRACE_S = 1.0
# For the news of its death to arrive.
NOTICE_S = 0.1

_DEAD = re.compile(r"DataLoader worker \(pid\(?s?\)? [\d, ]+\)")
_SILENT = "DataLoader timed out"
_HINTS = {signal.SIGKILL: " (out of memory?)", signal.SIGBUS: " (/dev/shm too small?)"}


@contextlib.contextmanager
def open(
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
) -> Iterator[Batches]:
    asked = Asked(dataset, batch_size, image_size, workers, training, seed, errors, repeat, rest, replica, replicas)
    require_packages(dataset.format, PACKAGE)
    before = set(multiprocessing.active_children())
    iterator = iter(_loader(asked))
    own = [process for process in multiprocessing.active_children() if process not in before]
    batches = Batches(dataset, _chunks(iterator, own), batch_size, repeat, rest)
    try:
        # torch tells of a dead worker by a signal, so wherever the caller happens to be.
        with _deaths_in_one_line(own):
            yield batches
    finally:
        batches.close()
        if workers:
            # Else it ends its workers when the last reference goes, and an error in flight holds one.
            iterator._shutdown_workers()
        _end(own)


def _loader(asked: Asked) -> Any:
    from torch.utils.data import DataLoader

    from bench.images.pipelines.torch.stream import Stream

    if not asked.workers:
        return DataLoader(Stream(asked), batch_size=None, collate_fn=_as_it_is)
    return DataLoader(
        Stream(asked),
        batch_size=None,
        collate_fn=_as_it_is,
        num_workers=asked.workers,
        prefetch_factor=PREFETCHED,
        timeout=SILENCE_S,
        # Started afresh, a worker would import torch first, and leave Python's tracker of resources behind.
        multiprocessing_context="fork" if sys.platform.startswith("linux") else None,
    )


def _as_it_is(chunk: Any) -> Any:
    return chunk


def _chunks(iterator: Any, own: List[BaseProcess]) -> Iterator[Chunk]:
    while True:
        with _deaths_in_one_line(own):
            found = next(iterator, None)
        if found is None:
            return
        images, labels, skipped, fault = found
        yield Chunk(images.numpy(), labels.numpy(), skipped, BadImage(*fault) if fault else None)


@contextlib.contextmanager
def _deaths_in_one_line(own: List[BaseProcess]) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, OSError, EOFError) as error:
        text = _obituary(error, own)
        if text is None:
            raise
        raise Stopped(text) from None


def _obituary(error: Exception, own: List[BaseProcess]) -> Optional[str]:
    """What became of a worker, in one line; None when the error is not about that."""
    text = str(error)
    if text.startswith(_SILENT):
        return f"no batch from the torch input pipeline for {SILENCE_S:g} s; a worker hangs, or its storage does"
    # Memory is handed over by a thread of the worker: where that is gone, the error is one of its socket.
    if isinstance(error, RuntimeError) and not _DEAD.match(text):
        return None
    for process in own:
        process.join(NOTICE_S)
        code = process.exitcode
        if code is not None and code < 0:
            how = f"was killed by {signal.Signals(-code).name}{_HINTS.get(signal.Signals(-code), '')}"
            return f"a worker of the torch input pipeline, process {process.pid}, {how}"
        if code:
            return f"a worker of the torch input pipeline, process {process.pid}, exited with {code}"
    return f"a worker of the torch input pipeline died: {one_line(text)}" if _DEAD.match(text) else None


def _end(own: List[BaseProcess]) -> None:
    for process in own:
        process.join(GRACE_S)
        if process.is_alive():
            process.kill()
            process.join()

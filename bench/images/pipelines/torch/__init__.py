"""torch's DataLoader: processes that read, decode with Pillow, and crop images.

Each process makes whole batches, two of them ahead, and passes them on in shared memory.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import signal
import sys
import time
from multiprocessing.process import BaseProcess
from typing import Any, Iterator, List, Optional

from bench import parent
from bench.images.batches import Batches, Chunk
from bench.images.dataset import Dataset
from bench.images.faults import Stopped, one_line, require_packages
from bench.images.pipelines import Request

PACKAGE = "torch"
PREFETCHED = 2
# A worker without a batch for this long hangs, or its storage does.
SILENCE_S = 120.0
# While it waits for a batch, torch looks this often whether a worker is dead. The kernel's signal alone is not enough:
# it is lost when a worker dies before torch has its handler, or just before torch begins to wait.
LOOK_S = 1.0
# The time that a worker has to end after it was asked to.
GRACE_S = 1.0
# The time in which the exit code of a dead worker arrives.
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
    request = Request(dataset, batch_size, image_size, workers, training, seed, errors, repeat, rest, replica, replicas)
    require_packages(dataset.format, PACKAGE)
    iterator = iter(_loader(request))
    # Those that are dead by now as well.
    processes: List[BaseProcess] = list(iterator._workers) if workers else []
    batches = Batches(request, _chunks(iterator, processes))
    try:
        # torch raises in a signal handler when a worker dies, so anywhere in the caller's code.
        with _deaths_in_one_line(processes):
            yield batches
    finally:
        batches.close()
        if workers:
            # Otherwise the iterator ends its workers with its last reference, and a pending exception holds one.
            iterator._shutdown_workers()
        _end(processes)


def _loader(request: Request) -> Any:
    from torch.utils.data import DataLoader

    from bench.images.pipelines.torch.stream import Stream

    if not request.workers:
        return DataLoader(Stream(request), batch_size=None, collate_fn=_identity)
    return DataLoader(
        Stream(request),
        batch_size=None,
        collate_fn=_identity,
        num_workers=request.workers,
        prefetch_factor=PREFETCHED,
        timeout=LOOK_S,
        # A worker whose parent is killed waits for ever until somebody reads its last batch.
        worker_init_fn=functools.partial(_end_with, os.getpid()),
        # A spawned worker would import torch first, and leave Python's resource tracker running.
        multiprocessing_context="fork" if sys.platform.startswith("linux") else None,
    )


def _end_with(pid: int, number: int) -> None:
    parent.end_with(pid)


def _identity(chunk: Any) -> Any:
    return chunk


def _chunks(iterator: Any, processes: List[BaseProcess]) -> Iterator[Chunk]:
    while True:
        with _deaths_in_one_line(processes):
            batch = _next(iterator)
        if batch is None:
            return
        images, labels, skipped, fault = batch
        yield Chunk(images.numpy(), labels.numpy(), skipped, fault)


def _next(iterator: Any) -> Any:
    """The next batch, or None. Raises torch's error of a timeout after SILENCE_S."""
    deadline_s = time.monotonic() + SILENCE_S
    while True:
        try:
            return next(iterator, None)
        except RuntimeError as error:
            # After its timeout, torch's iterator can be asked again.
            if not str(error).startswith(_SILENT) or time.monotonic() >= deadline_s:
                raise


@contextlib.contextmanager
def _deaths_in_one_line(processes: List[BaseProcess]) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, OSError, EOFError) as error:
        text = _obituary(error, processes)
        if text is None:
            raise
        raise Stopped(text) from None


def _obituary(error: Exception, processes: List[BaseProcess]) -> Optional[str]:
    """How a worker died or hung, in one line; None if the error has another cause."""
    text = str(error)
    if text.startswith(_SILENT):
        return f"no batch from the torch input pipeline for {SILENCE_S:g} s; a worker hangs, or its storage does"
    # A thread of the worker passes shared memory on. If the worker is dead, the error is that of a socket.
    if isinstance(error, RuntimeError) and not _DEAD.match(text):
        return None
    for process in processes:
        process.join(NOTICE_S)
        code = process.exitcode
        if code is not None and code < 0:
            how = f"was killed by {signal.Signals(-code).name}{_HINTS.get(signal.Signals(-code), '')}"
            return f"a worker of the torch input pipeline, process {process.pid}, {how}"
        if code:
            return f"a worker of the torch input pipeline, process {process.pid}, exited with {code}"
    return f"a worker of the torch input pipeline died: {one_line(text)}" if _DEAD.match(text) else None


def _end(processes: List[BaseProcess]) -> None:
    for process in processes:
        process.join(GRACE_S)
        if process.is_alive():
            process.kill()
            process.join()

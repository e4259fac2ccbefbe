"""The IPUs that the fakes pretend to have: FAKE_IPU_COUNT of them (4), FAKE_IPU_BUSY held by another process.

FAKE_IPU_WRONG breaks one thing, for a check to find: the results of a `replica`, those of an `iteration`, the mean of
gradients over replicas (`sum`) or over batches (`accumulation`), or the update (`step`); or batches that were fetched
ahead outlive a feed (`stale`). Not every fake can do each.
"""

from __future__ import annotations

import os
from typing import List, NamedTuple, Set, Tuple

ARCHITECTURE = "ipu2"
VERSION = 2
CLOCK_MHZ = 1330
TILES = 1472
# The process that holds what is busy.
OTHER = {"user process id": "4242", "user executable": "/usr/bin/other", "user name": "somebody"}


class Device(NamedTuple):
    """One id of `gc-info -l`, and the IPUs behind it."""

    id: int
    ipus: Tuple[int, ...]


def wrong(*kinds: str) -> bool:
    """Tell whether a test wants one of these to go wrong."""
    return os.environ.get("FAKE_IPU_WRONG", "") in kinds


def count() -> int:
    """Return the number of IPUs."""
    return int(os.environ.get("FAKE_IPU_COUNT", "4") or 0)


def devices() -> List[Device]:
    """Return every device: the single IPUs, then each group of two, of four, and so on."""
    listed = [Device(index, (index,)) for index in range(count())]
    size = 2
    while size <= count():
        for first in range(0, count() - size + 1, size):
            listed.append(Device(len(listed), tuple(range(first, first + size))))
        size *= 2
    return listed


def held() -> Set[int]:
    """Return the IPUs that another process holds; FAKE_IPU_BUSY names them by the ids of devices."""
    listed = devices()
    ids = [int(text) for text in os.environ.get("FAKE_IPU_BUSY", "").replace(",", " ").split()]
    return {ipu for index in ids for ipu in listed[index].ipus}


def free(size: int) -> List[Device]:
    """Return the devices of exactly `size` IPUs of which none is held."""
    taken = held()
    return [device for device in devices() if len(device.ipus) == size and not taken & set(device.ipus)]

"""One case that is being run: its settings, its replicas, and a callback for its progress."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import Callable, Dict, List, Mapping, Optional

from bench.cases.case import Case, Settings
from bench.group import ALONE, Group
from bench.images import Dataset

# Gets the seconds of the last block's samples, and returns the number of samples of the next block; 0: there is none.
# At first it gets the length of one sample.
Pace = Callable[[List[float]], int]


def silent(phase: str) -> None:
    """Report no progress."""


@dataclass
class Job:
    """One case on one replica.

    group      the replicas of the case; each has a job
    tell       callback that gets the name of each phase when it begins
    canary_s   seconds of each kind of canary on this machine when it is quiet; None: not known
    images     the data sets that the case reads, by split
    took       seconds of the phases before the first step, by the names of the record's fields
    memory_floor_bytes  resident memory before the case was compiled; None: not known
    pace       decides when this case is timed, as one side of a pair. The harness holds the machine for both sides.
               None: the case is timed by itself
    compiling  holds the lock for compiling until timing starts
    """

    case: Case
    settings: Settings
    group: Group = ALONE
    tell: Callable[[str], None] = silent
    canary_s: Optional[Dict[str, float]] = None
    images: Mapping[str, Dataset] = field(default_factory=dict)
    took: Dict[str, Optional[float]] = field(default_factory=dict)
    memory_floor_bytes: Optional[int] = None
    pace: Optional[Pace] = None
    compiling: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    @property
    def averaging(self) -> Group:
        """The replicas that average their gradients; ALONE if this replica averages with no other."""
        return self.group if self.case.mode == "training" and self.settings.all_reduce else ALONE

    @property
    def learns(self) -> bool:
        """Whether this is a training run of whole epochs, which opens its images itself."""
        return self.case.mode == "training" and bool(self.settings.recipe.epochs)

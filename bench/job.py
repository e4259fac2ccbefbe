"""One case on its way from a request to a record: what is asked, with whom, and whom to tell."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import Callable, Mapping, Optional

from bench.cases.case import Case, Settings
from bench.group import ALONE, Group
from bench.images import Dataset


def silent(phase: str) -> None:
    """What tells nobody."""


@dataclass
class Job:
    """group      the replicas of the case; each has a job
    tell       called with the phase that begins
    canary_s   the time that the canary takes on this machine when it is quiet; None: not known
    images     the sets of images that the case reads, by split
    compiling  holds the leave to compile, until the clock starts
    """

    case: Case
    settings: Settings
    group: Group = ALONE
    tell: Callable[[str], None] = silent
    canary_s: Optional[float] = None
    images: Mapping[str, Dataset] = field(default_factory=dict)
    compiling: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    @property
    def averaging(self) -> Group:
        """The replicas that average their gradients; others have nothing to do with each other."""
        return self.group if self.case.mode == "training" and self.settings.all_reduce else ALONE

    @property
    def learns(self) -> bool:
        """Whether it is a training run of so many epochs, which opens its images itself."""
        return self.case.mode == "training" and bool(self.settings.recipe.epochs)

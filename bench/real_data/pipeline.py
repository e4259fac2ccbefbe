"""An input pipeline without a model, as a program: a run takes the next batch."""

from __future__ import annotations

from typing import Dict

from bench import workloads
from bench.job import Job
from bench.program import Program
from bench.real_data import feeding

# This many batches are taken before the clock starts, so that the queue of the pipeline is full.
QUEUED = 8
# Batches of one step. They arrive in bursts, so a step takes several.
WINDOW = 4


class Pipeline(Program):
    """It uses all cores, so no other case runs meanwhile. It computes nothing, so nothing is checked."""

    alone = True

    def __init__(self, job: Job, opened: feeding.Opened) -> None:
        super().__init__(workloads.of_case(job.case), job.case, job.settings)
        self.batches_per_step = WINDOW
        self.opened = opened
        for _ in range(QUEUED):
            next(opened)

    def run_resident(self) -> None:
        next(self.opened)

    def run_moved(self) -> None:
        next(self.opened)

    def outputs(self) -> Dict[str, object]:
        return {}

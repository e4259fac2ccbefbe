"""Training for real: epochs over images, at the recipe's rates, and the hits of what was learnt."""

from __future__ import annotations

import math
import time
from typing import Any, Dict, List, Tuple

from bench import workloads
from bench.cases.case import Settings
from bench.cases.precision import PRECISIONS
from bench.clock.protocol import PROGRAMS
from bench.clock.sampling import Samples
from bench.graph import draws
from bench.job import Job
from bench.program import Program
from bench.real_data import feeding
from bench.training import averaging

# The first update also fills caches and pools; --protocol may say otherwise.
DROPPED = 1
LOSSES = 10


def train(program: Program, job: Job) -> Tuple[Samples, Dict[str, Any]]:
    """Train from the start for the recipe's epochs, or so many updates as --steps says.

    Replicas share the images of every epoch, and take the same updates. Batches go on from one epoch to the next, so
    that each image is seen once an epoch, whatever the batch; the last batch is filled from a further epoch.

    Returns the seconds of each update, but for the first, and what was learnt: losses at both ends, hits
    among the validation images (of the training images where there are no others), images left out.
    Raises ValueError, in one line, for images that make no update.
    """
    graph, case, settings, group = program.graph, job.case, job.settings, job.group
    recipe = settings.recipe
    found = job.images["train"]
    assert found.count is not None
    # An IPU's call may be several updates.
    items = recipe.global_batch(case.batch_size, case.replicas) * (
        settings.batches_per_step if program.device_loop else 1
    )
    total = math.ceil(found.count * recipe.epochs / items)
    updates = min(total, settings.steps or total)
    averaged = recipe.global_batch(case.batch_size, case.replicas if settings.all_reduce else 1)
    schedule = recipe.schedule(averaged, workloads.load(case.workload).LEARNING_RATE)  # type: ignore[attr-defined]
    if not settings.weights:
        program.load(draws.weights(graph, PRECISIONS[case.precision].weights, start=True))
    seconds: List[float] = []
    losses: List[float] = []
    checkpoints: List[Dict[str, Any]] = []
    size = graph.inputs[next(iter(graph.inputs))].shape[2]
    with feeding.images(case, settings, found, training=True, size=size, group=group) as batches:
        made = map(feeding.named(graph, case, settings, replica=group.rank), batches)
        program.feed(feeding.in_lockstep(made, group))
        for update in range(updates):
            job.tell(f"training {update + 1}/{updates}")
            program.set_learning_rate(schedule.at(update, found.count / items, total))
            start = time.perf_counter()
            program.run()
            seconds.append(time.perf_counter() - start)
            losses.append(float(program.outputs()["loss"]))
            ended = (update + 1) * items // found.count > update * items // found.count or update + 1 == updates
            if ended and _averaged(settings):
                checkpoints.append(_weights(program))
        skipped, facts = batches.skipped, batches.facts
    _average(program, settings, checkpoints)
    timed_as = PROGRAMS.get(settings.protocol)
    dropped = timed_as.warmup_calls if timed_as else DROPPED
    kept = seconds[dropped:] or seconds
    every = [math.fsum(each) / group.count for each in zip(*group.all_gather(losses))]
    learnt = {
        "epochs": updates * items / found.count,
        "loss_first": math.fsum(every[:LOSSES]) / len(every[:LOSSES]),
        "loss_last": math.fsum(every[-LOSSES:]) / len(every[-LOSSES:]),
        "images_skipped": sum(group.all_gather(skipped)),
        **{f"tuned_{key}": value for key, value in facts.items()},
        **(score(program, job) if settings.validation else {}),
    }
    return Samples(kept, 1, len(seconds) - len(kept), math.fsum(seconds[: len(seconds) - len(kept)]), True), learnt


def score(program: Program, job: Job) -> Dict[str, Any]:
    """The hits of a program's present weights among the validation images, once through.

    Of replicas the first one counts them, and the others wait: their weights are the same, but for running statistics.
    """
    graph, case, settings = program.graph, job.case, job.settings
    hits: Dict[str, Any] = {}
    if job.group.rank == 0:
        size = graph.inputs[next(iter(graph.inputs))].shape[2]
        make = feeding.named(graph, case, settings, blended=False)
        with feeding.images(case, settings, job.images["validation"], training=False, size=size, once=True) as batches:
            hits = feeding.scored(program.predict, batches, make, case.batch_size)
    return dict(job.group.all_gather(hits, no_timeout=True)[0])


def _weights(program: Program) -> Dict[str, Any]:
    return {name: array.copy() for name, array in program.weights().items()}


def _averaged(settings: Settings) -> bool:
    return bool(settings.recipe.weight_avg_exp or settings.recipe.weight_avg_n)


def _average(program: Program, settings: Settings, checkpoints: List[Dict[str, Any]]) -> None:
    """Replace the weights by their average over the epochs, where the recipe says so."""
    if not checkpoints:
        return
    recipe = settings.recipe
    if recipe.weight_avg_exp:
        found = averaging.exponential(checkpoints, recipe.weight_avg_exp, recipe.weight_avg_n or None)
    else:
        found = averaging.mean(checkpoints, recipe.weight_avg_n)
    program.load({name: draws.rounded(array, "float32") for name, array in found.items()})

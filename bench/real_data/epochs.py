"""Training for epochs over images with the recipe's schedule, and the accuracy of the result."""

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

# The first update also fills caches and pools, so it is not timed; --protocol may set another number.
DROPPED = 1
LOSSES = 10


def train(program: Program, job: Job) -> Tuple[Samples, Dict[str, Any]]:
    """Train from initial weights for the recipe's epochs, or for --steps updates.

    The images of an epoch are shared out to the replicas, which apply the same updates. A batch may span two epochs, so
    that each image is used once an epoch at any batch size; the last batch is filled from a further epoch.

    Returns the seconds of each update after the warm-up, and the results: the first and last losses, the accuracy on
    the validation images (on the training images if there are no others), and the number of skipped images.
    Raises ValueError, in one line, for images that do not fill a batch.
    """
    graph, case, settings, group = program.graph, job.case, job.settings, job.group
    dataset = job.images["train"]
    if not settings.weights:
        program.load(draws.weights(graph, PRECISIONS[case.precision].weights, start=True))
    size = graph.inputs[next(iter(graph.inputs))].shape[2]
    with feeding.images(case, settings, dataset, training=True, size=size, group=group) as batches:
        inputs = map(feeding.named(graph, case, settings, replica=group.rank), batches)
        program.feed(feeding.in_lockstep(inputs, group))
        epochs, seconds, losses = _updates(program, job)
        skipped, facts = batches.skipped, batches.facts
    timed_as = PROGRAMS.get(settings.protocol)
    dropped = timed_as.warmup_calls if timed_as else DROPPED
    timed = seconds[dropped:] or seconds
    warmup = seconds[: len(seconds) - len(timed)]
    means = [math.fsum(replicas) / group.count for replicas in zip(*group.all_gather(losses))]
    results = {
        "epochs": epochs,
        "loss_first": math.fsum(means[:LOSSES]) / len(means[:LOSSES]),
        "loss_last": math.fsum(means[-LOSSES:]) / len(means[-LOSSES:]),
        "images_skipped": sum(group.all_gather(skipped)),
        **{f"tuned_{key}": value for key, value in facts.items()},
        **(score(program, job) if settings.validation else {}),
    }
    return Samples(timed, 1, len(warmup), math.fsum(warmup), True), results


def _updates(program: Program, job: Job) -> Tuple[float, List[float], List[float]]:
    """Update the weights for all epochs. Returns the number of epochs, and of each update the seconds and the loss."""
    case, settings, recipe, count = job.case, job.settings, job.settings.recipe, job.images["train"].count
    assert count is not None
    # One call of an IPU may do several updates.
    updates_per_call = settings.batches_per_step if program.device_loop else 1
    items = recipe.global_batch(case.batch_size, case.replicas) * updates_per_call
    total = math.ceil(count * recipe.epochs / items)
    updates = min(total, settings.steps or total)
    averaged = recipe.global_batch(case.batch_size, case.replicas if settings.all_reduce else 1)
    schedule = recipe.schedule(averaged, workloads.load(case.workload).learning_rate)
    seconds: List[float] = []
    losses: List[float] = []
    checkpoints: List[Dict[str, Any]] = []
    for update in range(updates):
        job.tell(f"training {update + 1}/{updates}")
        program.set_learning_rate(schedule.at(update, count / items, total))
        start = time.perf_counter()
        program.run()
        seconds.append(time.perf_counter() - start)
        losses.append(float(program.outputs()["loss"]))
        epoch_ended = (update + 1) * items // count > update * items // count or update + 1 == updates
        if epoch_ended and _averaged(settings):
            checkpoints.append(_weights(program))
    _average(program, settings, checkpoints)
    return updates * items / count, seconds, losses


def score(program: Program, job: Job) -> Dict[str, Any]:
    """The accuracy of a program's current weights in one pass over the validation images.

    Only the first replica computes it, and the others wait. Their weights are equal, except for running statistics.
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
    """Replace the weights by their average over the epochs, if the recipe averages them."""
    if not checkpoints:
        return
    recipe = settings.recipe
    if recipe.weight_avg_exp:
        weights = averaging.exponential(checkpoints, recipe.weight_avg_exp, recipe.weight_avg_n or None)
    else:
        weights = averaging.mean(checkpoints, recipe.weight_avg_n)
    program.load({name: draws.rounded(array, "float32") for name, array in weights.items()})

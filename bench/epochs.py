"""Training for real: epochs over images, at the recipe's rates, and the hits of what was learnt."""

from __future__ import annotations

import math
import time
from typing import Any, Callable, Dict, List, Tuple

from bench import average, feeding, values, workload
from bench.case import Case, Settings
from bench.graph import Graph
from bench.measure import Samples
from bench.precision import PRECISIONS
from bench.protocol import PROGRAMS
from bench.step import Program

# The first update also fills caches and pools; --protocol may say otherwise.
DROPPED = 1
LOSSES = 10
Tell = Callable[[str], None]


def train(program: Program, graph: Graph, case: Case, settings: Settings, tell: Tell) -> Tuple[Samples, Dict[str, Any]]:
    """Train from the start for the recipe's epochs, or so many updates as --steps says.

    Returns the seconds of each update, but for the first, and what was learnt: losses at both ends, hits
    among the validation images (of the training images where there are no others), images left out.
    Raises ValueError, in one line, for images that make no update.
    """
    assert program.load is not None
    assert program.set_learning_rate is not None
    recipe = settings.recipe
    found = feeding.dataset(settings, "train")
    global_batch = recipe.global_batch(case.batch_size, case.replicas)
    if found.count is None:
        raise ValueError(f"{found.root} does not tell how many images it has; --epochs needs a folder of images")
    per_epoch = found.count / global_batch
    total = math.ceil(per_epoch * recipe.epochs)
    updates = min(total, settings.steps or total)
    schedule = recipe.schedule(global_batch, workload.load(case.workload).LEARNING_RATE)  # type: ignore[attr-defined]
    if not settings.weights:
        program.load(values.weights(graph, PRECISIONS[case.precision].weights, start=True))
    seconds: List[float] = []
    losses: List[float] = []
    checkpoints: List[Dict[str, Any]] = []
    size = graph.inputs[next(iter(graph.inputs))].shape[2]
    with feeding.images(case, settings, found, training=True, repeat=True, size=size) as batches:
        program.feed(map(feeding.named(graph, case, settings), batches))
        for update in range(updates):
            tell(f"training {update + 1}/{updates}")
            program.set_learning_rate(schedule.at(update, per_epoch, total))
            start = time.perf_counter()
            program.run()
            seconds.append(time.perf_counter() - start)
            losses.append(float(program.outputs()["loss"]))
            ended = int((update + 1) / per_epoch) > int(update / per_epoch) or update + 1 == updates
            if ended and _averaged(settings):
                checkpoints.append(_weights(program))
        skipped, facts = batches.skipped, batches.facts
    _average(program, settings, checkpoints)
    timed_as = PROGRAMS.get(settings.protocol)
    dropped = timed_as.warmup_calls if timed_as else DROPPED
    kept = seconds[dropped:] or seconds
    learnt = {
        "epochs": updates / per_epoch,
        "loss_first": math.fsum(losses[:LOSSES]) / len(losses[:LOSSES]),
        "loss_last": math.fsum(losses[-LOSSES:]) / len(losses[-LOSSES:]),
        "images_skipped": skipped,
        **{f"tuned_{key}": value for key, value in facts.items()},
        **(score(program, graph, case, settings) if settings.validation else {}),
    }
    return Samples(kept, 1, len(seconds) - len(kept), math.fsum(seconds[: len(seconds) - len(kept)]), True), learnt


def score(program: Program, graph: Graph, case: Case, settings: Settings) -> Dict[str, Any]:
    """The hits of a program's present weights among the validation images, once through."""
    found = feeding.dataset(settings, "validation")
    size = graph.inputs[next(iter(graph.inputs))].shape[2]
    if found.count is None:
        raise ValueError(f"{found.root} does not tell how many images it has; hits are counted in a folder of images")
    make = feeding.named(graph, case, settings, blended=False)
    with feeding.images(case, settings, found, training=False, repeat=True, size=size) as batches:
        return feeding.scored(_predict(program), batches, make, found.count - batches.skipped)


def _predict(program: Program) -> Callable[[Dict[str, Any]], Any]:
    if program.predict is not None:
        return program.predict

    def predict(batch: Dict[str, Any]) -> Any:
        program.feed([batch])
        program.run()
        return program.outputs()["output"]

    return predict


def _weights(program: Program) -> Dict[str, Any]:
    assert program.weights is not None
    return {name: array.copy() for name, array in program.weights().items()}


def _averaged(settings: Settings) -> bool:
    return bool(settings.recipe.weight_avg_exp or settings.recipe.weight_avg_n)


def _average(program: Program, settings: Settings, checkpoints: List[Dict[str, Any]]) -> None:
    """Replace the weights by their average over the epochs, where the recipe says so."""
    if not checkpoints:
        return
    assert program.load is not None
    recipe = settings.recipe
    if recipe.weight_avg_exp:
        found = average.exponential(checkpoints, recipe.weight_avg_exp, recipe.weight_avg_n or None)
    else:
        found = average.mean(checkpoints, recipe.weight_avg_n)
    program.load({name: values.rounded(array, "float32") for name, array in found.items()})

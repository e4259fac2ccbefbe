"""Updates of one backend, in one process: `python training_steps.py BACKEND FILE`, jobs as JSON on stdin.

A job is a workload, its dimensions, a recipe, a batch size and the rates of the updates. The answer to each: the
weights before and after every update, and the gradients that one plain step at the same weights finds.
"""

from __future__ import annotations

import functools
import json
import pickle
import sys
from pathlib import Path

sys.path.extend(str(parent) for parent in list(Path(__file__).resolve().parents)[1:3])

import numpy as np

from bench import backends, workloads
from bench.cases.case import Case, Settings
from bench.cases.recipe import Recipe
from bench.graph import draws

# So large that nothing of the gradient is lost in what it is taken off.
PLAIN_RATE = 2.0**30


def case_of(engine, job):
    module = workloads.load(job["workload"])
    first = next(iter(workloads.named_sizes(module).values()))
    size = {**first, **module.tiny, **job.get("dimensions", {})}
    size = module.canonical({name: size[name] for name in module.dimensions})
    return Case(job["workload"], "tiny", size, "training", job["batch_size"], "fp32", 1, engine, "cpu")


def program_of(engine, job, recipe, batches=None):
    case, settings = case_of(engine, job), Settings(tuning="default", recipe=recipe)
    graph = workloads.record(workloads.load(case.workload), case.dimensions, case.batch_size, "training", True, recipe)
    weights = draws.weights(graph, "float32")
    given = batches or [draws.inputs(graph, "float32", batch) for batch in range(2)]
    return backends.load(engine).compile(graph, weights, given, case, settings), weights, given


def updated(engine, job):
    """The weights after each update of the job's recipe, from the weights as they are drawn."""
    program, weights, given = program_of(engine, job, Recipe(**job["recipe"]))
    program.load(weights)
    found = [program.weights()]
    for turn, rate in enumerate(job["rates"]):
        program.feed([given[turn % len(given)]])
        program.set_learning_rate(rate)
        program.run()
        found.append(program.weights())
    return found


@functools.lru_cache(maxsize=None)
def plain(engine, job):
    """A program of plain steps."""
    return program_of(engine, json.loads(job), Recipe())


def gradients(engine, job, trajectory):
    """The gradient at each of the weights, by a plain step of the backend's own."""
    same = {key: value for key, value in job.items() if key not in ("recipe", "rates")}
    program, _, given = plain(engine, json.dumps(same))
    program.set_learning_rate(PLAIN_RATE)
    found = []
    for turn, weights in enumerate(trajectory[:-1]):
        program.feed([given[turn % len(given)]])
        program.load({name: np.asarray(array, np.float32) for name, array in weights.items()})
        program.run()
        after = program.weights()
        found.append({name: (weights[name] - after[name]) / PLAIN_RATE for name in weights})
    return found


def of_updates(engine, job):
    trajectory = updated(engine, job)
    return {"weights": trajectory, "gradients": gradients(engine, job, trajectory)}


def of_accumulation(engine, job):
    """The weights after updates from several batches each, and from one batch that holds them all."""
    count = job["recipe"]["gradient_accumulation"]
    joined = {**job, "batch_size": job["batch_size"] * count}
    whole, weights, (large, _) = program_of(engine, joined, Recipe())
    small = [dict(zip(large, parts)) for parts in zip(*(np.split(array, count) for array in large.values()))]
    parts, _, _ = program_of(engine, job, Recipe(**job["recipe"]), small)
    return {
        "before": weights,
        "one": _run(whole, weights, [large], job),
        "many": _run(parts, weights, small, job),
    }


def of_recompute(engine, job):
    """The weights after updates that keep every result, and after updates under each recipe."""
    found = {}
    for name, recipe in job["recipes"].items():
        program, weights, given = program_of(engine, job, Recipe(**recipe))
        found[name] = _run(program, weights, given[:1], job)
    return found


def _run(program, weights, batches, job):
    program.load(weights)
    program.feed(batches)
    for rate in job["rates"]:
        program.set_learning_rate(rate)
        program.run()
    return program.weights()


KINDS = {"updates": of_updates, "accumulation": of_accumulation, "recompute": of_recompute}

if __name__ == "__main__":
    name, path = sys.argv[1:]
    answers = {key: KINDS[job["kind"]](name, job) for key, job in json.load(sys.stdin).items()}
    Path(path).write_bytes(pickle.dumps(answers))

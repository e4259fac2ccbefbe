"""Weights that replicas have after some updates: `replica_answers.py BACKEND WORKLOAD ACCUMULATION PLACE OUT`.

PLACE is the JSON of a place in a group of replicas. Without a group (count 1, no port) all batches are one's own.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path

sys.path.extend(str(parent) for parent in list(Path(__file__).resolve().parents)[1:3])
os.environ.update(OMP_NUM_THREADS="1", TF_NUM_INTRAOP_THREADS="1", TF_CPP_MIN_LOG_LEVEL="2", CUDA_VISIBLE_DEVICES="")

import numpy as np

from bench import backends, workloads
from bench.cases.case import Case, Settings
from bench.cases.recipe import Recipe
from bench.graph import draws
from bench.group import ALONE, Member

UPDATES = 2
BATCH = 2


def main(engine, name, accumulation, place, out):
    place = json.loads(place)
    module = workloads.load(name)
    size = {**next(iter(workloads.named_sizes(module).values())), **module.tiny}
    if "norm_type" in module.dimensions:
        size["norm_type"] = "none"
    dimensions = {key: size[key] for key in module.dimensions}
    case = Case(name, "tiny", dimensions, "training", BATCH, "fp32", place["count"], engine, "cpu")
    recipe = Recipe(gradient_accumulation=int(accumulation))
    settings = Settings(recipe=recipe)
    graph = workloads.of_case(case, recipe)
    weights = draws.weights(graph, "float32")
    with contextlib.closing(Member(place)) if place["count"] > 1 else contextlib.nullcontext(ALONE) as group:
        own = range(group.rank * int(accumulation), (group.rank + 1) * int(accumulation))
        inputs = [draws.inputs(graph, "float32", batch) for batch in own]
        made = backends.load(engine)
        together = {"group": group} if group.count > 1 else {}
        program = made.compile(graph, weights, inputs, case, settings, **together)
        program.load(weights)
        program.set_learning_rate(0.05)
        for _ in range(UPDATES):
            program.run()
        np.savez(out, **program.weights())
        group.all_gather("done")


if __name__ == "__main__":
    main(*sys.argv[1:])

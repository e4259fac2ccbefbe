"""Weights and what was learnt in one epoch of real images: `epoch_answers.py BACKEND PLACE BATCH SET OUT`.

PLACE is the JSON of a place in a group of replicas; without a group (count 1, no port) all images are one's own.
OUT gets the weights (.npz), and what was learnt beside it (.json).
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
from bench.job import Job
from bench.real_data import epochs, material


def main(engine, place, batch, folder, out):
    place = json.loads(place)
    module = workloads.load("resnet8")
    size = {**next(iter(workloads.named_sizes(module).values())), **module.tiny, "norm_type": "none", "image_size": 16}
    dimensions = {key: size[key] for key in module.dimensions}
    case = Case("resnet8", "tiny", dimensions, "training", int(batch), "fp32", place["count"], engine, "cpu")
    # The base rate is that of the global batch: 2^-7 of 4 images.
    recipe = Recipe(epochs=1.0, optimiser="momentum", base_learning_rate_exponent=-7.0, lr_schedule="cosine")
    settings = Settings(data="real", data_dir=folder, data_workers=1, recipe=recipe)
    graph = workloads.of_case(case, recipe)
    weights = draws.weights(graph, "float32")
    with contextlib.closing(Member(place)) if place["count"] > 1 else contextlib.nullcontext(ALONE) as group:
        images = material.images(case, settings, lambda phase: None)
        together = {"group": group} if group.count > 1 else {}
        inputs = [draws.inputs(graph, "float32", group.rank)]
        program = backends.load(engine).compile(graph, weights, inputs, case, settings, **together)
        _, learnt = epochs.train(program, Job(case, settings, group, images=images))
        np.savez(out, **program.weights())
        Path(out).with_suffix(".json").write_text(json.dumps(learnt))
        group.all_gather("done")


if __name__ == "__main__":
    main(*sys.argv[1:])

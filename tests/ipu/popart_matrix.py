"""The popart backend on the fake SDK, in one process: `python popart_matrix.py FILE`, with tests/fakes on the path.

Writes what came of every case as JSON; test_popart_contract.py judges.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path

sys.path.extend(str(parent) for parent in Path(__file__).resolve().parents[1:3])

import backend_matrix
import cnn_matrix
import contract
import numpy as np
import popart_fake
from popart_options import FAULTS, OPTIONED, faulted, option_of
from popart_runs import MANY, case_of, compiled, outcome, require, settings_of

from bench import backends, workloads
from bench.cases.case import MODES
from bench.graph import draws
from bench.graph.reference import evaluate

NETWORKS = ("resnet8", "mobilenet_v3_small", "efficientnet_b0")
WAYS = {
    "replicas": {"replicas": 2},
    "accumulated": {"accumulation": 3},
    "steps": {"steps": 3},
    "both": {"replicas": 2, "accumulation": 3},
    "pipelined": {"stages": 2},
    "pipelined replicas": {"stages": 2, "replicas": 2},
    "sequential": {"stages": 2, "schedule": "sequential"},
}
# What goes wrong on purpose, and where a check has to notice it.
SABOTAGE = {
    "replica": ("inference", {"replicas": 2}),
    "iteration": ("inference", {"steps": 3}),
    "step": ("training", {}),
    "sum": ("training", {"replicas": 2}),
    "sum of accumulated": ("training", {"accumulation": 3}),
}
OPTIMISERS = ("sgd", "momentum", "rmsprop", "rmsprop_tf", "adam", "adamw")


def numbers():
    """Every case that is checked: (name, variant, mode, precision)."""
    for layer in workloads.names("layers"):
        for variant in backend_matrix.variants(layer):
            yield from ((layer, variant, mode, "fp32") for mode in MODES if told(layer, mode, "fp32"))
        for precision in ("fp16", "fp16m"):
            yield from ((layer, "plain", mode, precision) for mode in MODES if told(layer, mode, precision))
    for model in NETWORKS:
        yield from ((model, "plain", mode, "fp32") for mode in MODES)
    for variant in list(cnn_matrix.VARIANTS)[1:]:
        if set(cnn_matrix.VARIANTS[variant]) <= {*workloads.load("resnet8").DIMENSIONS}:
            yield from (("resnet8", variant, mode, "fp32") for mode in ("inference", "training"))
    for precision in ("fp16", "fp16m"):
        yield from (("resnet8", "plain", mode, precision) for mode in ("inference", "training"))


def told(name, mode, precision):
    return not workloads.unsupported(workloads.load(name), mode, precision)


def sabotaged(name):
    mode, way = SABOTAGE[name]
    case = case_of("dense", mode=mode, replicas=way.get("replicas", 1))
    popart_fake.WRONG[:] = [name.split()[0]]
    try:
        return outcome(lambda: require(case, settings_of("dense", mode=mode, **way)))
    finally:
        popart_fake.WRONG.clear()


def optimised(name):
    """How far three updates end from where torch's backend ends, for the same layer, batch and recipe."""
    recipe = {"optimiser": name, "weight_decay": 0.1, "optimiser_epsilon": 1e-3}
    settings = settings_of("lstm", mode="training", recipe=recipe)
    case = case_of("lstm", mode="training")
    program, graph, weights = compiled(case, settings)
    other = backends.load("torch").compile(
        graph,
        weights,
        [draws.inputs(graph, "float32")],
        dataclasses.replace(case, backend="torch", device="cpu"),
        settings,
    )
    ends = []
    for one in (program, other):
        one.load(weights)
        one.set_learning_rate(0.01)
        for _ in range(3):
            one.run()
        ends.append(one.weights())
    program.close()
    moved = max(float(np.abs(ends[1][key] - weights[key]).max()) for key in weights)
    return {"off": max(float(np.abs(ends[0][key] - ends[1][key]).max()) for key in weights), "moved": moved}


def fed():
    """Which of five host batches runs of 2 steps on 2 replicas end with; and what a call of too few says."""
    case = case_of("dense", replicas=2)
    program, graph, weights = compiled(case, settings_of("dense", steps=2))
    batches = [draws.inputs(graph, "float32", batch) for batch in range(5)]
    expected = [evaluate(graph, weights, batch, "float64")[0] for batch in batches]
    found = []
    for given in (batches, batches[:3], iter(batches * 2)):
        program.feed(given)
        for _ in range(2):
            program.run()
            got = program.outputs()["output"]
            found.append(next((i for i, e in enumerate(expected) if np.allclose(got, e, atol=1e-5)), -1))
    program.feed(iter(batches[:3]))
    too_few = outcome(program.run)
    program.close()
    return {"found": found, "too few": too_few["text"]}


def loaded():
    """What an optimiser remembers is gone when weights are loaded: two updates, then the same two again."""
    case = case_of("dense", mode="training")
    program, _, weights = compiled(case, settings_of("dense", mode="training", recipe={"optimiser": "momentum"}))
    ends = []
    for _ in range(2):
        program.load(weights)
        program.set_learning_rate(0.1)
        for _ in range(2):
            program.run()
        ends.append(program.weights())
    program.close()
    return {"off": max(float(np.abs(ends[0][key] - ends[1][key]).max()) for key in weights)}


def learnt():
    """The running statistics of a network after two updates: how far from where they began."""
    case = case_of("resnet8", mode="training")
    program, _, weights = compiled(case, settings_of("resnet8", mode="training"))
    program.set_learning_rate(1e-3)
    program.run()
    held = program.weights()
    program.close()
    return {"moved": [float(np.abs(held[key] - weights[key]).max()) for key in weights if "running" in key]}


def waited(busy, wait_s, count=4, device_id=None):
    os.environ.update(FAKE_IPU_BUSY=busy, FAKE_IPU_COUNT=str(count))
    try:
        settings = settings_of("dense", wait_s=wait_s, device_id=device_id)
        return {**outcome(lambda: require(case_of("dense"), settings)), "tries": tries()}
    finally:
        del os.environ["FAKE_IPU_BUSY"], os.environ["FAKE_IPU_COUNT"]


def tries():
    return sum("tryAcquire" in one.name for one in contract.calls)


def everything():
    answer = {
        "numbers": {
            "-".join(key): outcome(lambda k=key: require(case_of(*k), settings_of(k[0], mode=k[2])))
            for key in numbers()
        }
    }
    answer["many"] = {}
    for name in MANY:
        for way, given in WAYS.items():
            for mode in MODES:
                if (given.get("stages") and not MANY[name]) or ("accumulation" in given and mode != "training"):
                    continue
                if "steps" in given and mode == "training":
                    continue
                case = case_of(name, mode=mode, replicas=given.get("replicas", 1))
                settings = settings_of(name, mode=mode, **given)
                answer["many"][f"{name}-{way}-{mode}"] = outcome(lambda c=case, s=settings: require(c, s))
    answer["options"] = {name: option_of(name) for name in OPTIONED}
    answer["faults"] = {name: faulted(name) for name in FAULTS}
    answer["sabotage"] = {name: sabotaged(name) for name in SABOTAGE}
    answer["optimisers"] = {name: outcome(lambda n=name: optimised(n)) for name in OPTIMISERS}
    answer["fed"], answer["loaded"], answer["learnt"] = outcome(fed), outcome(loaded), outcome(learnt)
    answer["busy"] = waited("0,1,2,3", 0)
    answer["waited"] = waited("0,1,2,3", 1.2)
    answer["another is free"] = waited("0", 0)
    answer["that one is busy"] = waited("2", 0, device_id=2)
    return answer


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(everything()))

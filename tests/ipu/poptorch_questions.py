"""What the fake SDK is asked, by name: calls of each option, errors, ways out, sabotage. For poptorch_matrix.py."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import poptorch_matrix as matrix
from poptorch_matrix import case_of, compiled, environment, recorded, said, weights_after, whole

from bench import check
from bench.cases.case import Settings
from bench.cases.poplar import Poplar
from bench.cases.recipe import Recipe

EXECUTOR = "poptorch.PoplarExecutor"
PLAIN = Settings(data="generated", steps=1, max_time_s=0.0, min_rounds=1, min_warmup_s=0.0)
CALLS = {
    "inference": (case_of("dense"), PLAIN),
    "eval": (case_of("dense", mode="eval"), PLAIN),
    "training": (case_of("dense", mode="training"), replace(PLAIN, recipe=Recipe(gradient_accumulation=3))),
    "replicas": (case_of("dense", mode="training", replicas=2), replace(PLAIN, batches_per_step=2)),
    "synthetic": (case_of("dense"), replace(PLAIN, data="synthetic")),
    "fp16 training": (case_of("dense", mode="training", precision="fp16"), PLAIN),
}
# An option's value, and the mode in which it has a meaning.
POPLAR = {
    "available_memory_proportion": ((0.3,), "inference"),
    "partials_type_matmul": ("half", "inference"),
    "partials_type_conv": ("half", "inference"),
    "internal_exchange_target": ("memory", "inference"),
    "prefetch": (False, "inference"),
    "num_io_tiles": (32, "inference"),
    "stochastic_rounding": (True, "training"),
    "stable_norm": (True, "training"),
    "conv_dithering": (True, "inference"),
    "variable_offloading": (True, "training"),
    "pipeline_schedule": ("sequential", "inference"),
    "output_mode": ("sum", "inference"),
    "engine_options": ({"opt.maxCompilationThreads": "3"}, "inference"),
    "cycle_count": (True, "inference"),
    "ipu_model": (True, "inference"),
    "compile_only": ("ipu21", "inference"),
    "executable_cache": ("cache", "inference"),
    "device_id": (2, "inference"),
    "profile": ("reports", "inference"),
}
REFUSED = {
    "pipeline_schedule": "interleaved",
    "max_cross_replica_buffer_size": 4096,
}
ERRORS = {
    "out of memory": {"exception": "poptorch.Error", "message": "graph_memory_allocation_error: tile 3"},
    "recoverable": {
        "exception": "poptorch.RecoverableError",
        "message": "link down",
        "attributes": {"recovery_action": "PARTITION_RESET"},
    },
    "unrecoverable": {"exception": "poptorch.UnrecoverableError", "message": "parity error"},
    "host sync": {"exception": "poptorch.Error", "message": "Host sync timeout"},
    "frozen": {"exception": "AttributeError", "message": "Can't modify frozen Options"},
    "unknown": {"exception": "poptorch.Error", "message": "something else"},
}
OPTIMISERS = ("sgd", "momentum", "rmsprop", "rmsprop_tf", "adam", "adamw")


def every():
    """Every question by its name: a call that returns what can be written as JSON."""
    found = {}
    for name, (case, settings) in CALLS.items():
        found[f"calls {name}"] = lambda case=case, settings=settings: recorded(case, settings)
    for name, (value, mode) in POPLAR.items():
        settings = replace(PLAIN, poplar=Poplar(**{name: value}))
        found[f"option {name}"] = lambda mode=mode, settings=settings: recorded(case_of("dense", mode=mode), settings)
    found.update(combined())
    for name, value in REFUSED.items():
        settings = replace(PLAIN, poplar=Poplar(**{name: value}))
        found[f"refused {name}"] = lambda settings=settings: said(whole, case_of("dense"), settings)
    for name, fault in ERRORS.items():
        for where in ("compile", "__call__"):
            found[f"error {name} in {where}"] = lambda where=where, fault=fault: failing(f"{EXECUTOR}.{where}", fault)
    found.update(ways_out())
    for optimiser in OPTIMISERS:
        recipe = Recipe(optimiser=optimiser, weight_decay=0.01, gradient_accumulation=2)
        found[f"optimiser {optimiser}"] = lambda recipe=recipe: optimised(recipe)
    found.update(programs())
    return found


def combined():
    """Options that go through one setter together, and those of networks."""
    network = case_of("resnet8", mode="training")
    split = replace(PLAIN, pipeline_splits="layer2.0", recipe=Recipe(gradient_accumulation=3))
    convolutions = Poplar(partials_type_conv="half", conv_dithering=True)
    engine = Poplar(
        internal_exchange_target="cycles", prefetch=False, engine_options={"debug.retainDebugInformation": "true"}
    )
    sharding = Poplar(replicated_tensor_sharding=True, variable_offloading=False)
    manual = Recipe(recompute="manual", recompute_layers="layer1")
    tiles = Poplar(num_io_tiles=32)
    asked = {
        "convolutions": (case_of("conv"), replace(PLAIN, poplar=convolutions)),
        "engine": (case_of("dense"), replace(PLAIN, poplar=engine)),
        "half partial": (case_of("dense"), replace(PLAIN, half_partial=True)),
        "sharding": (case_of("dense", mode="training", replicas=2), replace(PLAIN, poplar=sharding)),
        "pipeline": (network, split),
        "proportions": (network, replace(split, poplar=Poplar(available_memory_proportion=(0.2, 0.4)))),
        "sequential": (network, replace(split, poplar=Poplar(pipeline_schedule="sequential"))),
        "auto": (network, replace(PLAIN, recipe=Recipe(recompute="auto"))),
        "manual": (network, replace(PLAIN, recipe=manual)),
        "auto in a pipeline": (network, replace(split, recipe=Recipe(recompute="auto", gradient_accumulation=3))),
        "tiles": (case_of("dense", mode="training"), replace(PLAIN, poplar=tiles)),
    }
    found = {f"option {n}": lambda c=c, s=s: recorded(c, s) for n, (c, s) in asked.items()}
    both = replace(split, poplar=tiles)
    found["refused tiles in a pipeline"] = lambda: said(whole, network, both)
    lars = replace(PLAIN, recipe=Recipe(optimiser="lars"))
    found["refused lars"] = lambda: said(compiled, network, lars)
    alone = replace(PLAIN, all_reduce=False)
    found["refused alone"] = lambda: said(compiled, case_of("dense", mode="training", replicas=2), alone)
    return found


def failing(name, fault):
    """A whole case in which the SDK raises at one call, or behind it."""
    with environment(FAKE_IPU_FAULTS=json.dumps({name: fault})):
        return said(whole, case_of("dense", mode="training"), PLAIN)


def ways_out():
    memory = ERRORS["out of memory"]
    steps = ("trainingModel", "PoplarExecutor.copyWeightsToHost", "PoplarExecutor.copyWeightsToDevice")
    steps += ("PoplarExecutor.setOptimizer", "PoplarExecutor.destroy")
    found = {f"way out {step}": lambda step=step: failing(f"poptorch.{step}", memory) for step in steps}
    found["way out loading"] = lambda: failing("poptorch_core.loadEngineAndConnectStreams", memory)
    found["way out options"] = lambda: failing(
        "poptorch.Options.deviceIterations", {"exception": "AssertionError", "message": "positive"}
    )
    found["way out passed"] = lambda: said(whole, case_of("dense", mode="training"), PLAIN)
    for kind, replicas, splits in (("replica", 2, ""), ("iteration", 1, "layer2.0"), ("summed", 2, "")):
        found[f"sabotage {kind}"] = lambda k=kind, r=replicas, s=splits: sabotaged(k, r, s)
    found["busy"] = busy
    found["soon free"] = soon_free
    found["too large"] = lambda: said(whole, case_of("dense", replicas=8), PLAIN)
    found["other device"] = lambda: said(whole, case_of("dense"), replace(PLAIN, poplar=Poplar(device_id=4)))
    found["rows"] = rows
    return found


def sabotaged(kind, replicas, splits):
    mode = "training" if kind == "summed" else "inference"
    case = case_of("resnet8" if splits else "dense", mode=mode, replicas=replicas)
    settings = replace(PLAIN, pipeline_splits=splits, batches_per_step=2 if splits else 1)
    with environment(FAKE_POPTORCH_SABOTAGE=kind):
        return said(whole, case, settings)


def busy():
    with environment(FAKE_IPU_BUSY="0,1,2,3"):
        return said(whole, case_of("dense"), PLAIN)


def soon_free():
    """A device that is free at the third attempt."""
    fault = {"exception": "poptorch.Error", "message": "Failed to acquire 1 IPU(s)", "times": 2}
    with environment(FAKE_IPU_FAULTS=json.dumps({f"{EXECUTOR}.compile": fault})):
        start = time.monotonic()
        found = said(whole, case_of("dense"), replace(PLAIN, poplar=Poplar(wait_s=30)))
        return {**found, "seconds": time.monotonic() - start}


def rows():
    """The rows of a call are no multiple of what the options say."""
    settings = replace(PLAIN, batches_per_step=2)
    message = "Invalid batch dimension: In the input torch.Size([5, 4]), the batch dimension (5) must be a multiple"
    fault = {"exception": "AssertionError", "message": message}
    with environment(FAKE_IPU_FAULTS=json.dumps({f"{EXECUTOR}.compile": fault})):
        return said(compiled, case_of("dense", replicas=2), settings)


def optimised(recipe):
    """How far updates are from torch's own, and from the same ones after the weights were put back."""
    own = weights_after("poptorch", recipe)
    return {
        "torch": matrix.apart(own, weights_after("torch", recipe)),
        "again": matrix.apart(own, weights_after("poptorch", recipe, load_between=True)),
    }


def programs():
    """What programs answer."""

    def modes():
        found = {}
        for mode in ("all", "final", "sum"):
            settings = replace(PLAIN, batches_per_step=2, poplar=Poplar(output_mode=mode))
            program, graph, _ = compiled(case_of("dense", replicas=2), settings)
            program.run()
            results = program.run.__self__.results
            found[mode] = [list(one.shape) for one in results], list(graph.output.shape), program.facts
            program.close()
        return found

    def synthetic():
        program, _, _ = compiled(case_of("dense"), replace(PLAIN, data="synthetic"))
        program.run()
        check.require_finite(program)
        found = sorted(program.outputs()), program.told()
        program.close()
        return found

    def drawn():
        """Two runs of chains that draw their own numbers."""
        from bench import backends, workloads

        case = case_of("hmc")
        settings = replace(PLAIN, data="synthetic", batches_per_step=2)
        program = backends.load("poptorch").compile(workloads.of_case(case), {}, [{}], case, settings)
        found = []
        for _ in range(2):
            program.run()
            found.append(program.outputs()["output"].ravel().tolist())
        program.close()
        return found

    return {
        "modes": modes,
        "synthetic outputs": synthetic,
        "drawn": drawn,
        **{f"predicted {precision}": lambda p=precision: predicted(p) for precision in ("fp32", "fp16", "fp16m")},
        "batches 1": lambda: matrix.answered(case_of("dense"), PLAIN),
        "batches 2x2": lambda: matrix.answered(case_of("dense", replicas=2), replace(PLAIN, batches_per_step=2), 8),
        "cycles": cycles,
        "updates between": lambda: said(lambda: updated(replace(PLAIN, batches_per_step=2))),
    }


def updated(settings):
    """The output of the last of two updates of one call, each of the same batch."""
    program, _, weights = compiled(case_of("dense", mode="training"), settings)
    program.load(weights)
    program.set_learning_rate(0.5)
    program.run()
    found = program.outputs()["output"].tolist()
    program.close()
    return found


def cycles():
    program, _, _ = compiled(case_of("dense"), replace(PLAIN, poplar=Poplar(cycle_count=True)))
    program.run()
    found = program.told()
    program.close()
    return found


def predicted(precision):
    """How far a training program's `predict` is from the inference graph, at weights that three updates moved."""
    import numpy as np

    from bench import workloads
    from bench.graph import draws
    from bench.graph.reference import evaluate

    case = case_of("resnet8", mode="training", precision=precision)
    program, graph, weights = compiled(case, PLAIN)
    program.load(weights)
    program.set_learning_rate(1e-3)
    for _ in range(3):
        program.run()
    batch = draws.inputs(graph, "float32", 7)
    plain = workloads.of_case(replace(case, mode="inference"))
    held = {key: array.copy() for key, array in program.weights().items()}
    expected = evaluate(plain, held, {"input0": batch["input0"]}, "float64")[0]
    got = program.predict(batch)
    moved = max(np.linalg.norm(held[k] - weights[k]) / np.linalg.norm(weights[k]) for k in held if "running" in k)
    program.close()
    apart = np.linalg.norm(got - expected) / np.linalg.norm(expected)
    return {"moved": float(moved), "apart": float(apart)}

"""Cases of the popart backend on the fake SDK: how they are made, run and told."""

from __future__ import annotations

import dataclasses
import traceback

import backend_matrix
import cnn_matrix
import contract
import popart_fake

from bench import check, workloads
from bench.backends import popart
from bench.cases.case import Settings
from bench.cases.errors import Broken, Refused, Unavailable, Wrong
from bench.cases.poplar import Poplar
from bench.cases.precision import PRECISIONS
from bench.cases.recipe import Recipe
from bench.graph import draws

# What more than one batch, replica or IPU is tried on, and where its pipeline is cut.
MANY = {"dense": "", "lstm": "", "resnet8": "layer2.0"}


def case_of(name, variant="plain", mode="inference", precision="fp32", replicas=1):
    matrix = backend_matrix if name in workloads.names("layers") else cnn_matrix
    case = matrix.case_of("popart", (name, variant, mode, precision, "", ""))
    return dataclasses.replace(case, device="ipu", replicas=replicas)


def settings_of(
    name, accumulation=1, steps=1, stages=1, schedule="", replicas=1, mode="inference", recipe=None, **poplar
):
    recipe = Recipe(**{"gradient_accumulation": accumulation, **(recipe or {})})
    if stages > 1:
        fewest = 1 if schedule else 2 * stages - 1 if mode == "training" else stages
        recipe = dataclasses.replace(recipe, gradient_accumulation=fewest if mode == "training" else 1)
        steps = 1 if mode == "training" else fewest
    return Settings(
        data="generated",
        batches_per_step=steps,
        recipe=recipe,
        pipeline_splits=MANY[name] if stages > 1 else "",
        poplar=Poplar(**{"output_mode": "all", "pipeline_schedule": schedule, **poplar}),
    )


def compiled(case, settings, checked=True):
    graph = workloads.checked(case, settings.recipe) if checked else workloads.of_case(case, settings.recipe)
    precision = PRECISIONS[case.precision]
    weights = draws.weights(graph, precision.weights)
    inputs = [draws.inputs(graph, precision.compute)]
    return popart.compile(graph, weights, inputs, case, settings), graph, weights


def outcome(run):
    """What `run` gives, or raises, and whether a device stays held."""
    contract.reset()
    try:
        found = {"outcome": "passed", **(run() or {})}
    except Wrong as error:
        found = {"outcome": "Wrong", "text": str(error)}
    except (Unavailable, Refused, Broken, ImportError) as error:
        found = {"outcome": type(error).__name__, "text": str(error)}
    except Exception:  # noqa: BLE001 - one broken case is to be told, and not to hide the others
        found = {"outcome": "error", "text": traceback.format_exc()}
    found["held"] = len(popart_fake.HELD)
    found["called"] = sum("DeviceManager" in one.name for one in contract.calls)
    popart_fake.HELD.clear()
    return found


def require(case, settings):
    program, graph, weights = compiled(case, settings)
    try:
        found = check.require(program, graph, case, weights)
    finally:
        program.close()
    return {"check": found, "compute": program.compute, "held_in": program.held, "source": program.source}

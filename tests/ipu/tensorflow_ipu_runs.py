"""What TensorFlow for IPU does on the fakes, in one process: `python tensorflow_ipu_runs.py FILE`.

Writes what came of each case of `tensorflow_ipu_cases.py`, by its name, as JSON.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import traceback
from pathlib import Path

sys.path.extend(str(parent) for parent in Path(__file__).resolve().parents[1:3])

import numpy as np
from tensorflow_ipu_cases import (
    CUT,
    ENGINE,
    FAILURES,
    IPU,
    OPTIONS,
    PIPELINES,
    REFUSED,
    RUN,
    case_of,
    checks,
    environment,
    pipelined,
    settings_of,
)

from bench import backends, check, workloads
from bench.cases.errors import Broken, Refused, Unavailable, Wrong
from bench.cases.poplar import Poplar
from bench.cases.precision import PRECISIONS
from bench.cases.recipe import Recipe
from bench.graph import draws
from bench.graph.reference import evaluate


def compiled(case, settings):
    graph = workloads.checked(case, settings.recipe)
    precision = PRECISIONS[case.precision]
    weights = draws.weights(graph, precision.weights)
    inputs = [draws.inputs(graph, precision.compute, 5)]
    program = backends.load(case.backend).compile(graph, weights, inputs, case, settings)
    return program, graph, weights


def seen(case, settings, changed, look):
    """What `look(program, graph, weights)` says, the calls until then, and what is held after the program's end."""
    import contract
    from tensorflow_fake_run import System

    contract.reset()
    answer = {"outcome": "passed"}
    with environment(changed):
        try:
            program, graph, weights = compiled(case, settings)
            try:
                answer["said"] = look(program, graph, weights)
            finally:
                if program.close is not None:
                    program.close()
        except (Unavailable, Wrong, Refused, Broken) as error:
            answer.update(outcome=type(error).__name__, text=str(error))
        except Exception as error:  # noqa: BLE001 - it is told
            answer.update(outcome="error", text=f"{type(error).__name__}: {error}", where=traceback.format_exc())
    answer["calls"] = [
        [call.name[len(IPU) + 1 :] if IPU in call.name else call.name, call.arguments] for call in contract.calls
    ]
    return {**answer, "held": System.ipus}


def checked(case, told, changed):
    def look(program, graph, weights):
        return check.require(program, graph, case, weights)

    return {**seen(case, settings_of(told), changed, look), "calls": []}


def once(program, graph, weights):
    program.run()
    return {"facts": program.facts, "source": program.source, "looped": program.looped, "batches": program.batches}


def failing(changed, late=False):
    """A program whose first call, or whose second, fails."""

    def look(program, graph, weights):
        os.environ.update(changed)
        program.run()

    chosen = Poplar(output_mode="all", wait_s=5.0 if "times" in str(changed) else 0.0)
    return seen(case_of("dense", "training"), settings_of({"poplar": chosen}), {} if late else changed, look)


def order(told, mode="inference", replicas=2, **changed):
    """Which of five host batches each copy of three calls is the answer to."""
    case = case_of("dense", mode, replicas=replicas)
    settings = settings_of({"batches_per_step": 2, **told})

    def look(program, graph, weights):
        batches = [draws.inputs(graph, "float32", batch) for batch in range(5)]
        expected = [evaluate(graph, weights, batch, "float64")[0] for batch in batches]
        found = []
        for fed in (batches, batches[3:], iter(batches * 4)):
            program.feed(fed)
            for _ in range(2):
                program.run()
                got = copies(program)
                found.append(
                    [next((i for i, e in enumerate(expected) if np.allclose(one, e, atol=1e-4)), -1) for one in got]
                )
        return found

    return seen(case, settings, changed, look)


def copies(program):
    """Every copy that the last call brought back, as the backend holds them."""
    cells = dict(zip(program.run.__code__.co_freevars, program.run.__closure__))
    return cells["call"].cell_contents.copies()["output"]


def resident(case, told):
    """A synthetic program's own result, and the reference's."""

    def look(program, graph, weights):
        batch = draws.inputs(graph, "float32", 2)
        program.feed([batch])
        program.run()
        got, expected = program.outputs()["output"], evaluate(graph, weights, batch, "float64")[0]
        close = bool(np.allclose(got, expected, atol=1e-4))
        return {
            "close": close,
            "finite": bool(np.isfinite(got).all()),
            "shape": list(got.shape),
            "facts": program.facts,
        }

    return seen(case, settings_of({"data": "synthetic", **told}), {}, look)


def chained():
    """Whether the next synthetic batch depends on the last result: it does where the factor of that is not nothing."""
    from bench.backends.tensorflow_ipu import calls as made

    kept, made.NOTHING = made.NOTHING, 1.0
    try:
        return {steps: resident(case_of("dense", "inference"), {"batches_per_step": steps}) for steps in (1, 2)}
    finally:
        made.NOTHING = kept


def statistics(engine, accumulation):
    """The running statistics after one update, from the same batch again and again."""
    case = case_of("resnet8", "training", engine=engine)
    recipe = Recipe(gradient_accumulation=accumulation)

    def look(program, graph, weights):
        batch = draws.inputs(graph, "float32", 2)
        program.feed([batch])
        program.load(weights)
        program.set_learning_rate(0.0)
        program.run()
        held = program.weights()
        return {name: array.ravel()[:4].tolist() for name, array in held.items() if "running" in name}

    return seen(case, settings_of({"recipe": recipe}), {}, look)


def optimised(name, accumulation, precision="fp32", **more):
    """A weight after three updates by an optimiser, here and by stock TensorFlow."""
    found = []
    for engine in (ENGINE, "tensorflow"):
        case = case_of("dense", "training", precision, engine=engine)
        recipe = Recipe(optimiser=name, weight_decay=0.01, gradient_accumulation=accumulation, **more)

        def look(program, graph, weights):
            program.load(weights)
            program.feed([draws.inputs(graph, "float32", 2)])
            program.set_learning_rate(0.01)
            for _ in range(3):
                program.run()
            return {key: array.ravel()[:6].tolist() for key, array in program.weights().items()}

        found.append(seen(case, settings_of({"recipe": recipe}), {}, look))
    return found


def predicted():
    case = case_of("resnet8", "training")

    def look(program, graph, weights):
        batch = draws.inputs(graph, "float32", 7)
        program.compute_only()
        program.load(weights)
        plain = workloads.of_case(dataclasses.replace(case, mode="inference"))
        expected = evaluate(plain, weights, {"input0": batch["input0"]}, "float64")[0]
        return float(np.linalg.norm(program.predict(batch) - expected) / np.linalg.norm(expected))

    return seen(case, settings_of({}), {}, look)


def cycles():
    settings = settings_of({"poplar": Poplar(output_mode="all", cycle_count=True)})
    changed = backends.load(ENGINE).environment(settings, "ipu")
    return seen(case_of("dense", "inference"), settings, changed, lambda program, graph, weights: program.told())


def whole(mode, told, **changed):
    """What a whole run makes of a case: its record, or how it ends."""
    from tensorflow_fake_run import System

    from bench import run

    case = case_of("dense", mode, replicas=2)
    settings = dataclasses.replace(settings_of(told), steps=2)
    with environment(changed):
        try:
            record = run.run(case, settings, lambda phase: None)["record"]
            keys = ("source", "items_per_step", "items_per_s", "batches_per_step", "tuned_output_mode", "checked_rows")
            return {"outcome": "passed", "said": {key: record.get(key) for key in keys}, "held": System.ipus}
        except Wrong as error:
            return {"outcome": "Wrong", "text": str(error), "held": System.ipus}


def interrupted():
    """Batches that stop coming with an error."""

    def broken(batch):
        for _ in range(3):
            yield batch
        raise ValueError("an image is no image")

    def look(program, graph, weights):
        program.feed(broken(draws.inputs(graph, "float32", 0)))
        for _ in range(4):
            program.run()

    return seen(case_of("dense", "inference"), settings_of({}), {}, look)


def told():
    """What was called for each option, and what came of each failure."""
    both = case_of("lstm", "training", replicas=2)
    late = {name: changed for name, changed in FAILURES.items() if RUN in str(changed)}
    return {
        "options": {name: seen(both, settings_of(told), {}, once) for name, told in OPTIONS.items()},
        "pipelines": {name: seen(*pipelined(name, told), {}, once) for name, told in PIPELINES.items()},
        "refused": {name: seen(case, settings_of(told), {}, once) for name, (case, told) in REFUSED.items()},
        "failing": {name: failing(changed) for name, changed in FAILURES.items()},
        "failing late": {name: failing(changed, late=True) for name, changed in late.items()},
        "half": seen(case_of("gru", "inference", "fp16"), settings_of({"half_partial": True}), {}, once),
        "interrupted": interrupted(),
        "cycles": cycles(),
        "model": seen(
            *(case_of("dense", "inference"), settings_of({"poplar": Poplar(ipu_model=True, device_id=3)})),
            *({"FAKE_IPU_BUSY": "0,1,2,3", "TF_POPLAR_FLAGS": "--use_ipu_model"}, once),
        ),
    }


def synthetic():
    sequential = Poplar(pipeline_schedule="sequential")
    return {
        "inference": resident(case_of("dense", "inference", replicas=2), {"batches_per_step": 3}),
        "eval": resident(case_of("resnet8", "eval"), {"batches_per_step": 2}),
        "training": resident(case_of("dense", "training", replicas=2), {"batches_per_step": 2}),
        "pipeline": resident(case_of("resnet8", "inference"), {"batches_per_step": 2, "pipeline_splits": CUT}),
        "trained pipeline": resident(case_of("resnet8", "training"), {"pipeline_splits": CUT, "poplar": sequential}),
        "no inputs": seen(case_of("hmc", "inference"), settings_of({"data": "synthetic"}), {}, once),
    }


def everything():
    engines, accumulated = (ENGINE, "tensorflow"), Recipe(gradient_accumulation=2)
    modes = {mode: order({"poplar": Poplar(output_mode=mode)}) for mode in ("all", "final")}
    optimisers = {name: optimised(name, 2) for name in ("momentum", "rmsprop_tf", "adamw", "lars")}
    return {
        **{name: checked(*given) for name, given in checks().items()},
        **told(),
        "order": {**modes, "stale": order({}, FAKE_TF_WRONG="stale")},
        "resident": synthetic(),
        "chained": chained(),
        "statistics": {f"{engine} {n}": statistics(engine, n) for engine in engines for n in (1, 3)},
        "optimisers": {**optimisers, "scaled": optimised("rmsprop_tf", 1, "fp16m", loss_scaling=128.0)},
        "predicted": predicted(),
        "whole": {
            "training": whole("training", {"batches_per_step": 3, "recipe": accumulated}),
            "inference": whole("inference", {"batches_per_step": 3, "data": "synthetic"}),
            "wrong": whole("training", {}, FAKE_TF_WRONG="sum"),
        },
    }


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(everything(), default=str))

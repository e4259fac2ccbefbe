"""One IPU backend on the fakes of its SDK, in one process: `python contract_worker.py BACKEND PART FILE`, with
tests/fakes on the path.

Writes the answer to each question, by kind and name, as JSON: `outcome` (passed, or the exception's name) and `text`;
`said`, the value that the question returns; `calls` of the SDK with their arguments; `held`, the number of devices that
were not released. The tests judge the answers.

Cases (`keys`, `MANY`) are chosen pairwise. Layers are checked in every mode in fp32, in each 16-bit precision in one
mode, and with each changed dimension in one mode. The modes alternate, so that each mode meets each precision. Ways to
run several batches, replicas or IPUs are loops around the lowering, and do not interact with layers, precisions and
dimensions. So each way is checked once in every mode that it has, on a dense layer, a recurrent layer or a network.
PART `thorough` is the remaining cases.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import json
import os
import sys
import traceback
from pathlib import Path

# Python 3.8 has no slices of parents.
sys.path.extend(str(parent) for parent in list(Path(__file__).resolve().parents)[1:3])

import backend_matrix
import cnn_matrix
import contract
import contract_own
import contract_sdks
import numpy as np

from bench import backends, check, workloads
from bench.cases import ipu_rules
from bench.cases.case import MODES, Settings
from bench.cases.errors import Refused
from bench.cases.poplar import Poplar
from bench.cases.precision import PRECISIONS
from bench.cases.recipe import Recipe
from bench.graph import draws
from bench.graph.reference import evaluate

CUTS = {"resnet8": "layer2.0", "mobilenet_v3_small": "features.4"}
NETWORKS = ("mobilenet_v3_small", "efficientnet_b0", *cnn_matrix.NEW)
HALF = ("fp16", "fp16m")
# Changes of the settings of a case; `schedule` is that of a pipeline of two stages.
WAYS = {
    "plain": {},
    "replicas": {"replicas": 2},
    "steps": {"batches_per_step": 3},
    "accumulated": {"recipe": {"gradient_accumulation": 3}},
    "both": {"replicas": 2, "recipe": {"gradient_accumulation": 3}},
    "pipelined": {"schedule": ""},
    "pipelined replicas": {"schedule": "", "replicas": 2},
    "sequential": {"schedule": "sequential"},
    "interleaved": {"schedule": "interleaved"},
    "recomputed": {"recipe": {"recompute": "auto"}},
    "recomputed by name": {"recipe": {"recompute": "manual", "recompute_layers": "layer[12]"}},
    "recomputed by name in a pipeline": {
        "schedule": "",
        "recipe": {"recompute": "manual", "recompute_layers": "layer1"},
    },
    "smoothed": {"recipe": {"label_smoothing": 0.1}},
    "alone": {"replicas": 2, "all_reduce": False},
    "alone in a pipeline": {"schedule": "interleaved", "all_reduce": False},
}
MANY = (
    *(("dense", way, "training") for way in ("replicas", "accumulated", "both", "alone")),
    *(("dense", way, "inference") for way in ("replicas", "steps")),
    ("dense", "replicas", "eval"),
    ("lstm", "both", "training"),
    ("lstm", "steps", "inference"),
    *(
        ("resnet8", way, "training")
        for way in WAYS
        if way not in ("plain", "alone", "steps", "replicas", "accumulated")
    ),
    *(("resnet8", way, "inference") for way in ("pipelined", "pipelined replicas", "sequential")),
    ("resnet8", "pipelined", "eval"),
)
THOROUGH_MANY = (
    *((workload, way, "training") for workload in ("lstm", "resnet8") for way in ("replicas", "accumulated")),
    ("resnet8", "steps", "inference"),
    ("mobilenet_v3_small", "pipelined", "inference"),
)
OPTIMISERS = ("sgd", "momentum", "rmsprop", "rmsprop_tf", "adam", "adamw", "lars")


# ---- cases -------------------------------------------------------------------------------------------------------


class Bench:
    """A backend, with functions that make cases and run them."""

    def __init__(self, name):
        self.name, self.engine, self.sdk = name, backends.load(name), contract_sdks.SDKS[name]

    def case(self, workload, mode="inference", precision="fp32", variant="plain", replicas=1):
        matrix = backend_matrix if workload in workloads.names("layers") else cnn_matrix
        case = matrix.case_of(self.name, (workload, variant, mode, precision, "", ""))
        dimensions = workloads.load(workload).canonical(case.dimensions)
        return dataclasses.replace(case, device="ipu", dimensions=dimensions, batch_size=3, replicas=replicas)

    def settings(self, case, schedule=None, recipe=None, replicas=1, poplar=None, **more):
        """Settings of a program that returns all results. A pipeline gets as few batches as it allows."""
        more = {"data": "generated", **more}
        poplar = {"output_mode": "all", **(poplar or {})}
        recipe = dict(recipe or {})
        if schedule is not None:
            more["pipeline_splits"] = CUTS.get(case.workload, "layer2.0")
            poplar["pipeline_schedule"] = schedule
            training = case.mode == "training"
            fewest, _ = ipu_rules.pipeline_unit(self.name, schedule, 2, training)
            if training:
                recipe["gradient_accumulation"] = fewest
            else:
                more["batches_per_step"] = fewest
        return Settings(recipe=Recipe(**recipe), poplar=Poplar(**poplar), **more)

    def made(self, workload, mode="inference", precision="fp32", variant="plain", dimensions=None, **way):
        case = self.case(workload, mode, precision, variant, way.get("replicas", 1))
        case = dataclasses.replace(case, dimensions={**case.dimensions, **(dimensions or {})})
        return case, self.settings(case, **way)

    def compiled(self, case, settings, timed=False):
        graph = workloads.of_case(case, settings.recipe) if timed else workloads.checked(case, settings.recipe)
        precision = PRECISIONS[case.precision]
        weights = draws.weights(graph, precision.weights)
        inputs = [draws.inputs(graph, precision.compute, 5)]
        return backends.load(case.backend).compile(graph, weights, inputs, case, settings), graph, weights

    def seen(self, case, settings, look, environ=None, timed=False):
        """The answer of `look(program, graph, weights)`, with the calls and the exception if there is one."""
        contract.reset()
        answer = {"outcome": "passed"}
        with environment(environ or {}):
            try:
                program, graph, weights = self.compiled(case, settings, timed)
                answer["compiling"] = len(contract.calls)
                try:
                    answer["said"] = look(program, graph, weights)
                finally:
                    program.release()
            except Exception as error:  # noqa: BLE001 - what is raised is the answer
                answer.update(raised(error))
        return self.ended(answer)

    def ended(self, answer):
        answer["calls"] = [[self.sdk.short(call.name), call.arguments] for call in contract.calls]
        return {**answer, "held": contract_own.held(self.name)}

    def whole(self, case, settings, environ=None):
        """Some fields of the record of a case, run as in a worker."""
        from bench import run

        contract.reset()
        # The clock collects garbage before it starts; TensorFlow's million objects are none.
        gc.freeze()
        answer = {"outcome": "passed"}
        with environment(environ or {}):
            try:
                settings = dataclasses.replace(settings, steps=2, max_time_s=0.0, min_rounds=1)
                record = run.run(case, settings, lambda phase: None)["record"] or {}
                answer["said"] = {name: record.get(name) for name in RECORDED}
            except Exception as error:  # noqa: BLE001 - what is raised is the answer
                answer.update(raised(error))
        return self.ended(answer)


RECORDED = ("source", "items_per_step", "items_per_s", "step_median_s", "latency_p50_s", "tuned_output_mode")
RECORDED += ("checked_rows", "batch_size")


def raised(error):
    return {
        "outcome": type(error).__name__ if type(error).__module__.startswith("bench.") else "error",
        "text": str(error) if type(error).__module__.startswith("bench.") else f"{type(error).__name__}: {error}",
        "where": traceback.format_exc(),
    }


@contextlib.contextmanager
def environment(changed):
    before = dict(os.environ)
    os.environ.update(changed)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def checked(case):
    def look(program, graph, weights):
        answer = check.require(program, graph, case, weights)
        return {**answer, "compute": program.compute_dtype, "held": program.weight_dtype, "source": program.source}

    return look


def once(program, graph, weights):
    """One run, as it is timed: attributes of the program, and its results."""
    if program.training:
        program.load(weights)
        program.set_learning_rate(0.5)
    program.run()
    outputs = {name: [list(array.shape), bool(np.isfinite(array).all())] for name, array in program.outputs().items()}
    known = {"looped": program.device_loop, "batches": program.batches_in_flight, "source": program.source}
    return {**known, "facts": program.facts, "outputs": outputs, "told": program.device_facts()}


def compiled_only(program, graph, weights):
    """For programs that are compiled and not run."""


# ---- questions that all backends are asked -------------------------------------------------------------------------


def numbers(bench):
    for workload, variant, mode, precision in keys():
        case, settings = bench.made(workload, mode, precision, variant)
        yield "-".join((workload, variant, mode, precision)), bench.seen(case, settings, checked(case))


def keys():
    """The (workload, variant, mode, precision) of the cases."""
    for number, layer in enumerate(workloads.names("layers")):
        yield from ((layer, "plain", mode, "fp32") for mode in MODES if has(layer, mode))
        for place, precision in enumerate(HALF):
            modes = [mode for mode in MODES if has(layer, mode, precision)]
            yield from ((layer, "plain", mode, precision) for mode in one_of(modes, number + place))
    changes = [
        (layer, variant) for layer in workloads.names("layers") for variant in backend_matrix.variants(layer)[1:]
    ]
    for number, (layer, variant) in enumerate(changes):
        modes = [
            mode for mode in ("training", "eval" if variant.startswith("loss=") else "inference") if has(layer, mode)
        ]
        yield from ((layer, variant, mode, "fp32") for mode in one_of(modes, number))
    yield from (("resnet8", "plain", mode, "fp32") for mode in MODES)
    yield from (("resnet8", "plain", "training", "fp16"), ("resnet8", "plain", "inference", "fp16m"))
    dimensions = workloads.load("resnet8").dimensions
    variants = [name for name, changed in cnn_matrix.VARIANTS.items() if changed and set(changed) <= {*dimensions}]
    yield from (("resnet8", name, ("training", "inference")[index % 2], "fp32") for index, name in enumerate(variants))
    yield from (("mobilenet_v3_small", "plain", "training", "fp32"), ("efficientnet_b0", "plain", "inference", "fp32"))
    yield from ((model, "plain", "training", "fp32") for model in cnn_matrix.NEW)


def one_of(modes, number):
    """One of the modes, in turn; none if there are none."""
    return modes[number % len(modes) :][:1] if modes else []


def thorough_keys():
    """The cases that `keys` leaves out."""
    left = [(network, "plain", mode, "fp32") for network in NETWORKS for mode in MODES]
    left += [("resnet8", "plain", mode, precision) for mode in ("inference", "training") for precision in HALF]
    dimensions = workloads.load("resnet8").dimensions
    for name, changed in cnn_matrix.VARIANTS.items():
        if changed and set(changed) <= {*dimensions}:
            left += [("resnet8", name, mode, "fp32") for mode in ("inference", "training")]
    for layer in workloads.names("layers"):
        left += [
            (layer, v, mode, "fp32") for v in backend_matrix.variants(layer)[1:] for mode in MODES if has(layer, mode)
        ]
        left += [(layer, "plain", mode, half) for half in HALF for mode in MODES if has(layer, mode, half)]
    return [key for key in left if key not in set(keys())]


def has(layer, mode, precision="fp32"):
    return workloads.unsupported(layer, mode, precision) is None


def thorough(bench):
    for workload, variant, mode, precision in thorough_keys():
        case, settings = bench.made(workload, mode, precision, variant)
        yield "-".join((workload, variant, mode, precision)), bench.seen(case, settings, checked(case))
    yield from many(bench, THOROUGH_MANY)


def many(bench, cases=MANY):
    for workload, way, mode in cases:
        case, settings = bench.made(workload, mode, **WAYS[way])
        yield f"{workload}-{way}-{mode}", bench.seen(case, settings, checked(case))


def wrong(bench):
    """Injected errors of the fakes."""
    for kind, (mode, way, _) in contract_sdks.WRONG.items():
        if kind in bench.sdk.wrong:
            case, settings = bench.made("dense", mode, **WAYS[way])
            environ = {"FAKE_IPU_WRONG": kind}
            yield kind, bench.seen(case, settings, checked(case), environ)
    case, settings = bench.made("dense", "training", replicas=2)
    yield "whole run", bench.whole(case, settings, {"FAKE_IPU_WRONG": "sum"})


def programs(bench):
    """The calls for a program that is compiled, fed, run once and released."""
    for name, way in contract_sdks.PROGRAMS.items():
        way = {"workload": "dense", **way}
        case, settings = bench.made(**way)
        look = compiled_only if settings.poplar.compile_only and bench.name != "tensorflow_ipu" else once
        environ = bench.engine.environment(settings, "ipu") if settings.poplar.cycle_count else {}
        answer = bench.seen(case, settings, look, environ, timed=case.workload == "hmc")
        yield name, {**answer, **contract_own.marks(bench)}


def operations(bench):
    """The options that reach each kind of operation, for each kind of workload and each option about operations."""
    for kind, workload in contract_sdks.KINDS.items():
        for option, change in contract_sdks.OPERATIONS.items():
            case, settings = bench.made(**{**workload, **change})
            yield f"{kind}: {option}", bench.seen(case, settings, once)


def sessions(bench):
    """Where optimiser state is, and how numbers are rounded and inputs fetched, in each program of SESSIONS."""
    for name, change in contract_sdks.SESSIONS.items():
        case, settings = bench.made(**{"workload": "dense", **change})
        yield name, bench.seen(case, settings, once, timed=case.workload == "hmc")


def faults(bench):
    """Exceptions of the SDK in compilation and in a run."""
    case, settings = bench.made("dense", "training", poplar={"available_memory_proportion": (0.3,)})
    for name, (exception, message, attributes) in bench.sdk.faults.items():
        for when, call in bench.sdk.fails_at.items():
            fault = {"exception": exception, "message": message, "attributes": attributes}
            environ = {"FAKE_IPU_FAULTS": json.dumps({call: fault})}

            def look(program, graph, weights, environ=environ):
                os.environ.update(environ)
                program.run()

            yield f"{name} {when}", bench.seen(case, settings, look, environ if when == "early" else {})


def ways_out(bench):
    """A whole run in which one call fails."""
    case, settings = bench.made("dense", "training", min_warmup_s=0.0)
    exception, message, _ = bench.sdk.faults["memory"]
    for call in bench.sdk.steps:
        fault = {"FAKE_IPU_FAULTS": json.dumps({call: {"exception": exception, "message": message}})}
        yield call, bench.whole(case, settings, fault)
    yield "none", bench.whole(case, settings)


def devices(bench):
    """Devices that are busy or missing."""
    asked = {
        "all busy": ({"FAKE_IPU_BUSY": "0,1,2,3"}, {}, 1),
        "all busy, waited": ({"FAKE_IPU_BUSY": "0,1,2,3"}, {"wait_s": 1.2}, 1),
        "another is free": ({"FAKE_IPU_BUSY": "0"}, {}, 1),
        "the named one is busy": ({"FAKE_IPU_BUSY": "2"}, {"device_id": 2}, 1),
        "the named one is larger": ({}, {"device_id": 4}, 1),
        "too many": ({}, {}, 8),
    }
    for name, (environ, poplar, replicas) in asked.items():
        case, settings = bench.made("dense", replicas=replicas, poplar=poplar)
        yield name, bench.seen(case, settings, compiled_only, environ)
    if bench.sdk.none_free is not None:
        call, exception, message = bench.sdk.none_free
        environ = {"FAKE_IPU_FAULTS": json.dumps({call: {"exception": exception, "message": message, "times": 1}})}
        case, settings = bench.made("dense", poplar={"wait_s": 30.0})
        yield "soon free", bench.seen(case, settings, compiled_only, environ)


def feeds(bench):
    """Of the last result of each call, the index of its host batch among five; two calls for each feed."""
    case, settings = bench.made("dense", replicas=2, batches_per_step=2)

    def look(program, graph, weights):
        batches = [draws.inputs(graph, "float32", batch) for batch in range(5)]
        expected = [evaluate(graph, weights, batch, "float64")[0] for batch in batches]
        answered = []
        for fed in (batches, batches[:3], iter(batches * 4)):
            program.feed(fed)
            for _ in range(2):
                program.run()
                output = program.outputs()["output"]
                answered.append(next((i for i, e in enumerate(expected) if np.allclose(output, e, atol=1e-4)), -1))
        return answered

    yield "in turn", bench.seen(case, settings, look)
    for count in (7, 8):
        yield f"end of {count}", bench.seen(case, settings, ends_after(count))


def ends_after(count):
    """How many calls an iterator of `count` batches is enough for, and what the next call raises."""

    def look(program, graph, weights):
        program.feed(iter([draws.inputs(graph, "float32", batch) for batch in range(count)]))
        for done in range(9):
            try:
                program.run()
            except Refused as error:
                return [done, str(error)]

    return look


def optimisers(bench):
    """The weights after three updates: here, with the framework on a CPU, and here again from the same weights."""
    for name in OPTIMISERS:
        recipe = {"optimiser": name, "weight_decay": 0.01, "gradient_accumulation": 2, "optimiser_epsilon": 1e-3}
        case, settings = bench.made("dense", "training", recipe=recipe)
        ours = bench.seen(case, settings, lambda *made: [ends(*made), ends(*made)])
        if ours["outcome"] == "passed":
            (first, again), stock = ours["said"], ends_of_stock(bench, case, settings)
            ours["said"] = {"apart": apart(first, stock), "again": apart(again, first)}
        yield name, ours


def ends(program, graph, weights):
    """The weights after three updates with different batches."""
    batches = [draws.inputs(graph, "float32", batch) for batch in range(6)]
    program.load(weights)
    program.set_learning_rate(0.01)
    program.feed(iter(batches))
    for _ in range(3):
        program.run()
    return {name: array.copy() for name, array in program.weights().items()}


def ends_of_stock(bench, case, settings):
    stock = dataclasses.replace(case, backend=bench.sdk.stock, device="cpu")
    program, graph, weights = bench.compiled(stock, dataclasses.replace(settings, poplar=Poplar()))
    return ends(program, graph, weights)


def apart(one, other):
    return max(float(np.linalg.norm(one[key] - other[key]) / np.linalg.norm(other[key])) for key in one)


def runs(bench):
    """Facts, running statistics, predictions and records of runs."""
    case, settings = bench.made("dense", poplar={"cycle_count": True})
    environ = {name: value for name, value in bench.engine.environment(settings, "ipu").items()}
    yield "cycles", bench.seen(case, settings, once, environ)
    case, settings = bench.made("resnet8", "training")
    yield "statistics", bench.seen(case, settings, moved)
    for precision in bench.sdk.predicts:
        case, settings = bench.made("resnet8", "training", precision)
        yield f"predicted {precision}", bench.seen(case, settings, predicted(case))
    for mode, way in (("training", "both"), ("inference", "replicas")):
        case, settings = bench.made("dense", mode, batches_per_step=3, **WAYS[way])
        yield f"whole {mode}", bench.whole(case, settings)
    case, settings = bench.made("dense", batches_per_step=3, replicas=2, data="synthetic", poplar={"output_mode": ""})
    yield "whole synthetic", bench.whole(case, settings)


def moved(program, graph, weights):
    """The largest change of each running statistic in one update."""
    program.load(weights)
    program.set_learning_rate(1e-3)
    program.run()
    after = program.weights()
    return [float(np.abs(after[key] - weights[key]).max()) for key in weights if "running" in key]


def predicted(case):
    def look(program, graph, weights):
        """The relative error of predictions, compared with the inference graph at the updated weights."""
        program.run_resident()
        program.load(weights)
        program.set_learning_rate(1e-3)
        for _ in range(3):
            program.run()
        batch = draws.inputs(graph, "float32", 7)
        plain = workloads.of_case(dataclasses.replace(case, mode="inference"))
        after = {key: array.copy() for key, array in program.weights().items()}
        expected = evaluate(plain, after, {"input0": batch["input0"]}, "float64")[0]
        return float(np.linalg.norm(program.predict(batch) - expected) / np.linalg.norm(expected))

    return look


def under_poprun(bench):
    """The calls of an instance under poprun: two instances, four replicas of one IPU."""
    from bench.backends import _ipu

    for name, launched, replicas in (("fits", "2,4,1", 2), ("alone", "", 2), ("other numbers", "2,4,1", 3)):
        _ipu._initialised.clear()
        case, settings = bench.made("dense", replicas=replicas)
        contract.reset()
        answer = {"outcome": "passed"}
        with environment({"FAKE_POPDIST": launched} if launched else {}):
            try:
                contract_own.CONFIGURE[bench.name](workloads.of_case(case), case, settings)
            except Exception as error:  # noqa: BLE001 - what is raised is the answer
                answer.update(raised(error))
        yield name, {**answer, "calls": [[call.name, call.arguments] for call in contract.calls]}
    _ipu._initialised.clear()


def version(bench):
    yield "of the SDK", {"outcome": "passed", "said": bench.engine.version()}


QUESTIONS = (
    numbers,
    many,
    wrong,
    programs,
    operations,
    sessions,
    faults,
    ways_out,
    devices,
    feeds,
    optimisers,
    runs,
    under_poprun,
    version,
)

if __name__ == "__main__":
    bench = Bench(sys.argv[1])
    bench.engine.version()
    if bench.name == "popart":
        contract_own.remember_models()
    asked = (thorough,) if sys.argv[2] == "thorough" else QUESTIONS
    answers = {question.__name__: dict(question(bench)) for question in asked}
    if sys.argv[2] != "thorough":
        answers["own"] = dict(contract_own.QUESTIONS[bench.name](bench)) if bench.name in contract_own.QUESTIONS else {}
    Path(sys.argv[3]).write_text(json.dumps(answers, default=str))

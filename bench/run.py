"""One case: compile, check, feed, time. This runs in the worker, where the framework is loaded."""

from __future__ import annotations

import contextlib
import math
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Tuple

from bench import backends, cache, check, profiling, recheck, startup, workloads
from bench import devices as device
from bench.cases.case import Case, Settings
from bench.cases.errors import Refused, Unavailable, Wrong
from bench.cases.precision import PRECISIONS
from bench.cases.recipe import DEFAULT_RECIPE
from bench.clock import conditions, memory, slowdown, surroundings, turn
from bench.clock.sampling import Samples, measure, measure_blocks
from bench.graph import Graph, draws, weight_files
from bench.group import ALONE, Group
from bench.images import Dataset, Stopped
from bench.job import Job, Pace
from bench.program import Program, Step, repeat
from bench.real_data import material
from bench.results import cold, record
from bench.results.fields import PASSES
from bench.results.profile import rows as profile_rows
from bench.workloads import host_pipeline

Reply = Dict[str, Any]
# Fields of a record that are known before it is built.
Facts = Dict[str, Any]

# The shares of a profile would be of a time that is not that of a step.
NO_PROFILE: Facts = {"profile_note": "no profile: the case is INVALID"}
# The number of host batches that generated data repeats in a cycle.
GENERATED_BATCHES = 4


def run(
    case: Case,
    settings: Settings,
    tell: Callable[[str], None],
    canary_s: Optional[Dict[str, float]] = None,
    group: Group = ALONE,
    pace: Optional[Pace] = None,
) -> Reply:
    """Compile, check and time one case, or one replica of `group`. Returns `record` and `samples` (seconds); the record
    is None if the case is not timed.

    pace   times the case as one side of a pair; see Job

    Raises Unavailable, Wrong or Refused, and any error of the framework.
    """
    job = Job(case, settings, group, tell, canary_s, pace=pace)
    try:
        # First, before anything is loaded or waited for: the images may be missing or broken.
        job.images = _images(job)
        # `compiling` is released before timing: a job that held it and leased the machine would wait for itself.
        with contextlib.ExitStack() as devices, job.compiling:
            turn.to_compile(job, devices)
            return _pipeline(job) if case.workload == host_pipeline.NAME else _network(job)
    except (ValueError, Stopped) as error:
        if settings.data != "real" and case.workload != host_pipeline.NAME:
            raise
        raise Refused(str(error)) from None


def _images(job: Job) -> Mapping[str, Dataset]:
    """The data sets of a case, by split. Raises ValueError if the replicas find different ones."""
    images = material.images(job.case, job.settings, job.tell)
    if images:
        counts = job.group.all_gather({split: dataset.count for split, dataset in images.items()}, no_timeout=True)
        if any(count != counts[0] for count in counts):
            listed = "; ".join(f"replica {rank}: {count}" for rank, count in enumerate(counts))
            folder = job.settings.data_dir
            raise ValueError(f"{folder}: replicas have to find the same images, and their counts are {listed}")
    return images


def _pipeline(job: Job) -> Reply:
    """Time an input pipeline without a network. Nothing is compiled or checked."""
    from bench.images import pipelines
    from bench.real_data import feeding, pipeline

    case = job.case
    (images,) = job.images.values()
    version = str(__import__(pipelines.load(case.backend).PACKAGE).__version__)
    job.memory_floor_bytes = memory.floor_bytes()
    size, training = int(case.dimensions["image_size"]), case.mode == "training"
    job.tell("decoding")
    with feeding.images(case, job.settings, images, training=training, size=size, group=job.group) as opened:
        program = pipeline.Pipeline(job, opened)
        if not job.settings.timed:
            return {"record": None, "samples": []}
        return _timed_record(job, program, {"framework_version": version, "data": "real"}, opened)


def _network(job: Job) -> Reply:
    """Compile, check and time a layer or a network."""
    case, settings = job.case, job.settings
    job.tell("loading")
    engine = backends.load(case.backend)
    with startup.timing(job, "graph_s"):
        graph = workloads.of_case(case, settings.recipe)
    _require_memory(graph, case)
    weights_note = material.require_files(graph, case, settings)
    version = startup.imported(job, engine)
    job.memory_floor_bytes = memory.floor_bytes()
    with contextlib.ExitStack() as stack:
        if settings.poplar.compile_only:
            job.tell("compiling")
            return {"record": None, "samples": [], "compile_s": _compile(job, stack, graph, settings)[2]}
        program, weights, facts, same = _checked(job, stack, graph)
        facts.update(framework_version=version, weights_note=weights_note, **startup.fields(job, program))
        _export(engine, graph, weights, case, settings)
        again = None
        # With other settings than those of the check, a program may return something else than an output.
        if settings.timed and (same or engine.checkable is None):
            again = recheck.prepared(program, case, weights, job.averaging, same)
        opened = _feed(job, stack, program, weights)
        if not settings.timed:
            program.run()
            return {"record": None, "samples": [], "cold": {name: facts[name] for name in cold.FIELDS}}
        return _timed_record(job, program, facts, opened, again)


def _checked(job: Job, stack: contextlib.ExitStack, graph: Graph) -> Tuple[Program, Dict[str, Any], Facts, bool]:
    """The program that is timed, its weights, the results of the check, and whether it is the program that was checked.

    Where the timed program cannot be checked, a smaller graph or simpler settings are compiled and checked first.
    """
    case, settings = job.case, job.settings
    # Plain gradient descent: only its update shows the gradient.
    check_settings = replace(settings, recipe=settings.recipe.checkable, data="synthetic")
    checkable = backends.load(case.backend).checkable
    if checkable is not None:
        check_settings = checkable(case, check_settings)
    check_graph = workloads.checked(case, check_settings.recipe)
    same = graph.fingerprint == check_graph.fingerprint and settings.recipe == check_settings.recipe
    same = same and settings.data != "real" and (checkable is None or settings == check_settings)
    job.tell("compiling")
    with contextlib.ExitStack() as temporary:
        scope = stack if same else temporary
        program, weights, compile_s = _compile(job, scope, check_graph, settings if same else check_settings)
        job.tell("checking")
        facts: Facts = dict(check.require(program, check_graph, case, weights, job.averaging))
    if not same:
        job.tell("compiling")
        program, weights, compile_s = _compile(job, stack, graph, settings)
    first = next(iter(check_graph.inputs.values()), None)
    facts["checked_size"] = "x".join(map(str, first.shape)) if first else None
    facts["compile_s"] = compile_s
    return program, weights, facts, same


def _compile(
    job: Job, stack: contextlib.ExitStack, graph: Graph, settings: Settings
) -> Tuple[Program, Dict[str, Any], float]:
    """The program, its weights, and the seconds of compiling. The program releases its device when `stack` closes."""
    case, precision = job.case, PRECISIONS[job.case.precision]
    with startup.timing(job, "weights_s"):
        weights = draws.weights(graph, precision.weights)
        if settings.weights:
            weights.update(weight_files.load(Path(settings.weights), graph, precision.weights).arrays)
        inputs = [draws.inputs(graph, precision.compute, batch) for batch in _batch_numbers(job, settings, 1)]
    began_s = time.perf_counter()
    engine = backends.load(case.backend)
    if device.load(case.device).replicates:
        # With poprun each process runs a share of the replicas, and the SDK averages their gradients.
        case = replace(case, replicas=case.replicas // job.group.count)
    options = {"group": job.averaging} if job.averaging.count > 1 and engine.all_reduce else {}
    program = engine.compile(graph, weights, inputs, case, settings, **options)
    stack.callback(program.release)
    return program, weights, time.perf_counter() - began_s


def _batch_numbers(job: Job, settings: Settings, least: int) -> Iterable[int]:
    """The numbers of the generated batches of this replica: enough for one weight update, and at least `least`."""
    count = max(least, settings.recipe.batches_per_update(job.case.mode))
    return range(job.group.rank * count, (job.group.rank + 1) * count)


def _feed(job: Job, stack: contextlib.ExitStack, program: Program, weights: Mapping[str, Any]) -> Any:
    """Set the inputs, weights and learning rate for timing. Returns the open pipeline of real images, or None."""
    case, settings, graph = job.case, job.settings, program.graph
    if program.training:
        program.load(weights)
        program.set_learning_rate(workloads.load(case.workload).learning_rate)
    if settings.data == "real" and not job.learns:
        from bench.real_data import feeding

        size = next(iter(graph.inputs.values())).shape[2]
        (images,) = job.images.values()
        opened = stack.enter_context(
            feeding.images(case, settings, images, training=program.training, size=size, group=job.group)
        )
        batches = map(feeding.named(graph, case, settings, replica=job.group.rank), opened)
        program.feed(feeding.in_lockstep(batches, job.averaging) if job.averaging.count > 1 else batches)
        return opened
    compute = PRECISIONS[case.precision].compute
    numbers = _batch_numbers(job, settings, 1 if settings.data == "synthetic" else GENERATED_BATCHES)
    program.feed([draws.inputs(graph, compute, batch, settings.zero_values) for batch in numbers])
    return None


def _timed_record(
    job: Job, program: Program, facts: Facts, opened: Any, again: Optional[recheck.Recheck] = None
) -> Reply:
    """Time a program, and return its record.

    facts    fields of the record that are known already
    opened   the pipeline of real images, or None
    again    checks the program after the clock; None: it cannot be checked
    """
    case, settings, images = job.case, job.settings, job.images
    latencies: List[float] = []
    working_set = _working_set(program.graph, case)
    runs = 1 if program.device_loop else program.batches_per_step
    step = Step(
        repeat(slowdown.slowed(surroundings.noting(program, latencies)), runs),
        batch_items=workloads.items(case) * settings.recipe.batches_per_update(case.mode),
        replicas=case.replicas,
        iterations=program.batches_per_step * program.batches_in_flight,
    )
    with contextlib.ExitStack() as stack:
        turn.to_time(job, stack, program.alone)
        learning = job.learns and settings.data == "real"
        if learning and not program.device_loop:
            step = replace(step, iterations=1)
        uncounted = repeat(program.run, runs)
        samples, around = surroundings.beside_canaries(
            job, working_set, lambda: _timed(job, program, step, None if learning else uncounted)
        )
        if not learning and job.pace is None:
            around.update(surroundings.all_reduce_share(program, samples, settings))
        if job.memory_floor_bytes and around["memory_peak_bytes"]:
            around["memory_case_bytes"] = around["memory_peak_bytes"] - job.memory_floor_bytes
        samples, rates = surroundings.merged(samples, step, job.group)
        check.require_finite(program)
        _require_plausible(program, case)
        canary_s = around.pop("canary_s")
        facts = {**facts, **around, **rates, **_facts(program)}
        invalid = bool(facts["invalid_reasons"])
        facts.update(_after_the_clock(job, program, opened, again, samples.median_s / runs, invalid))
    facts["data_dir"] = next(iter(images.values())).root if images else None
    facts.update(_latency(job, samples, latencies, step))
    return {
        "record": record.build(case, settings, program.graph, step, samples, facts),
        "samples": samples.seconds,
        "canary_s": canary_s,
        "use": samples.use and list(samples.use),
    }


def _after_the_clock(
    job: Job, program: Program, opened: Any, again: Optional[recheck.Recheck], run_s: float, invalid: bool
) -> Facts:
    """Fields of the record that need the device once more: those of the images, of the second check and of a profile.

    run_s     seconds of one run of the program
    invalid   the record is INVALID, so that it gets no profile
    """
    facts: Facts = {}
    if opened is not None and program.source == "measured":
        facts.update(_image_facts(job, program, opened))
    if again is not None:
        # After the images: it replaces inputs and weights.
        facts.update(again.require(run_s))
    if job.settings.profile and program.source == "measured":
        facts.update(NO_PROFILE if invalid else _profiled(job, program, run_s))
    return facts


def _profiled(job: Job, program: Program, run_s: float) -> Facts:
    """The fields of a profile, taken after everything else. A profiler that fails leaves a note, and the record stays.

    All replicas run the profiled steps, since they train together. Rank 0 writes its trace.
    """
    case = job.case
    count = min(job.group.all_gather(profiling.steps(run_s)))
    job.tell("profiling")
    try:
        profile = program.profile(count)
        nearest = profile.nearest(run_s)
        passes = PASSES[case.mode] * program.batches_per_update * program.batches_in_flight
        rows = profile_rows(program.graph, nearest, run_s, passes)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a profiler raises, the case was measured
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        return {"profile_note": f"no profile: {reason}"}
    facts: Facts = {"profile": rows, "profile_step_s": run_s, "profile_profiled_s": nearest.seconds}
    if job.group.rank > 0:
        return facts
    name = f"{case.id}.json"
    try:
        os.makedirs(job.settings.profile, exist_ok=True)
        cache.write_whole(Path(job.settings.profile) / name, profile.trace)
    except OSError as error:
        return {**facts, "profile_note": f"no trace: --profile {job.settings.profile}: {error.strerror}"}
    return {**facts, "profile_trace": name}


def _working_set(graph: Graph, case: Case) -> float:
    """Bytes of a batch's weights and activations; unlimited for an input pipeline, whose images are anywhere."""
    if not graph.operations:
        return math.inf
    elements = graph.parameters + sum(math.prod(shape) for node in graph.nodes for shape in node.shapes)
    return PRECISIONS[case.precision].bytes * elements


def _timed(job: Job, program: Program, step: Step, uncounted: Optional[Callable[[], None]]) -> Tuple[Samples, Facts]:
    """The samples of a program, and the reasons of the system why they are invalid; and what it learnt, if it trains
    for epochs (`uncounted` is None)."""
    seen: Facts = {}
    with conditions.watched(job.settings, bool(job.images), program.compiles) as watch:
        if uncounted is None:
            from bench.real_data import epochs

            samples, seen = epochs.train(program, job)
        elif job.pace is not None:
            samples = measure_blocks(
                step.run, job.settings, job.pace, group=job.group, uncounted=uncounted, warmed_up=watch.warmed_up
            )
        else:
            samples = measure(step.run, job.settings, group=job.group, uncounted=uncounted, warmed_up=watch.warmed_up)
    return samples, {**seen, "invalid_reasons": watch.reasons}


def _facts(program: Program) -> Facts:
    """The fields of a record that describe a program, its tuning and its device."""
    return {
        "batches_in_flight": program.batches_in_flight,
        "batches_per_step": program.batches_per_step,
        **{f"tuned_{key}": value for key, value in program.facts.items()},
        **program.device_facts(),
        "source": program.source,
        "not_compiled": program.not_compiled,
        **{f"device_{key}": value for key, value in device.load(program.case.device).describe().items()},
    }


def _latency(job: Job, samples: Samples, latencies: List[float], step: Step) -> Facts:
    """Percentiles of the latency of a batch. With several in flight, the backend has measured each."""
    # The latencies of the warm-up come first.
    timed = latencies[-len(samples.seconds) * samples.steps_per_sample * step.iterations :]
    alone = samples.seconds if samples.steps_per_sample == 1 else []
    settings = job.settings if job.case.mode == "training" else replace(job.settings, recipe=DEFAULT_RECIPE)
    return record.latency(timed or alone, bool(timed), step, settings)


def _image_facts(job: Job, program: Program, opened: Any) -> Facts:
    """The number of skipped images and the tuning of the pipeline. For a network also what limits its rate, and the
    accuracy of the weights of --weights."""
    from bench.real_data import bottleneck, epochs

    facts: Facts = {"images_skipped": sum(job.group.all_gather(opened.skipped))}
    facts.update({f"tuned_{key}": value for key, value in opened.facts.items()})
    if not program.graph.operations:
        return facts
    facts.update(bottleneck.of(program, opened))
    (images,) = job.images.values()
    if job.settings.weights and job.case.mode == "inference" and images.labelled:
        facts.update(epochs.score(program, job))
    return facts


def _export(engine: backends.Backend, graph: Graph, weights: Mapping[str, Any], case: Case, settings: Settings) -> None:
    if settings.export_onnx and engine.exported is not None:
        name = case.id.rsplit("-", 3)[0]
        try:
            cache.write_whole(Path(settings.export_onnx) / f"{name}.onnx", engine.exported(graph, weights))
        except OSError as error:
            raise Refused(f"--export-onnx {settings.export_onnx}: {error.strerror}") from None


def _require_memory(graph: Graph, case: Case) -> None:
    """Raise Unavailable if the activations of a graph do not fit into the memory of this machine: all of them in
    training, where the backward pass reads them, and otherwise the largest three."""
    results = sorted(math.prod(shape) for node in graph.nodes for shape in node.shapes)
    activations = sum(results) if case.mode == "training" else sum(results[-3:])
    needed = PRECISIONS[case.precision].bytes * (activations + 3 * graph.parameters)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > memory:
        raise Unavailable(
            f"not present: {needed / 2**30:,.0f} GiB of memory for this case; this machine has {memory / 2**30:,.0f}"
        )


def _require_plausible(program: Program, case: Case) -> None:
    """Raise Wrong if the workload finds the output implausible: a step that draws random numbers has no reference."""
    judge = workloads.load(case.workload).implausible
    if judge is not None:
        reason = judge(program.outputs()["output"], **case.dimensions)
        if reason:
            raise Wrong(reason)

"""One case: compile, check, feed, time. Runs where the framework does."""

from __future__ import annotations

import contextlib
import math
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Tuple

from bench import backends, cache, check, workloads
from bench import devices as device
from bench.cases.case import Case, Settings
from bench.cases.errors import Broken, Refused, Unavailable, Wrong
from bench.cases.precision import PRECISIONS
from bench.cases.recipe import PLAIN
from bench.clock import surroundings, turn
from bench.clock.sampling import measure
from bench.graph import Graph, draws, weight_files
from bench.group import ALONE, Group
from bench.images import Dataset, Stopped
from bench.program import Program, Step, repeat
from bench.real_data import material
from bench.results import record
from bench.workloads import host_pipeline

Reply = Dict[str, Any]
Tell = Callable[[str], None]
Images = Mapping[str, Dataset]

# Host batches that generated data takes in turn.
GENERATED_BATCHES = 4


def run(case: Case, settings: Settings, tell: Tell, canary_s: Any = None, group: Group = ALONE) -> Reply:
    """Compile, check and time one case, or one replica of `group`. Returns `record` and `samples`; no record when
    not timed.

    Raises Unavailable, Wrong or Refused, and whatever the framework raises.
    """
    try:
        # Before anything is loaded or waited for: what a case works on may be at fault.
        images = _images(case, settings, tell, group)
        # `compiling` ends where the clock starts: who holds it and asks to be alone would wait for itself.
        with contextlib.ExitStack() as devices, contextlib.ExitStack() as compiling:
            turn.to_compile(devices, compiling, case, settings, tell, group)
            if case.workload == host_pipeline.NAME:
                return _pipeline(case, settings, tell, canary_s, images, group, compiling)
            return _network(case, settings, tell, canary_s, images, group, compiling)
    except (ValueError, Stopped) as error:
        if settings.data != "real" and case.workload != host_pipeline.NAME:
            raise
        raise Refused(str(error)) from None


def _images(case: Case, settings: Settings, tell: Tell, group: Group) -> Images:
    """The images of a case, by split, which have to be the same for all replicas."""
    found = material.images(case, settings, tell)
    if found:
        counts = group.all({split: one.count for split, one in found.items()}, patient=True)
        if any(other != counts[0] for other in counts):
            told = "; ".join(f"replica {rank}: {count}" for rank, count in enumerate(counts))
            raise ValueError(f"{settings.data_dir}: replicas have to find the same images, and their counts are {told}")
    return found


def _pipeline(
    case: Case,
    settings: Settings,
    tell: Tell,
    canary_s: Any,
    images: Images,
    group: Group,
    compiling: contextlib.ExitStack,
) -> Reply:
    """An input pipeline without a model, which uses all cores: it is timed with nobody beside."""
    from bench.real_data import bottleneck

    def alone(timed: bottleneck.Timed) -> Any:
        with contextlib.ExitStack() as stack:
            turn.to_time(stack, compiling, case, replace(settings, parallel_timing=False), tell, ALONE)
            return surroundings.beside_canaries(settings, canary_s, timed)

    return bottleneck.pipeline_alone(case, settings, tell, alone, images, group)


def _network(
    case: Case,
    settings: Settings,
    tell: Tell,
    canary_s: Any,
    images: Images,
    group: Group,
    compiling: contextlib.ExitStack,
) -> Reply:
    tell("loading")
    engine = backends.load(case.backend)
    graph = workloads.of_case(case, settings.recipe)
    _require_memory(graph, case)
    material.require_files(graph, case, settings)
    try:
        version = engine.version()
    except ImportError as error:
        raise Broken(f"{case.backend} is installed and does not load: {error}") from None
    with contextlib.ExitStack() as stack:
        if settings.poplar.compile_only:
            tell("compiling")
            return {"record": None, "samples": [], "compile_s": _compile(stack, graph, case, settings, group)[2]}
        program, weights, found = _checked(stack, case, settings, graph, tell, group)
        found["framework_version"] = version
        _export(engine, graph, weights, case, settings)
        opened = _feed(stack, program, graph, case, settings, weights, images, group)
        if not settings.timed:
            program.run()
            return {"record": None, "samples": []}
        return _timed_record(program, graph, case, settings, found, opened, tell, canary_s, images, group, compiling)


def _checked(
    stack: contextlib.ExitStack, case: Case, settings: Settings, graph: Graph, tell: Tell, group: Group
) -> Tuple[Program, Dict[str, Any], Dict[str, Any]]:
    """The program that is to be timed, its weights, and what the check of it, or of a smaller one, found."""
    # The update of any other optimiser does not tell the gradient.
    careful = replace(settings, recipe=settings.recipe.checkable, data="synthetic")
    checkable = getattr(backends.load(case.backend), "checkable", None)
    if checkable is not None:
        careful = checkable(case, careful)
    checked = workloads.checked(case, careful.recipe)
    alike = graph.fingerprint == checked.fingerprint and settings.recipe == careful.recipe
    alike = alike and settings.data != "real" and (checkable is None or settings == careful)
    tell("compiling")
    with contextlib.ExitStack() as own:
        program, weights, compile_s = _compile(
            stack if alike else own, checked, case, settings if alike else careful, group
        )
        tell("checking")
        found: Dict[str, Any] = check.require(program, checked, case, weights, _averaging(case, settings, group))
    if not alike:
        tell("compiling")
        program, weights, compile_s = _compile(stack, graph, case, settings, group)
    first = next(iter(checked.inputs.values()), None)
    found["checked_size"] = "x".join(map(str, first.shape)) if first else None
    found["compile_s"] = compile_s
    return program, weights, found


def _averaging(case: Case, settings: Settings, group: Group) -> Group:
    """The replicas that average their gradients; others have nothing to do with each other."""
    return group if case.mode == "training" and settings.all_reduce else ALONE


def _compile(
    stack: contextlib.ExitStack, graph: Graph, case: Case, settings: Settings, group: Group
) -> Tuple[Program, Dict[str, Any], float]:
    """The program, which lets its device go when `stack` ends, its weights, and the seconds that it took."""
    precision = PRECISIONS[case.precision]
    weights = draws.weights(graph, precision.weights)
    if settings.weights:
        weights.update(weight_files.load(Path(settings.weights), graph, precision.weights))
    count = settings.recipe.gradient_accumulation if case.mode == "training" else 1
    own = range(group.rank * count, (group.rank + 1) * count)
    inputs = [draws.inputs(graph, precision.compute, batch) for batch in own]
    averaging = _averaging(case, settings, group)
    start = time.perf_counter()
    engine: Any = backends.load(case.backend)
    if case.device == "ipu":
        # Under poprun each process has its share of the replicas, and the SDK averages.
        case = replace(case, replicas=case.replicas // group.count)
    if averaging.count > 1 and hasattr(engine, "TOGETHER"):
        program = engine.compile(graph, weights, inputs, case, settings, group=averaging)
    else:
        program = engine.compile(graph, weights, inputs, case, settings)
    if program.close is not None:
        stack.callback(program.close)
    return program, weights, time.perf_counter() - start


def _feed(
    stack: contextlib.ExitStack,
    program: Program,
    graph: Graph,
    case: Case,
    settings: Settings,
    weights: Mapping[str, Any],
    images: Images,
    group: Group,
) -> Any:
    """Give the program the inputs, weights and learning rate with which it is timed; return the open
    pipeline of real images."""
    if program.set_learning_rate is not None and program.load is not None:
        program.load(weights)
        program.set_learning_rate(workloads.load(case.workload).LEARNING_RATE)  # type: ignore[attr-defined]
    if settings.data == "real" and not _learns(case, settings):
        from bench.real_data import feeding

        size = next(iter(graph.inputs.values())).shape[2]
        training = case.mode == "training"
        (found,) = images.values()
        opened = stack.enter_context(feeding.images(case, settings, found, training=training, size=size, group=group))
        made = map(feeding.named(graph, case, settings, replica=group.rank), opened)
        averaging = _averaging(case, settings, group)
        program.feed(feeding.together(made, averaging) if averaging.count > 1 else made)
        return opened
    count = 1 if settings.data == "synthetic" else GENERATED_BATCHES
    count = max(count, settings.recipe.gradient_accumulation if case.mode == "training" else 1)
    compute = PRECISIONS[case.precision].compute
    own = range(group.rank * count, (group.rank + 1) * count)
    program.feed([draws.inputs(graph, compute, batch, settings.zero_values) for batch in own])
    return None


def _timed_record(
    program: Program,
    graph: Graph,
    case: Case,
    settings: Settings,
    found: Dict[str, Any],
    opened: Any,
    tell: Tell,
    canary_s: Any,
    images: Images,
    group: Group,
    compiling: contextlib.ExitStack,
) -> Reply:
    latencies: List[float] = []
    step = Step(
        repeat(surroundings.noting(program, latencies), 1 if program.looped else settings.batches_per_step),
        batch_items=workloads.items(case) * (settings.recipe.gradient_accumulation if case.mode == "training" else 1),
        replicas=case.replicas,
        iterations=settings.batches_per_step * program.batches,
    )
    with contextlib.ExitStack() as stack:
        turn.to_time(stack, compiling, case, settings, tell, group)
        if _learns(case, settings) and settings.data == "real":
            from bench.real_data import epochs

            step = step if program.looped else replace(step, iterations=1)
            samples, seen = surroundings.beside_canaries(
                settings, canary_s, lambda: epochs.train(program, graph, case, settings, tell, images, group)
            )
            samples, own = surroundings.together(samples, step, group)
            seen = {**seen, **own}
        else:
            samples, seen = surroundings.beside_canaries(
                settings, canary_s, lambda: (measure(step.run, settings, group=group), {})
            )
            samples, own = surroundings.together(samples, step, group)
            seen = {**seen, **own, **surroundings.communication(program, samples, settings, group)}
        check.require_finite(program)
        _require_plausible(program, case)
        found.update(seen, batches_in_flight=program.batches)
        found.update({f"tuned_{key}": value for key, value in program.facts.items()})
        found.update(program.told() if program.told is not None else {}, source=program.source)
        found.update({f"device_{key}": value for key, value in device.load(case.device).describe().items()})
        if opened is not None and program.source == "measured":
            # More clocks, of the same machine.
            found.update(_of_real_images(program, graph, case, settings, opened, images, group))
    found["data_dir"] = next(iter(images.values())).root if images else None
    made = record.build(case, settings, graph, step, samples, found)
    # Those of the warm-up stand before those of the samples.
    timed = latencies[-len(samples.seconds) * samples.steps_per_sample * step.iterations :]
    alone = samples.seconds if samples.steps_per_sample == 1 else []
    plain = replace(settings, recipe=PLAIN) if case.mode != "training" else settings
    if program.source == "measured":
        made.update(record.latency(timed or alone, bool(timed), step, plain))
    return {"record": made, "samples": samples.seconds}


def _of_real_images(
    program: Program, graph: Graph, case: Case, settings: Settings, opened: Any, images: Images, group: Group
) -> Dict[str, Any]:
    """What bounds a case that decodes images, how many were left out, and the hits of given weights."""
    from bench.real_data import bottleneck, epochs

    found: Dict[str, Any] = {"images_skipped": sum(group.all(opened.skipped))}
    found.update({f"tuned_{key}": value for key, value in opened.facts.items()})
    found.update(bottleneck.of(program, graph, case, settings, opened))
    (dataset,) = images.values()
    if settings.weights and case.mode == "inference" and dataset.labelled:
        found.update(epochs.score(program, graph, case, settings, dataset, group))
    return found


def _learns(case: Case, settings: Settings) -> bool:
    """Whether a case is a training run of so many epochs, which opens its images itself."""
    return case.mode == "training" and bool(settings.recipe.epochs)


def _export(engine: Any, graph: Graph, weights: Mapping[str, Any], case: Case, settings: Settings) -> None:
    if settings.export_onnx and hasattr(engine, "exported"):
        name = case.id.rsplit("-", 3)[0]
        try:
            cache.write_whole(Path(settings.export_onnx) / f"{name}.onnx", engine.exported(graph, weights))
        except OSError as error:
            raise Refused(f"--export-onnx {settings.export_onnx}: {error.strerror}") from None


def _require_memory(graph: Graph, case: Case) -> None:
    """Raise Unavailable when the results of a graph would not fit this machine: all of them in training, where
    the backward pass reads them, else the largest three."""
    results = sorted(math.prod(shape) for node in graph.nodes for shape in node.shapes)
    kept = sum(results) if case.mode == "training" else sum(results[-3:])
    needed = PRECISIONS[case.precision].bytes * (kept + 3 * graph.parameters)
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > there:
        raise Unavailable(
            f"not present: {needed / 2**30:,.0f} GiB of memory for this case; this machine has {there / 2**30:,.0f}"
        )


def _require_plausible(program: Program, case: Case) -> None:
    """Judge a step that drew its own random numbers by the workload's own statistics."""
    judge = getattr(workloads.load(case.workload), "implausible", None)
    if judge is not None:
        reason = judge(program.outputs()["output"], **case.dimensions)
        if reason:
            raise Wrong(reason)

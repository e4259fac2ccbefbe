"""One case: compile, check, feed, time. Runs where the framework does."""

from __future__ import annotations

import contextlib
import math
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

from bench import backend, cache, canary, check, device, host_pipeline, record, stored, values, workload
from bench.case import Broken, Case, Refused, Settings, Unavailable, Wrong
from bench.graph import Graph
from bench.images import Stopped
from bench.measure import Samples, measure
from bench.precision import PRECISIONS
from bench.recipe import PLAIN
from bench.step import Program, Step, repeat

Reply = Dict[str, Any]
Tell = Callable[[str], None]

# Host batches that generated data takes in turn.
GENERATED_BATCHES = 4
# Before a canary: the threads of a framework, and of numpy's products, spin on after their last work.
SETTLE_S = 0.1


def run(case: Case, settings: Settings, tell: Tell, canary_s: Any = None) -> Reply:
    """Compile, check and time one case. Returns `record` and `samples`; no record when not timed.

    Raises Unavailable, Wrong or Refused, and whatever the framework raises.
    """
    try:
        if case.workload == host_pipeline.NAME:
            from bench import bounds

            return bounds.pipeline_alone(
                case, settings, tell, lambda timed: _beside_canaries(settings, canary_s, timed)
            )
        return _network(case, settings, tell, canary_s)
    except (ValueError, Stopped) as error:
        if settings.data != "real" and case.workload != host_pipeline.NAME:
            raise
        raise Refused(str(error)) from None


def _network(case: Case, settings: Settings, tell: Tell, canary_s: Any) -> Reply:
    tell("loading")
    engine = backend.load(case.backend)
    graph = workload.of_case(case, settings.recipe)
    _require_memory(graph, case)
    try:
        version = engine.version()
    except ImportError as error:
        raise Broken(f"{case.backend} is installed and does not load: {error}") from None
    program, weights, found = _checked(case, settings, graph, tell)
    found["framework_version"] = version
    _export(engine, graph, weights, case, settings)
    with contextlib.ExitStack() as stack:
        opened = _feed(stack, program, graph, case, settings, weights)
        if not settings.timed:
            program.run()
            return {"record": None, "samples": []}
        return _timed_record(program, graph, case, settings, found, opened, tell, canary_s)


def _checked(
    case: Case, settings: Settings, graph: Graph, tell: Tell
) -> Tuple[Program, Dict[str, Any], Dict[str, Any]]:
    """The program that is to be timed, its weights, and what the check of it, or of a smaller one, found."""
    # The update of any other optimiser does not tell the gradient.
    careful = replace(settings, recipe=settings.recipe.checkable, data="synthetic")
    checked = workload.checked(case, careful.recipe)
    alike = graph.fingerprint == checked.fingerprint and settings.recipe == careful.recipe
    alike = alike and settings.data != "real"
    tell("compiling")
    program, weights, compile_s = _compile(checked, case, settings if alike else careful)
    tell("checking")
    found: Dict[str, Any] = {"gradient_error": 0.0, **check.require(program, checked, case, weights)}
    if not alike:
        tell("compiling")
        program, weights, compile_s = _compile(graph, case, settings)
    first = next(iter(checked.inputs.values()), None)
    found["checked_size"] = "x".join(map(str, first.shape)) if first else ""
    found["compile_s"] = compile_s
    return program, weights, found


def _compile(graph: Graph, case: Case, settings: Settings) -> Tuple[Program, Dict[str, Any], float]:
    precision = PRECISIONS[case.precision]
    weights = values.weights(graph, precision.weights)
    if settings.weights:
        try:
            weights.update(stored.load(Path(settings.weights), graph, precision.weights))
        except (OSError, ValueError) as error:
            raise Refused(str(error).splitlines()[0]) from None
    count = settings.recipe.gradient_accumulation if case.mode == "training" else 1
    inputs = [values.inputs(graph, precision.compute, batch) for batch in range(count)]
    start = time.perf_counter()
    program = backend.load(case.backend).compile(graph, weights, inputs, case, settings)
    return program, weights, time.perf_counter() - start


def _feed(
    stack: contextlib.ExitStack,
    program: Program,
    graph: Graph,
    case: Case,
    settings: Settings,
    weights: Mapping[str, Any],
) -> Any:
    """Give the program the inputs, weights and learning rate with which it is timed; return the open
    pipeline of real images."""
    if program.set_learning_rate is not None and program.load is not None:
        program.load(weights)
        program.set_learning_rate(workload.load(case.workload).LEARNING_RATE)  # type: ignore[attr-defined]
    if settings.data == "real" and not _learns(case, settings):
        from bench import feeding

        size = next(iter(graph.inputs.values())).shape[2]
        training = case.mode == "training"
        found = feeding.dataset(settings, "train" if training else "validation")
        opened = stack.enter_context(feeding.images(case, settings, found, training=training, repeat=True, size=size))
        program.feed(map(feeding.named(graph, case, settings), opened))
        return opened
    count = 1 if settings.data == "synthetic" else GENERATED_BATCHES
    count = max(count, settings.recipe.gradient_accumulation if case.mode == "training" else 1)
    compute = PRECISIONS[case.precision].compute
    program.feed([values.inputs(graph, compute, batch, settings.zero_values) for batch in range(count)])
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
) -> Reply:
    latencies: List[float] = []
    step = Step(
        repeat(_noting(program, latencies), settings.batches_per_step),
        batch_items=workload.items(case) * (settings.recipe.gradient_accumulation if case.mode == "training" else 1),
        replicas=case.replicas,
        iterations=settings.batches_per_step * program.batches,
    )
    tell("waiting")
    with device.load(case.device).lease():
        tell("timing")
        if _learns(case, settings) and settings.data == "real":
            from bench import epochs

            step = replace(step, iterations=1)
            samples, seen = _beside_canaries(
                settings, canary_s, lambda: epochs.train(program, graph, case, settings, tell)
            )
        else:
            samples, seen = _beside_canaries(settings, canary_s, lambda: (measure(step.run, settings), {}))
    check.require_finite(program)
    _require_plausible(program, case)
    found.update(seen, batches_in_flight=program.batches)
    found.update({f"tuned_{key}": value for key, value in program.facts.items()})
    found.update({f"device_{key}": value for key, value in device.load(case.device).describe().items()})
    if opened is not None:
        found.update(_of_real_images(program, graph, case, settings, opened))
    made = record.build(case, settings, graph, step, samples, found)
    # Those of the warm-up stand before those of the samples.
    timed = latencies[-len(samples.seconds) * samples.steps_per_sample * step.iterations :]
    alone = samples.seconds if samples.steps_per_sample == 1 else []
    plain = replace(settings, recipe=PLAIN) if case.mode != "training" else settings
    made.update(record.latency(timed or alone, bool(timed), step, plain))
    return {"record": made, "samples": samples.seconds}


def _of_real_images(program: Program, graph: Graph, case: Case, settings: Settings, opened: Any) -> Dict[str, Any]:
    """What bounds a case that decodes images, how many were left out, and the hits of given weights."""
    from bench import bounds, epochs

    found: Dict[str, Any] = {"images_skipped": opened.skipped}
    found.update({f"tuned_{key}": value for key, value in opened.facts.items()})
    found.update(bounds.of(program, graph, case, settings, opened))
    if settings.weights and case.mode == "inference":
        found.update(epochs.score(program, graph, case, settings))
    return found


def _learns(case: Case, settings: Settings) -> bool:
    """Whether a case is a training run of so many epochs, which opens its images itself."""
    return case.mode == "training" and bool(settings.recipe.epochs)


def _noting(program: Program, latencies: List[float]) -> Callable[[], None]:
    """`program.run`, which notes how long each of several batches in flight took."""
    told = program.latencies
    if told is None:
        return program.run

    def noting() -> None:
        program.run()
        latencies.extend(told())

    return noting


def _export(engine: Any, graph: Graph, weights: Mapping[str, Any], case: Case, settings: Settings) -> None:
    if settings.export_onnx and hasattr(engine, "exported"):
        name = case.id.rsplit("-", 3)[0]
        try:
            Path(settings.export_onnx).mkdir(parents=True, exist_ok=True)
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


def _beside_canaries(
    settings: Settings, canary_s: Any, timed: Callable[[], Tuple[Samples, Dict[str, Any]]]
) -> Tuple[Samples, Dict[str, Any]]:
    load = os.getloadavg()[0]
    before = _canary(settings, canary_s)
    started_s = time.time()
    _forget_peak_memory()
    samples, seen = timed()
    seen = {**seen, "memory_peak_bytes": _peak_memory()}
    ended_s = time.time()
    after = _canary(settings, canary_s)
    disturbed = max(before or 0, after or 0) > canary.DISTURBED
    seen = {**seen, "canary_before": before, "canary_after": after, "load": load}
    return samples, {**seen, "disturbed": disturbed, "started_s": started_s, "ended_s": ended_s}


def _forget_peak_memory() -> None:
    """Let the kernel count this process's peak memory from here, where it can (Linux)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak_memory() -> Optional[int]:
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
    return None


def _canary(settings: Settings, known_s: Optional[float]) -> Optional[float]:
    """The slowdown of the canary; None where no time of it is known."""
    if known_s is None:
        return None
    time.sleep(SETTLE_S)
    return canary.slowdown(settings.threads, known_s)


def _require_plausible(program: Program, case: Case) -> None:
    """Judge a step that drew its own random numbers by the workload's own statistics."""
    judge = getattr(workload.load(case.workload), "implausible", None)
    if judge is not None:
        reason = judge(program.outputs()["output"])
        if reason:
            raise Wrong(reason)

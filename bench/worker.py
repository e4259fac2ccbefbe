"""The process in which one case is compiled, checked and timed.

`serve` is what runs at the far end of an execnet gateway; `run` does the work, and is also what
--in-process calls. Requests and replies are plain dictionaries; only samples and facts cross.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import signal
import sys
import time
import traceback
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

from bench import backend, canary, check, device, record, values, workload
from bench.case import Broken, Case, Settings, Unavailable, Wrong
from bench.graph import Graph
from bench.measure import Samples, measure
from bench.precision import PRECISIONS
from bench.step import Program, Step, repeat

Reply = Dict[str, Any]
Tell = Callable[[str], None]

# Host batches that generated data takes in turn.
GENERATED_BATCHES = 4
# Before a canary: the threads of a framework, and of numpy's products, spin on after their last work.
SETTLE_S = 0.1


def serve(channel: Any, spec: Mapping[str, Any]) -> None:
    """Answer requests until the other side goes away."""
    _detach(spec)
    prepare(spec["environment"], spec["cores"])
    channel.send({"kind": "ready", "pid": os.getpid()})
    for request in channel:
        channel.send(answer(request, lambda phase: channel.send({"kind": "phase", "phase": phase})))


def prepare(environment: Mapping[str, str], cores: List[int]) -> None:
    """Set what a framework reads when it is loaded, and bind this process to its cores."""
    os.environ.update(environment)
    if cores:
        # Asked before, and remembered: once bound, this process sees no other core, and its records
        # would name another machine.
        device.load("cpu").describe()
        os.sched_setaffinity(0, cores)


def answer(request: Mapping[str, Any], tell: Tell) -> Reply:
    """Do what a request asks; whatever goes wrong becomes a reply."""
    try:
        if request["do"] == "peak":
            return {"kind": "peak", **peak(request["device"], request["precision"], request["threads"])}
        case, settings = Case(**request["case"]), Settings(**request["settings"])
        return {"kind": "record", **run(case, settings, tell, request.get("canary_s"))}
    except Unavailable as error:
        return {"kind": "unavailable", "text": str(error)}
    except Wrong as error:
        return {"kind": "wrong", "text": f"wrong result, not recorded: {error}"}
    except Broken as error:
        return {"kind": "wrong", "text": str(error)}
    except (Exception, SystemExit) as error:  # noqa: BLE001 - it is raised again at the other end, with its traceback
        text = f"{type(error).__name__}: {error}".splitlines()[0]
        return {"kind": "error", "text": text, "traceback": traceback.format_exc()}


def peak(device_name: str, precision: str, threads: int) -> Reply:
    """Calibrate: what the device can do, and the time of the canary on a machine as good as it gets."""
    known = min(sorted(canary.seconds(threads))[canary.ROUNDS // 2] for _ in range(3))
    return {"peak": device.load(device_name).peak(precision, threads), "canary_s": known}


def run(case: Case, settings: Settings, tell: Tell, canary_s: Any = None) -> Reply:
    """Compile, check and time one case. Returns `record` and `samples`; no record when not timed.

    Raises Unavailable or Wrong, and whatever the framework raises.
    """
    tell("loading")
    engine = backend.load(case.backend)
    graph, checked = workload.of_case(case), workload.checked(case)
    _require_memory(graph)
    try:
        version = engine.version()
    except ImportError as error:
        raise Broken(f"{case.backend} is installed and does not load: {error}") from None
    tell("compiling")
    program, weights, compile_s = _compile(checked, case, settings)
    tell("checking")
    found: Dict[str, Any] = {"gradient_error": 0.0, **check.require(program, checked, case, weights)}
    if graph.fingerprint != checked.fingerprint:
        tell("compiling")
        program, weights, compile_s = _compile(graph, case, settings)
    _prepare(program, graph, case, settings, weights)
    if not settings.timed:
        program.run()
        return {"record": None, "samples": []}
    step = Step(
        repeat(program.run, settings.batches_per_step),
        batch_items=workload.items(case),
        replicas=case.replicas,
        iterations=settings.batches_per_step * program.batches,
    )
    tell("waiting")
    with device.load(case.device).lease():
        tell("timing")
        samples, seen = _timed(step, settings, canary_s)
    check.require_finite(program)
    _require_plausible(program, graph, case)
    found.update(seen)
    found.update(compile_s=compile_s, framework_version=version, batches_in_flight=program.batches)
    found.update({f"tuned_{key}": value for key, value in program.facts.items()})
    found.update({f"device_{key}": value for key, value in device.load(case.device).describe().items()})
    made = record.build(case, settings, graph, step, samples, found)
    return {"record": made, "samples": samples.seconds}


def _require_memory(graph: Graph) -> None:
    """Raise Unavailable when the float64 values of a graph alone would not fit this machine."""
    results = sum(math.prod(shape) for node in graph.nodes for shape in node.shapes)
    needed = 8 * (results + graph.parameters)
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > there:
        raise Unavailable(
            f"not present: {needed / 2**30:,.0f} GiB of memory for this case; this machine has {there / 2**30:,.0f}"
        )


def _compile(graph: Graph, case: Case, settings: Settings) -> Tuple[Program, Dict[str, Any], float]:
    precision = PRECISIONS[case.precision]
    weights = values.weights(graph, precision.weights)
    inputs = [values.inputs(graph, precision.compute)]
    start = time.perf_counter()
    program = backend.load(case.backend).compile(graph, weights, inputs, case, settings)
    return program, weights, time.perf_counter() - start


def _prepare(program: Program, graph: Graph, case: Case, settings: Settings, weights: Mapping[str, Any]) -> None:
    """Give the program the inputs, weights and learning rate with which it is timed."""
    count = GENERATED_BATCHES if settings.data == "generated" else 1
    compute = PRECISIONS[case.precision].compute
    program.feed([values.inputs(graph, compute, batch, settings.zero_values) for batch in range(count)])
    if program.set_learning_rate is not None and program.load is not None:
        program.load(weights)
        program.set_learning_rate(workload.load(case.workload).LEARNING_RATE)  # type: ignore[attr-defined]


def _timed(step: Step, settings: Settings, canary_s: Any) -> Tuple[Samples, Dict[str, Any]]:
    load = os.getloadavg()[0]
    before = _canary(settings, canary_s)
    started_s = time.time()
    samples = measure(step.run, settings)
    ended_s = time.time()
    after = _canary(settings, canary_s)
    seen = {"canary_before": before, "canary_after": after, "load": load}
    disturbed = max(before or 0, after or 0) > canary.DISTURBED
    return samples, {**seen, "disturbed": disturbed, "started_s": started_s, "ended_s": ended_s}


def _canary(settings: Settings, known_s: Optional[float]) -> Optional[float]:
    """The slowdown of the canary; None where no time of it is known."""
    if known_s is None:
        return None
    time.sleep(SETTLE_S)
    return canary.slowdown(settings.threads, known_s)


def _require_plausible(program: Program, graph: Graph, case: Case) -> None:
    """Judge a step that drew its own random numbers by the workload's own statistics."""
    judge = getattr(workload.load(case.workload), "implausible", None)
    if judge is not None:
        reason = judge(program.outputs()["output"])
        if reason:
            raise Wrong(reason)


def _detach(spec: Mapping[str, Any]) -> None:
    """Make this process end with its parent, deaf to the terminal's Ctrl-C, on its own cores."""
    with contextlib.suppress(OSError):
        os.setsid()
    if sys.platform.startswith("linux"):
        # PR_SET_PDEATHSIG: no orphan, even when the harness is killed with -9.
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
        if os.getppid() != spec["parent"]:
            os._exit(1)
    handle = os.open(spec["stderr"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(handle, 2)

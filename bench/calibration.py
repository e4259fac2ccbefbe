"""What this machine can do when it is quiet, measured once and kept: the roofline, and the times of the canaries.

Each installed library runs a few cases of the suite in a process of its own: products and convolutions of several
shapes, and products of one row, which read the weights from each level of the memory. Some libraries copy as well. The
fastest run of each counts, and the best of all libraries is kept, over up to three occasions that are hours apart. A
case that was above it raises it.
"""

from __future__ import annotations

import time
from time import perf_counter
from typing import Any, Callable, Dict, Iterator, List, Tuple

from bench import backends, cache, devices, machine, selection, workloads
from bench.cache import fingerprint
from bench.cases import dimension
from bench.cases.case import Case, Settings
from bench.cases.dimension import Value
from bench.cases.errors import Unavailable
from bench.cases.precision import PRECISIONS
from bench.clock import canary, frequency, roofline
from bench.clock.roofline import Roofline

# `peak`: the roofline, with the `limit` that no program can exceed and the `clock_hz` behind it; empty: not known.
# `canary_s`: the times of the canaries; None: not known.
Calibration = Dict[str, Any]

OCCASIONS = 3
APART_S = 6 * 3600.0
SIDES = (512, 1024, 2048, 4096, 8192)
# Batch size, pixels on a side, channels.
CONVOLUTIONS = ((16, 16, 256), (4, 58, 64))
# Widths of layers of one row: their weights are as large as the first three levels in fp32.
READS = (256, 1024, 4096)
SECONDS_A_KERNEL = 0.15
# A kernel that would take longer shows no more than a smaller one.
LONGEST_S = 0.1

KEYS = {"flops", "bandwidth_bytes_per_s", "sources", "libraries", "clock_hz"}


def known(device: str, precision: str, threads: int, cores: List[int]) -> Calibration:
    """What is known of a device, a precision and so many threads bound to `cores`."""
    peak = _roofline(device, precision, threads, cores)
    limit = devices.load(device).limit(PRECISIONS[precision].compute, threads, peak["clock_hz"])
    return {"peak": {**peak, "limit": limit} if peak["flops"] else {}, "canary_s": _canaries(threads, cores) or None}


def wanting(device: str, precision: str, threads: int, cores: List[int]) -> List[str]:
    """The libraries that have not measured the roofline yet, or not often enough for how long ago that was."""
    occasions = _roofline(device, precision, threads, cores)["libraries"]
    now = time.time()

    def wants(library: str) -> bool:
        times = occasions.get(_versioned(library), [])
        return not times or (len(times) < OCCASIONS and now - times[-1] > APART_S)

    libraries = _libraries(device)
    wanted = [library for library in libraries if wants(library)]
    # The canaries are numpy's, so another numpy has other times. Any library measures them as well.
    return wanted if wanted or _canaries(threads, cores) else libraries[:1]


def measure(
    library: str, device: str, precision: str, threads: int, cores: List[int], begun: Callable[[], None]
) -> None:
    """Have one library measure its part, in a process that has loaded no other, while nobody else times or compiles.

    begun   is called when the wait for the others is over
    """
    where = (device, precision, threads, cores)
    with devices.load(device).lease():
        # Another process may have done it while this one waited.
        if library not in wanting(*where):
            return
        begun()
        keep_canary(threads, cores, canary.seconds(threads))
        # Noted first: a library that fails is not tried again for every case.
        kept = _roofline(*where)
        times = [*kept["libraries"].get(_versioned(library), []), time.time()]
        _keep(where, {**kept, "libraries": {**kept["libraries"], _versioned(library): times}})
        best = roofline.best(_roofline(*where), reached(library, device, precision, threads))
        clocks = [clock_hz for clock_hz in (best["clock_hz"], frequency.hz()) if clock_hz]
        _keep(where, {**best, "clock_hz": max(clocks, default=None)})


def keep_canary(threads: int, cores: List[int], canary_s: canary.Times) -> None:
    """Keep the times of the canaries, where they are the best so far."""
    kept = _canaries(threads, cores)
    best = canary.best(kept, canary_s)
    if best != kept:
        cache.write(_canary_name(threads, cores), dict(best))


def raise_peak(
    where: Tuple[str, str, int, List[int]], flops: float, bandwidth: float, moved: float, source: str
) -> None:
    """Raise the roofline to the rates of a verified case: FLOP and bytes per second on `moved` bytes."""
    _keep(where, roofline.raised(_roofline(*where), flops, bandwidth, moved, source))


def _libraries(device: str) -> List[str]:
    """The backends that can measure a device, one for each installed package: that of its name where there is one."""
    by_package: Dict[str, str] = {}
    for name in backends.names():
        engine = backends.load(name)
        if device in engine.devices and backends.installed(name):
            by_package[engine.package] = name if name == engine.package else by_package.get(engine.package, name)
    return sorted(by_package.values())


def _roofline(device: str, precision: str, threads: int, cores: List[int]) -> Dict[str, Any]:
    """The roofline so far; an empty one where there is none, or one that another version of the suite kept."""
    kept = cache.read(_name(device, precision, threads, cores)) or {}
    return kept if set(kept) == KEYS else {**roofline.empty(), "libraries": {}, "clock_hz": None}


def _versioned(library: str) -> str:
    return f"{library} {backends.installed(library)}"


def _keep(where: Tuple[str, str, int, List[int]], kept: Dict[str, Any]) -> None:
    cache.write(_name(*where), kept)


def _canaries(threads: int, cores: List[int]) -> canary.Times:
    kept = cache.read(_canary_name(threads, cores)) or {}
    return {kind: kept[kind] for kind in canary.KINDS} if set(kept) == set(canary.KINDS) else {}


def _name(device: str, precision: str, threads: int, cores: List[int]) -> str:
    what = {"device": devices.load(device).describe(), "cores": cores}
    return f"calibration-{device}-{precision}-t{threads}-{fingerprint(what)}"


def _canary_name(threads: int, cores: List[int]) -> str:
    what = {"device": devices.load("cpu").describe(), "cores": cores, "work": canary.WORK, **machine.libraries(())}
    return f"canary-t{threads}-{fingerprint(what)}"


def reached(library: str, device: str, precision: str, threads: int) -> Roofline:
    """What one library reaches. In 16 bits its fp32 counts as well: a library may compute 16-bit products in fp32,
    where the processor has no units for them. Raises what the library raises."""
    engine = backends.load(library)
    name = _versioned(library)
    best = roofline.empty()
    for kernel_precision in sorted({_plain(precision), "fp32"}):
        for case in _kernels(library, device, kernel_precision):
            best = _with_kernel(best, case, Settings(threads=threads), name)
    for size in roofline.LEVELS:
        for run in engine.copies(device, size) if engine.copies is not None else ():
            best = roofline.raised(best, 0.0, size / fastest_s(run), size, f"{name}, copies")
    return best


def fastest_s(run: Callable[[], Any]) -> float:
    """Seconds of the fastest of many runs, warmed up."""
    run()
    shortest, begin = float("inf"), perf_counter()
    while perf_counter() - begin < SECONDS_A_KERNEL:
        start = perf_counter()
        run()
        shortest = min(shortest, perf_counter() - start)
    return shortest


def _plain(precision: str) -> str:
    """The precision of the same arithmetic with weights of its type."""
    compute = PRECISIONS[precision].compute
    return next(name for name, other in PRECISIONS.items() if other.compute == other.weights == compute)


def _kernels(library: str, device: str, precision: str) -> Iterator[Case]:
    def case(workload: str, batch_size: int, **chosen: Value) -> Case:
        module = workloads.load(workload)
        first = next(iter(workloads.named_sizes(module).values()))
        size = {key: {**first, **chosen}[key] for key in module.dimensions}
        name = dimension.name(module.dimensions, size)
        return Case(workload, name, size, "inference", batch_size, precision, 1, library, device)

    for side in SIDES:
        yield case("dense", side, units=side, activation="none")
    for batch_size, image, channels in CONVOLUTIONS:
        sides = {"input_width": image, "input_height": image, "filter_in": channels, "filter_out": channels}
        # Without padding: a library need not multiply by its zeros, which count as FLOP.
        yield case("conv", batch_size, kernel_size=3, padding=0, stride=1, **sides)
    for units in READS:
        yield case("dense", 1, units=units, activation="none")


def _with_kernel(best: Roofline, case: Case, settings: Settings, name: str) -> Roofline:
    """The roofline so far, raised by a kernel, where the library has it and it does not take too long."""
    from bench.graph import draws  # imports numpy, which collection must not load

    graph, precision = workloads.of_case(case), PRECISIONS[case.precision]
    if best["flops"] and graph.flops / best["flops"] > LONGEST_S:
        return best
    try:
        selection.require(case)
        weights, inputs = draws.weights(graph, precision.weights), [draws.inputs(graph, precision.compute, 0)]
        program = backends.load(case.backend).compile(graph, weights, inputs, case, settings)
    except Unavailable:
        return best
    try:
        step_s = fastest_s(program.run)
    finally:
        program.release()
    moved = precision.bytes * graph.elements_moved
    return roofline.raised(best, graph.flops / step_s, moved / step_s, moved, f"{name}, {case.id.rsplit('-', 3)[0]}")

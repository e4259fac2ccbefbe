"""Which cases a command line selects, independent of the machine, and which of them can run on this one."""

from __future__ import annotations

import importlib.util
import itertools
from dataclasses import dataclass, field
from typing import Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

from bench import backends, devices, workloads
from bench.cases import dimension
from bench.cases.case import Case
from bench.cases.dimension import Dimension, Value
from bench.cases.errors import Unavailable
from bench.images import pipelines
from bench.workloads import host_pipeline, network, own


def require_possible(case: Case) -> None:
    """Raise ValueError, with workload and value, if the size of a case is impossible or a user's workload fails."""
    workload = workloads.load(case.workload)
    try:
        workloads.record(workload, case.dimensions, 1, case.mode if case.own and workload.loss else "inference")
    except ValueError as error:
        raise ValueError(f"{case.workload}: {error}") from None
    except Exception as error:
        if not case.own:
            raise
        text = own.failure(error, case.own["file"])
        raise ValueError(f"{case.own['shown']}: {case.workload} of size {case.size} does not build: {text}") from None


@dataclass(frozen=True)
class Selection:
    """The axes of a run.

    sizes             ["first"], ["all"] or names
    batch_sizes       None: the default of each size
    dimensions        values from the command line, which override those of each selected size
    half_resolution   image networks train on images of about half the pixels
    backends_named    False: a backend that exists for one device runs only there, and the others only on other devices
    """

    workloads: Sequence[str]
    sizes: Sequence[str] = ("first",)
    modes: Sequence[str] = ("inference",)
    batch_sizes: Optional[Sequence[int]] = None
    precisions: Sequence[str] = ("fp32",)
    replicas: Sequence[int] = (1,)
    backends: Sequence[str] = ("torch",)
    devices: Sequence[str] = ("cpu",)
    dimensions: Mapping[str, Sequence[Value]] = field(default_factory=dict)
    half_resolution: bool = False
    backends_named: bool = True

    def cases(self) -> Iterator[Case]:
        """Every case once, in order; the backends of a case are consecutive.

        Raises ValueError, with workload and value, for an impossible size.
        """
        for name in self.workloads:
            for size, dimensions, batch_size in self._sizes(name):
                batches = self.batch_sizes or [batch_size]
                for mode, batch, precision, replicas, device, backend in itertools.product(
                    self.modes, batches, self.precisions, self.replicas, self.devices, self.backends
                ):
                    if not self.backends_named and not devices.taken_by_default(backend, device):
                        continue
                    yield Case(name, size, dimensions, mode, batch, precision, replicas, backend, device)

    def _sizes(self, name: str) -> Iterator[Tuple[str, Dict[str, Value], int]]:
        workload = workloads.load(name)
        names = set()
        for values in self._selected(name):
            batch_size = int(values["batch_size"])
            if self.half_resolution and "image_size" in values:
                values = network.halved(name, values)
            for overrides in self._overrides(workload.dimensions):
                dimensions = {key: {**values, **overrides}[key] for key in workload.dimensions}
                dimensions = workload.canonical(dimensions)
                size = dimension.name(workload.dimensions, dimensions)
                if size in names:
                    continue
                names.add(size)
                yield size, dimensions, batch_size

    def _selected(self, name: str) -> List[Dict[str, Value]]:
        named = workloads.named_sizes(workloads.load(name))
        if list(self.sizes) == ["first"]:
            return list(named.values())[:1]
        if list(self.sizes) == ["all"]:
            return list(named.values())
        return [named[size] for size in self.sizes if size in named]

    def _overrides(self, dimensions: Mapping[str, Dimension]) -> Iterator[Dict[str, Value]]:
        keys = [key for key in self.dimensions if key in dimensions]
        for values in itertools.product(*(self.dimensions[key] for key in keys)):
            yield dict(zip(keys, values))

    def require_known_sizes(self) -> None:
        """Raise ValueError, with examples, for a size that no selected workload has."""
        if list(self.sizes) in (["first"], ["all"]):
            return
        known = {name: list(workloads.named_sizes(workloads.load(name))) for name in self.workloads}
        firsts = ", ".join(f"{named[0]} ({name})" for name, named in known.items())
        for size in self.sizes:
            if not any(size in named for named in known.values()):
                raise ValueError(f"no size {size!r}; there are first, all, or names such as {firsts}")


def require(case: Case) -> None:
    """Raise Unavailable, with one of its three reasons, if a case cannot run on this machine."""
    backend = backends.load(case.backend)
    if importlib.util.find_spec(backend.package) is None:
        raise Unavailable(f"not installed: {backend.package} ({_source(case.backend)})")
    devices.require(case.device)
    if case.device not in backend.devices:
        raise Unavailable(f"not supported: {case.backend} runs on {', '.join(backend.devices)} here, not {case.device}")
    if case.mode not in backend.modes:
        raise Unavailable(f"not supported: {case.backend} runs {' and '.join(backend.modes)}, not {case.mode}")
    if case.workload == host_pipeline.NAME and case.backend not in pipelines.names():
        owners = " and ".join(sorted(pipelines.names(), reverse=True))
        raise Unavailable(f"not supported: {case.backend} has no input pipeline of its own, as {owners} have")
    processes = case.replicas > 1 and not devices.load(case.device).replicates
    if processes and case.mode == "training" and not backend.all_reduce:
        raise Unavailable(f"not supported: {case.backend} does not train replicas together")
    reason = workloads.unsupported(case.workload, case.mode, case.precision)
    reason = reason or backend.unsupported(case.precision, case.mode, case.device)
    if reason:
        raise Unavailable(f"not supported: {reason}")
    lacking = sorted(workloads.primitives(case) - backend.primitives)
    if lacking:
        raise Unavailable(f"not supported: {case.backend} lacks {', '.join(lacking)}")


def _source(name: str) -> str:
    """How to install the package of a backend."""
    for device in map(devices.load, backends.load(name).devices):
        if name in device.backends:
            return device.source
    return f"pip install -e '.[{backends.load(name).extra or name}]' -c constraints/cpu.txt"

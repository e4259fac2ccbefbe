"""A program of an IPU: one run is a call, whose batches the device does by itself, on all replicas."""

from __future__ import annotations

import itertools
from typing import Any, ContextManager, Dict, Mapping, Sequence

from bench.backends import _ipu
from bench.cases.case import Case, Settings
from bench.graph import Graph
from bench.program import Batches, Program

# Nodes that draw numbers, so that batches which are fed alike differ.
DRAWING = ("random", "dropout")


class IpuProgram(Program):
    """What the backends of an IPU share. Each writes prepare, translated, release and what Program asks for; `convert`
    is for one batch, and `packed` for the arrays of a call.

    A graph without inputs is not synthetic: nothing could be made up, and what it drew is to be judged.

    count       batches of one call, over all replicas
    scale       the factor on the loss
    call        what the next call is made of: packed batches
    still       whether batches that are alike give the same: nothing is drawn, and no update comes between
    alike       whether the batches of the last call were
    """

    device_loop = True

    def __init__(self, sdk: Any, graph: Graph, case: Case, settings: Settings) -> None:
        super().__init__(graph, case, settings)
        self.sdk = sdk
        self.source = _ipu.source(sdk, settings)
        self.synthetic = self.synthetic and bool(graph.inputs)
        # What is fed one by one is calls.
        self.batches_per_update = 1
        self.count = _ipu.count(case, settings)
        self.scale = _ipu.scale_of_loss(graph, case, settings)
        self.output_mode = _ipu.output_mode(case, settings)
        self.facts = _ipu.facts(settings, self.output_mode, self.scale)
        self.call: Any = None
        self.still = not any(node.op in DRAWING for node in graph.nodes)
        self.still = self.still and not (self.training and settings.batches_per_step > 1)
        self.alike = False

    def started(self, inputs: Sequence[Mapping[str, Any]]) -> IpuProgram:
        """This program, compiled and on its device, which goes if that fails."""
        try:
            with self.translated():
                self.prepare(inputs)
                self.compute_dtype, self.weight_dtype = self.dtypes()
        except BaseException:
            self.release()
            raise
        return self

    def prepare(self, inputs: Sequence[Mapping[str, Any]]) -> None:
        """Take a device, compile, and feed `inputs`."""
        raise NotImplementedError

    def translated(self) -> ContextManager[None]:
        """What the SDK raises within is raised as what it means."""
        raise NotImplementedError

    def feed(self, batches: Batches) -> None:
        listed = isinstance(batches, Sequence)
        self.alike = self.still and listed and len(batches) == 1  # type: ignore[arg-type]
        converted: Any = map(self.convert, batches)
        calls = map(self.packed, _ipu.calls(list(converted) if listed else converted, self.count))
        if self.synthetic:
            self.keep([next(calls)])
        else:
            # A sequence makes one call, again and again: it is packed once.
            self.batches = itertools.repeat(next(calls)) if listed else calls

    def convert(self, batch: Mapping[str, Any]) -> Mapping[str, Any]:
        return batch

    def packed(self, arrays: Dict[str, Any]) -> Any:
        """The arrays of a call, of shape (count, *shape of the graph), as the SDK takes them."""
        return arrays

    def keep(self, batches: Any) -> None:
        (self.call,) = batches

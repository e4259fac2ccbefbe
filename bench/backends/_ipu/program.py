"""The base class of IPU programs: one run is a call, in which the device processes its batches on all replicas."""

from __future__ import annotations

import itertools
from typing import Any, ContextManager, Dict, Mapping, Sequence

from bench.backends import _ipu
from bench.backends._ipu import effects
from bench.cases.case import Case, Settings
from bench.graph import Graph
from bench.program import Batches, Program

# Primitives that draw random numbers, so that equal batches have different results.
DRAWING = ("random", "dropout")


class IpuProgram(Program):
    """What the IPU backends share. Each implements prepare, translated, release and the methods of Program. `convert`
    is for one batch, and `packed` for the arrays of a call.

    A graph without inputs is not synthetic: it needs no data, and its results are checked.

    call_shape      the batches of one call: per step, accumulated in each weight update, and replicas
    scale           the factor on the loss
    call            the packed batches of the next call
    deterministic   equal batches of a call have equal results: nothing is random, and the weights stay the same
    identical       `deterministic`, and the batches of a call are equal
    """

    device_loop = True

    def __init__(self, sdk: Any, graph: Graph, case: Case, settings: Settings) -> None:
        super().__init__(graph, case, settings)
        self.sdk = sdk
        self.source = _ipu.source(sdk, settings)
        self.synthetic = self.synthetic and bool(graph.inputs)
        # `batches` yields whole calls, and a run takes one.
        self.batches_per_update = 1
        self.call_shape = _ipu.call_shape(case, settings)
        self.scale = _ipu.scale_of_loss(graph, case, settings)
        self.output_mode = _ipu.output_mode(case, settings)
        self.facts = effects.facts(graph, case, settings, self.output_mode, self.scale)
        self.call: Any = None
        self.deterministic = not any(node.op in DRAWING for node in graph.nodes)
        self.deterministic = self.deterministic and not (self.training and settings.batches_per_step > 1)
        self.identical = False

    def started(self, inputs: Sequence[Mapping[str, Any]]) -> IpuProgram:
        """This program, compiled and on its device. Releases the device if that fails."""
        try:
            with self.translated():
                self.prepare(inputs)
                self.compute_dtype, self.weight_dtype = self.dtypes()
        except BaseException:
            self.release()
            raise
        return self

    def prepare(self, inputs: Sequence[Mapping[str, Any]]) -> None:
        """Attach to a device, compile, and feed `inputs`."""
        raise NotImplementedError

    def translated(self) -> ContextManager[None]:
        """A context in which the SDK's exceptions become the suite's."""
        raise NotImplementedError

    def feed(self, batches: Batches) -> None:
        repeated = isinstance(batches, Sequence)
        self.identical = self.deterministic and repeated and len(batches) == 1  # type: ignore[arg-type]
        converted: Any = map(self.convert, batches)
        calls = map(self.packed, _ipu.calls(list(converted) if repeated else converted, self.call_shape))
        if self.synthetic:
            self.keep([next(calls)])
        else:
            # A sequence makes one call, which is packed once and repeated.
            self.batches = itertools.repeat(next(calls)) if repeated else calls

    def convert(self, batch: Mapping[str, Any]) -> Mapping[str, Any]:
        return batch

    def packed(self, arrays: Dict[str, Any]) -> Any:
        """The arrays of a call, of shape (batches of the call, *shape of the graph), as the SDK takes them."""
        return arrays

    def keep(self, batches: Any) -> None:
        (self.call,) = batches

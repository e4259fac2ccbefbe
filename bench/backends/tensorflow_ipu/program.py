"""A network under the IPUs' distribution strategy, and the calls that run it."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from typing import Any, ContextManager, Dict, Mapping, Optional, Sequence, Tuple

import tensorflow as tf
from tensorflow.python.ipu import ipu_strategy

from bench.backends import _ipu
from bench.backends._ipu import effects
from bench.backends._ipu.program import IpuProgram
from bench.backends.tensorflow import lowering
from bench.backends.tensorflow_ipu import config
from bench.backends.tensorflow_ipu.calls import Call
from bench.backends.tensorflow_ipu.layers import Network
from bench.backends.tensorflow_ipu.training import Trainer
from bench.cases.case import Case, Settings
from bench.cases.errors import Broken, Unavailable
from bench.cases.precision import PRECISIONS
from bench.graph import Graph
from bench.program import Arrays, Batches

CYCLES = re.compile(rb"Cycle count: (\d+)")


class Strategy(IpuProgram):
    """A network and its calls.

    main       the call that is timed
    resident   the same with one batch that stays on the device; compiled at its first use
    """

    def __init__(self, sdk: Any, graph: Graph, weights: Mapping[str, Any], case: Case, settings: Settings) -> None:
        super().__init__(sdk, graph, case, settings)
        # A graph without inputs needs no infeed.
        self.synthetic = settings.data == "synthetic" or not graph.inputs
        output_mode = "" if self.synthetic else self.output_mode
        self.facts = effects.facts(graph, case, settings, output_mode, self.scale)
        self.initial = dict(weights)
        self.main: Optional[Call] = None
        self.resident: Optional[Call] = None

    def translated(self) -> ContextManager[None]:
        return config.translated(self.settings)

    def prepare(self, inputs: Sequence[Mapping[str, Any]]) -> None:
        config.attach(self.case, self.settings)
        self.strategy = ipu_strategy.IPUStrategyV1()
        self.inputs = inputs
        with self.strategy.scope():
            self.network = Network(self.graph, self.initial, self.case, self.settings)
            self.trainer = Trainer(self.network, self.case, self.settings) if self.training else None
            self.main = self._call(fed=not self.synthetic)
        self.feed(inputs)
        self.main()

    def _call(self, fed: bool) -> Call:
        return Call(self.strategy, self.network, self.trainer, self.case, self.settings, fed)

    def feed(self, batches: Batches) -> None:
        assert self.main is not None
        self.identical = (
            self.deterministic and not self.synthetic and isinstance(batches, Sequence) and len(batches) == 1
        )
        with self.translated():
            self.main.feed(batches)

    def run_moved(self) -> None:
        assert self.main is not None
        with self.translated():
            self.main()

    def run_resident(self) -> None:
        if self.synthetic:
            self.run_moved()
            return
        with self.translated():
            if self.resident is None:
                with self.strategy.scope():
                    self.resident = self._call(fed=False)
                self.resident.feed(self.inputs)
            self.resident()

    def dtypes(self) -> Tuple[str, str]:
        assert self.main is not None
        compute = self.network.compute.name
        if self.main.results and not self.synthetic:
            compute = self.main.copies()["output"].dtype.name
        weights = {variable.dtype.name for variable, _ in self.network.variables()}
        return compute, ",".join(sorted(weights or {PRECISIONS[self.case.precision].weights}))

    def outputs(self) -> Arrays:
        assert self.main is not None
        identical = self.identical and self.main.mode == "all"
        results = {name: _ipu.last(copies, identical) for name, copies in self.main.copies().items()}
        return {name: lowering.canonical(array) for name, array in results.items()}

    def weights(self) -> Arrays:
        return dict(self.network.arrays())

    def load(self, weights: Mapping[str, Any]) -> None:
        self.network.load(weights)
        if self.trainer:
            self.trainer.optimiser.reset()

    def set_learning_rate(self, rate: float) -> None:
        assert self.trainer is not None
        self.trainer.set_learning_rate(rate)

    def predict(self, batch: Mapping[str, Any]) -> Any:
        if not self.training:
            return super().predict(batch)
        network = self.network
        if len(network.nodes) > 1:
            raise Unavailable("not supported: hits of a network that is cut over several IPUs (tensorflow_ipu)")
        names = [name for name in self.graph.inputs if int(name[len("input") :]) not in network.labels]
        if not hasattr(self, "logits"):
            self.logits = tf.function(network.predicted(names), jit_compile=True, autograph=False)
        arrays = [tf.convert_to_tensor(lowering.native_input(batch[name], network.compute)) for name in names]
        with self.translated():
            return lowering.canonical(self.strategy.run(self.logits, args=arrays).numpy())

    def device_facts(self) -> Dict[str, Any]:
        """The cycles of one more call, from TensorFlow's log on stderr: no function returns them."""
        if not self.settings.poplar.cycle_count:
            return {}
        with tempfile.TemporaryFile() as log:
            stderr = os.dup(2)
            os.dup2(log.fileno(), 2)
            try:
                self.run()
            finally:
                os.dup2(stderr, 2)
                os.close(stderr)
            log.seek(0)
            cycles = CYCLES.findall(log.read())
        if not cycles:
            raise Broken("TensorFlow has logged no cycle count: --cycle-count needs --log_cycle_count in its flags")
        return {"cycles": int(cycles[-1])}

    def release(self) -> None:
        with contextlib.ExitStack() as stack:
            stack.callback(config.release)
            if self.main is not None:
                stack.callback(self.main.close)

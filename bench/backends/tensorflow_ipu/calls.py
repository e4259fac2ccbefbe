"""One call to the IPUs: a loop over batches, or a pipeline, that the device runs by itself.

Fed        batches come through an infeed and results go through an outfeed, both within the call
Resident   the batch is in variables on the device. A loop leaves its last result there as well; a pipeline must not,
           so one number a weight update (of inference: a call) comes back, which needs every result
"""

from __future__ import annotations

import contextlib
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

import numpy as np
import tensorflow as tf

from bench.backends import _ipu
from bench.backends.tensorflow import lowering
from bench.backends.tensorflow_ipu import config
from bench.backends.tensorflow_ipu.layers import Network
from bench.backends.tensorflow_ipu.training import Trainer
from bench.cases.case import Case, Settings
from bench.program import Batches, resident

# What a result is multiplied by before it is added to the next input. The sum is the input, but no compiler knows:
# without it, what does not change from batch to batch would be computed once.
NOTHING = 1e-30


class Call:
    """A compiled program behind one call.

    results   of the last call, as they came, in the order of `names`
    failed    what those who make the batches raised
    """

    def __init__(
        self, strategy: Any, network: Network, trainer: Optional[Trainer], case: Case, settings: Settings, fed: bool
    ) -> None:
        self.strategy, self.network, self.trainer = strategy, network, trainer
        self.settings, self.fed = settings, fed
        self.updates = settings.batches_per_step
        self.accumulated = settings.recipe.batches_per_update(case.mode)
        self.count = _ipu.count(case, settings)
        self.mode = _ipu.output_mode(case, settings) if fed else "resident"
        self.pipelined = len(network.nodes) > 1
        self.names = ["loss", "output"] if network.loss_node else ["output"]
        self.results: List[Any] = []
        self.failed: Optional[Exception] = None
        self.source: List[Batches] = []
        self.inputs = {name: node for name, node in network.graph.inputs.items()}
        self.latency = settings.min_latency
        self.infeed = self._infeed() if fed else None
        self.outfeed = self._outfeed() if fed or self.pipelined else None
        specs = [] if fed else self._specs()
        self.variables = [tf.Variable(tf.zeros(spec.shape, spec.dtype), trainable=False) for spec in specs]
        self.left = [tf.Variable(zeros, trainable=False) for zeros in self._zeros()] if not self.outfeed else []
        body = self._pipeline if self.pipelined else self._loop
        self.function = tf.function(body, jit_compile=True, autograph=False)

    def feed(self, batches: Batches) -> None:
        if not self.fed:
            for variable, array in zip(self.variables, self._native(resident(batches, 1)[0]).values()):
                variable.assign(array)
            return
        assert self.infeed is not None
        if self.source:
            # What was fetched ahead goes with it.
            _ = self.infeed.deleter
        known = [self._native(batch) for batch in batches] if isinstance(batches, Sequence) else None
        self.source = [known if known is not None else map(self._native, batches)]
        _ = self.infeed.initializer

    def __call__(self) -> None:
        self.results = []
        try:
            self.strategy.run(self.function)
        except tf.errors.OpError:
            if self.failed is not None:
                raise self.failed from None
            raise
        # What is compiled without a device has no results, and would be waited for.
        if self.outfeed is not None and not self.settings.poplar.compile_only:
            found = self.outfeed.dequeue(wait_for_completion=True)
            self.results = [np.asarray(array) for array in found]

    def copies(self) -> Dict[str, Any]:
        """The results, on the host, each in the layout of the device behind a first axis for the copies."""
        found = self.results or [variable.numpy()[None] for variable in self.left]
        shapes = [zeros.shape for zeros in self._zeros()]
        if self.mode == "resident" and self.pipelined:
            return {name: np.full((1, *shape), found[0].sum(), np.float32) for name, shape in zip(self.names, shapes)}
        return {name: array.reshape(-1, *shape) for name, array, shape in zip(self.names, found, shapes)}

    def close(self) -> None:
        if self.infeed is not None and self.source:
            with contextlib.suppress(tf.errors.OpError):
                _ = self.infeed.deleter

    # ---- what the device runs ----------------------------------------------------------------------

    def _loop(self) -> None:
        from tensorflow.python.ipu import loops

        stage, optimiser = self.network.stage(0), self.trainer.in_loop() if self.trainer else None
        carried = [] if self.mode == "all" else [self._start(zeros) for zeros in self._zeros()]

        def body(*args: Any) -> List[Any]:
            state, batch = list(args[: len(carried)]), list(args[len(carried) :])
            if not self.fed:
                batch = self._changing([tf.identity(variable) for variable in self.variables], state[-1])
            found, done = self._step(stage, optimiser, batch)
            if self.mode == "all":
                assert self.outfeed is not None
                return _operations([self.outfeed.enqueue(found), done])
            if self.mode == "sum":
                found = [total + tf.cast(result, total.dtype) for total, result in zip(state, found)]
            return found + _operations([done])

        found = loops.repeat(self.updates * self.accumulated, body, carried, self.infeed)
        if self.mode == "all":
            return
        ended = list(found) if isinstance(found, (list, tuple)) else [found]
        if self.outfeed is not None:
            self.outfeed.enqueue(ended)
        for variable, result in zip(self.left, ended):
            variable.assign(result)

    def _step(self, stage: Any, optimiser: Any, batch: Sequence[Any]) -> Tuple[List[Any], Any]:
        """The results of a batch and, in training, the operation that moves the weights."""
        if self.trainer is None:
            return stage(*batch), None
        with tf.GradientTape() as tape:
            for variable in self.trainer.running:
                tape.watch(variable)
            found = stage(*batch)
            loss = self.trainer.scaled(found[0])
        return found, optimiser.apply_gradients(self.trainer.gradients(tape, loss))

    def _changing(self, batch: List[Any], result: Any) -> List[Any]:
        """The batch, with a first input that depends on the result of the batch before."""
        if batch and self.trainer is None:
            nothing = NOTHING * tf.reduce_mean(tf.cast(result, tf.float32))
            batch[0] = batch[0] + tf.cast(nothing, batch[0].dtype)
        return batch

    def _pipeline(self) -> None:
        from tensorflow.python.ipu.ops import pipelining_ops

        stages = [self.network.stage(number) for number in range(len(self.network.nodes))]
        if not self.fed:
            stages[0], stages[-1] = self._without_infeed(stages[0]), self._as_number(stages[-1])
        pipelining_ops.pipeline(
            stages,
            gradient_accumulation_count=self.accumulated if self.trainer else self.updates,
            repeat_count=self.updates if self.trainer else 1,
            inputs=[],
            infeed_queue=self.infeed,
            outfeed_queue=self.outfeed,
            device_mapping=list(range(len(stages))),
            accumulate_outfeed=self.mode in ("sum", "resident"),
            **self._pipeline_options(),
        )

    def _pipeline_options(self) -> Dict[str, Any]:
        from tensorflow.python.ipu import gradient_accumulation
        from tensorflow.python.ipu.ops import pipelining_ops

        chosen, found = self.settings.poplar, {}
        forward, backward = config.stage_options(self.settings)
        if chosen.pipeline_schedule:
            found["pipeline_schedule"] = pipelining_ops.PipelineSchedule[chosen.pipeline_schedule.capitalize()]
        if forward:
            found["forward_propagation_stages_poplar_options"] = forward
        if self.mode in ("sum", "resident"):
            found["accumulate_outfeed_dtype"] = tf.float32
        if self.trainer is None:
            return found
        trainer, modes = self.trainer, pipelining_ops.RecomputationMode
        if backward:
            found["backward_propagation_stages_poplar_options"] = backward
        if self.settings.recipe.recompute == "manual":
            # The only mode that heeds what is marked to be kept.
            found["recomputation_mode"] = modes.RecomputeAndBackpropagateInterleaved
        return {
            **found,
            "optimizer_function": lambda loss, *_: trainer.in_pipeline(loss),
            "offload_weight_update_variables": chosen.variable_offloading,
            "replicated_optimizer_state_sharding": chosen.replicated_tensor_sharding,
            "reduction_method": gradient_accumulation.GradientAccumulationReductionMethod.MEAN,
        }

    def _without_infeed(self, stage: Any) -> Any:
        return lambda: stage(*[tf.identity(variable) for variable in self.variables])

    def _as_number(self, stage: Any) -> Any:
        """The last stage with one number as its result: the loss, or the sum of the output."""

        def run(*args: Any) -> List[Any]:
            first = stage(*args)[0]
            return [first if self.network.loss_node else tf.reduce_sum(tf.cast(first, tf.float32))]

        return run

    # ---- queues, and what goes through them --------------------------------------------------------

    def _infeed(self) -> Any:
        from tensorflow.python.ipu import ipu_infeed_queue

        specs = tuple(tf.TensorSpec(spec.shape, spec.dtype) for spec in self._specs())
        dataset = tf.data.Dataset.from_generator(self._generate, output_signature=specs)
        known: Dict[str, Any] = {"optimise_latency": True} if self.latency else {}
        if not self.settings.poplar.prefetch or self.latency:
            known["prefetch_depth"] = 1
        return ipu_infeed_queue.IPUInfeedQueue(dataset, **known)

    def _generate(self) -> Iterator[Tuple[Any, ...]]:
        try:
            for arrays in _ipu.calls(self.source[0], self.count):
                for index in range(self.count):
                    yield tuple(arrays[name][index] for name in self.inputs)
        except Exception as error:
            # TensorFlow makes an error of its own of it, which `__call__` takes back.
            self.failed = error
            raise

    def _outfeed(self) -> Any:
        from tensorflow.python.ipu import ipu_outfeed_queue

        modes = ipu_outfeed_queue.IPUOutfeedMode
        last = self.pipelined and self.mode == "final"
        known: Dict[str, Any] = {"optimise_latency": True} if self.latency else {}
        return ipu_outfeed_queue.IPUOutfeedQueue(modes.LAST if last else modes.ALL, **known)

    def _native(self, batch: Mapping[str, Any]) -> Dict[str, Any]:
        return {name: lowering.native_input(batch[name], kind) for name, kind in zip(self.inputs, self._kinds())}

    def _kinds(self) -> List[Any]:
        """The type of each input's real numbers: labels are what the loss is computed in."""
        labels = {f"input{index}" for index in self.network.labels}
        return [tf.float32 if name in labels else self.network.compute for name in self.inputs]

    def _specs(self) -> List[Any]:
        integers = {"uint8": tf.uint8, "classes": tf.int32}
        return [
            tf.TensorSpec(_layout(node.shape), integers.get(node.attrs["values"], kind))
            for node, kind in zip(self.inputs.values(), self._kinds())
        ]

    def _zeros(self) -> List[Any]:
        """What the results of a batch look like."""
        output = np.zeros(_layout(self.network.graph.output.shape), self.network.compute.as_numpy_dtype)
        return [np.float32(0), output] if self.network.loss_node else [output]

    def _start(self, zeros: Any) -> Any:
        return tf.constant(zeros, tf.float32 if self.mode == "sum" else None)


def _layout(shape: Sequence[int]) -> Tuple[int, ...]:
    return (shape[0], *shape[2:], shape[1]) if len(shape) == 4 else tuple(shape)


def _operations(found: Sequence[Any]) -> List[Any]:
    return [operation for operation in found if operation is not None]

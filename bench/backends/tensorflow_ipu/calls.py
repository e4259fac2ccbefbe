"""One call to the IPUs: a loop over batches, or a pipeline, that runs on the device.

Fed        batches come through an infeed and results go through an outfeed, both within the call
Resident   the batch is in variables on the device. A loop leaves its last result there as well. A pipeline cannot, so
           it returns one number for each weight update (in inference: for each call) that depends on every result
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

import numpy as np
import tensorflow as tf

from bench.backends import _ipu
from bench.backends.tensorflow import lowering
from bench.backends.tensorflow_ipu import config
from bench.backends.tensorflow_ipu.layers import Network
from bench.backends.tensorflow_ipu.training import Trainer
from bench.cases.case import Case, Settings
from bench.program import Arrays, Batches, resident

# Each result is multiplied by this and added to the next input. The sum equals the input, but a compiler cannot know
# that. Otherwise it could compute the batch only once, because the batch does not change.
NEGLIGIBLE = 1e-30


@dataclass
class Source:
    """The batches of one feed.

    calls    the arrays of one call after another
    native   the batches are a fixed list, which has no end
    loaded   the number of calls whose arrays are ready for the infeed
    run      the number of calls that have run
    error    why there are no more calls
    """

    calls: Iterator[Arrays]
    native: bool = False
    loaded: int = 0
    run: int = 0
    error: Optional[Exception] = None


class Call:
    """A compiled program, run by one call.

    names          of the results
    results        of the last call, in the order of `names`, each with a first axis for the batches that come back
    last_results   the variables of the last results, if there is no outfeed
    """

    def __init__(
        self, strategy: Any, network: Network, trainer: Optional[Trainer], case: Case, settings: Settings, fed: bool
    ) -> None:
        self.strategy, self.network, self.trainer = strategy, network, trainer
        self.settings, self.fed = settings, fed
        self.call_shape = _ipu.call_shape(case, settings)
        self.updates, self.accumulated, _ = self.call_shape
        self.mode = _ipu.output_mode(case, settings) if fed else "resident"
        self.pipelined = len(network.nodes) > 1
        self.names = ["loss", "output"] if network.loss_node else ["output"]
        self.results: List[Any] = []
        self.source: Optional[Source] = None
        self.inputs = dict(network.graph.inputs)
        self.latency = settings.min_latency
        self.infeed = self._infeed() if fed else None
        self.outfeed = self._outfeed() if fed or self.pipelined else None
        specs = [] if fed else self._specs()
        self.variables = [tf.Variable(tf.zeros(spec.shape, spec.dtype), trainable=False) for spec in specs]
        self.last_results = [tf.Variable(zeros, trainable=False) for zeros in self._zeros()] if not self.outfeed else []
        body = self._pipeline if self.pipelined else self._loop
        self.function = tf.function(body, jit_compile=True, autograph=False)

    def feed(self, batches: Batches) -> None:
        if not self.fed:
            for variable, array in zip(self.variables, self._native(resident(batches, 1)[0]).values()):
                variable.assign(array)
            return
        assert self.infeed is not None
        if self.source is not None:
            # It also drops the batches that were fetched ahead.
            _ = self.infeed.deleter
        native: Any = map(self._native, batches)
        repeated = isinstance(batches, Sequence)
        self.source = Source(_ipu.calls(list(native) if repeated else native, self.call_shape), native=repeated)
        # The queue reads this attribute when it is initialised (`ipu_infeed_queue.py`). A queue of another name would
        # need another compilation.
        self.infeed._dataset = self._dataset(self.source)
        _ = self.infeed.initializer

    def __call__(self) -> None:
        self.results = []
        self.strategy.run(self.function)
        # Without a device there are no results, and `dequeue` would wait for ever.
        if self.outfeed is not None and not self.settings.poplar.compile_only:
            self.results = [np.asarray(array) for array in self.outfeed.dequeue(wait_for_completion=True)]
        source = self.source
        if source is not None:
            source.run += 1
            if source.error is not None and source.run > source.loaded:
                raise source.error

    def copies(self) -> Dict[str, Any]:
        """The results on the host, in the layout of the device, each of shape (batches that come back, *shape)."""
        results = self.results or [variable.numpy()[None] for variable in self.last_results]
        shapes = [zeros.shape for zeros in self._zeros()]
        if self.mode == "resident" and self.pipelined:
            return {name: np.full((1, *shape), results[0].sum(), np.float32) for name, shape in zip(self.names, shapes)}
        return {name: array.reshape(-1, *shape) for name, array, shape in zip(self.names, results, shapes)}

    def close(self) -> None:
        if self.infeed is not None and self.source is not None:
            with contextlib.suppress(tf.errors.OpError):
                _ = self.infeed.deleter

    # ---- the program on the device -----------------------------------------------------------------

    def _loop(self) -> None:
        from tensorflow.python.ipu import loops

        stage, optimiser = self.network.stage(0), self.trainer.in_loop() if self.trainer else None
        carried = [] if self.mode == "all" else [self._start(zeros) for zeros in self._zeros()]

        def body(*args: Any) -> List[Any]:
            state, batch = list(args[: len(carried)]), list(args[len(carried) :])
            if not self.fed:
                batch = self._changing([tf.identity(variable) for variable in self.variables], state[-1])
            results, update = self._step(stage, optimiser, batch)
            if self.mode == "all":
                assert self.outfeed is not None
                return _operations([self.outfeed.enqueue(results), update])
            if self.mode == "sum":
                results = [total + tf.cast(result, total.dtype) for total, result in zip(state, results)]
            return results + _operations([update])

        final = loops.repeat(self.updates * self.accumulated, body, carried, self.infeed)
        if self.mode == "all":
            return
        results = list(final) if isinstance(final, (list, tuple)) else [final]
        if self.outfeed is not None:
            self.outfeed.enqueue(results)
        for variable, result in zip(self.last_results, results):
            variable.assign(result)

    def _step(self, stage: Any, optimiser: Any, batch: Sequence[Any]) -> Tuple[List[Any], Any]:
        """The results of a batch and, in training, the operation that updates the weights."""
        if self.trainer is None:
            return stage(*batch), None
        with tf.GradientTape() as tape:
            for variable in self.trainer.running:
                tape.watch(variable)
            results = stage(*batch)
            loss = self.trainer.scaled(results[0])
        return results, optimiser.apply_gradients(self.trainer.gradients(tape, loss))

    def _changing(self, batch: List[Any], result: Any) -> List[Any]:
        """The batch, with a first input that depends on the result of the previous batch. Training depends on it
        already, by the weights."""
        if batch and self.trainer is None:
            negligible = NEGLIGIBLE * tf.reduce_mean(tf.cast(result, tf.float32))
            batch[0] = batch[0] + tf.cast(negligible, batch[0].dtype)
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

        poplar, options = self.settings.poplar, {}
        forward, backward = config.stage_options(self.settings)
        if poplar.pipeline_schedule:
            options["pipeline_schedule"] = pipelining_ops.PipelineSchedule[poplar.pipeline_schedule.capitalize()]
        if forward:
            options["forward_propagation_stages_poplar_options"] = forward
        if self.mode in ("sum", "resident"):
            options["accumulate_outfeed_dtype"] = tf.float32
        if self.trainer is None:
            return options
        trainer, modes = self.trainer, pipelining_ops.RecomputationMode
        if backward:
            options["backward_propagation_stages_poplar_options"] = backward
        if self.settings.recipe.recompute == "manual":
            # The other modes ignore checkpoints.
            options["recomputation_mode"] = modes.RecomputeAndBackpropagateInterleaved
        return {
            **options,
            "optimizer_function": lambda loss, *_: trainer.in_pipeline(loss),
            "offload_weight_update_variables": poplar.variable_offloading,
            "replicated_optimizer_state_sharding": poplar.replicated_tensor_sharding,
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

    # ---- infeed and outfeed ------------------------------------------------------------------------

    def _infeed(self) -> Any:
        from tensorflow.python.ipu import ipu_infeed_queue

        dataset = tf.data.Dataset.from_generator(self._generate, output_signature=tuple(self._specs()))
        options: Dict[str, Any] = {"optimise_latency": True} if self.latency else {}
        if not self.settings.poplar.prefetch or self.latency:
            options["prefetch_depth"] = 1
        return ipu_infeed_queue.IPUInfeedQueue(dataset, **options)

    def _dataset(self, source: Source) -> Any:
        """The batches of a source. Those of a fixed list are tensors, which TensorFlow reads without Python."""
        specs = tuple(self._specs())
        if not source.native:
            return tf.data.Dataset.from_generator(self._generate, output_signature=specs)
        arrays = next(source.calls)
        with tf.device("/device:CPU:0"):
            tensors = tuple(tf.constant(arrays[name], spec.dtype) for name, spec in zip(self.inputs, specs))
            return tf.data.Dataset.from_tensor_slices(tensors).repeat()

    def _generate(self) -> Iterator[Tuple[Any, ...]]:
        """The batches of the present source, and zeros after its last complete call.

        The infeed fetches batches ahead, so an error here must not fail the calls before it. If a call needed more
        batches than the dataset has, TensorFlow would end the process. So that call gets zeros, and then raises.
        """
        source = self.source
        assert source is not None
        try:
            for arrays in source.calls:
                self._require_shapes(arrays)
                source.loaded += 1
                for index in range(math.prod(self.call_shape)):
                    yield tuple(arrays[name][index] for name in self.inputs)
        except Exception as error:  # noqa: BLE001 - `__call__` raises it
            source.error = error
        zeros = tuple(np.zeros(spec.shape, spec.dtype.as_numpy_dtype) for spec in self._specs())
        while True:
            yield zeros

    def _require_shapes(self, arrays: Arrays) -> None:
        """Raise ValueError for an array of another shape, for which TensorFlow would end the process."""
        for name, spec in zip(self.inputs, self._specs()):
            if arrays[name].shape[1:] != tuple(spec.shape):
                raise ValueError(f"{name} of a batch has shape {arrays[name].shape[1:]}, not {tuple(spec.shape)}")

    def _outfeed(self) -> Any:
        from tensorflow.python.ipu import ipu_outfeed_queue

        modes = ipu_outfeed_queue.IPUOutfeedMode
        last = self.pipelined and self.mode == "final"
        options: Dict[str, Any] = {"optimise_latency": True} if self.latency else {}
        return ipu_outfeed_queue.IPUOutfeedQueue(modes.LAST if last else modes.ALL, **options)

    def _native(self, batch: Mapping[str, Any]) -> Dict[str, Any]:
        return {name: lowering.native_input(batch[name], dtype) for name, dtype in zip(self.inputs, self._dtypes())}

    def _dtypes(self) -> List[Any]:
        """The type of each input's real numbers. Labels have the type of the loss."""
        labels = {f"input{index}" for index in self.network.labels}
        return [tf.float32 if name in labels else self.network.compute for name in self.inputs]

    def _specs(self) -> List[Any]:
        integers = {"uint8": tf.uint8, "classes": tf.int32}
        return [
            tf.TensorSpec(_layout(node.shape), integers.get(node.attrs["values"], dtype))
            for node, dtype in zip(self.inputs.values(), self._dtypes())
        ]

    def _zeros(self) -> List[Any]:
        """Zeros in the shapes and types of the results of a batch."""
        output = np.zeros(_layout(self.network.graph.output.shape), self.network.compute.as_numpy_dtype)
        return [np.float32(0), output] if self.network.loss_node else [output]

    def _start(self, zeros: Any) -> Any:
        return tf.constant(zeros, tf.float32 if self.mode == "sum" else None)


def _layout(shape: Sequence[int]) -> Tuple[int, ...]:
    """The device's shape: channels last for images."""
    return (shape[0], *shape[2:], shape[1]) if len(shape) == 4 else tuple(shape)


def _operations(operations: Sequence[Any]) -> List[Any]:
    return [operation for operation in operations if operation is not None]

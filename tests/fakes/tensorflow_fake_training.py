"""Loops, pipelines and optimisers of TensorFlow for IPU on the CPU."""

from __future__ import annotations

import inspect
from typing import Any, Dict, List

import tensorflow as tf
from contract import record, state
from fake_machine import wrong
from tensorflow_fake_queues import dequeued
from tensorflow_fake_run import System


def listed(value: Any) -> List[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def repeat(n: int, body: Any, inputs: Any, infeed_queue: Any, use_while_v1: bool) -> Any:
    values = [tf.convert_to_tensor(one) for one in listed(inputs if inputs is not None else [])]
    for _ in range(n):
        fed = dequeued(infeed_queue) if infeed_queue is not None else []
        outputs = listed(body(*values, *fed))
        operations = [one for one in outputs if isinstance(one, tf.Operation)]
        tensors = [tf.convert_to_tensor(one) for one in outputs if not isinstance(one, tf.Operation)]
        if outputs[len(tensors) :] != operations:
            raise ValueError(
                "IPU loop body must return zero or more Tensor values followed by zero or more Operations."
            )
        if [(one.dtype, one.shape) for one in values] != [(one.dtype, one.shape) for one in tensors]:
            raise TypeError(f"Mismatch between input types and output types for loop body: {values} vs {tensors}.")
        values = tensors
    return values[0] if len(values) == 1 else values or None


def require_length(stages: int, schedule: Any, training: bool, count: int) -> None:
    name = schedule.name if schedule is not None else "Grouped"
    length = {"Grouped": 2 * stages if training else stages, "Interleaved": stages, "Sequential": 1}[name]
    if count % length or count < length:
        text = f"The number of iterations of the pipeline must be a multiple of {length}, but is {count}."
        raise tf.errors.FailedPreconditionError(None, None, text)


def pipeline(computational_stages: Any, **told: Any) -> None:
    stages, make, count = computational_stages, told["optimizer_function"], told["gradient_accumulation_count"]
    mapping = told["device_mapping"] or list(range(len(stages)))
    assert len(stages) >= 2
    assert len(mapping) == len(stages)
    for name in ("forward", "backward"):
        options = told[f"{name}_propagation_stages_poplar_options"]
        assert options is None or len(options) == len(stages), f"{name}: {len(options)} options"
    require_length(len(stages), told["pipeline_schedule"], make is not None, count)
    System.run.shards = max(mapping) + 1
    added = told["accumulate_outfeed"]
    for _ in range(told["repeat_count"]):
        sums: Dict[int, Any] = {}
        totals: List[Any] = []
        for _ in range(count):
            with tf.GradientTape() as tape:
                found = staged(stages, told["infeed_queue"], tape if make else None)
                made = make(*found) if make else None
            if make:
                for index, (gradient, variable) in enumerate(gradients(tape, made)):
                    sums[index] = (sums[index][0] + gradient if index in sums else gradient, variable)
            if added:
                kept = [tf.cast(one, told["accumulate_outfeed_dtype"] or one.dtype) for one in found]
                totals = [total + one for total, one in zip(totals, kept)] or kept
            else:
                told["outfeed_queue"].enqueue(found)
        if make:
            mean = told["reduction_method"].name == "MEAN" and not wrong("accumulation")
            factor = 1 / count if mean else 1.0
            place_state(sums.values(), told)
            state(made).opt.apply_gradients([(total * factor, variable) for total, variable in sums.values()])
        if added:
            told["outfeed_queue"].enqueue(totals)


def staged(stages: Any, infeed: Any, tape: Any) -> List[Any]:
    """Return what the last stage returns; no stage may change a variable, or read one of another's."""
    values = dequeued(infeed) if infeed is not None else []
    owners: Dict[int, int] = {}
    before = [one.numpy() for one in System.variables] if tf.executing_eagerly() else []
    if tape is not None:
        for variable in System.variables:
            tape.watch(variable)
    for number, stage in enumerate(stages):
        with tf.GradientTape() as own:
            values = listed(stage(*values))
        for variable in own.watched_variables():
            assert owners.setdefault(id(variable), number) == number, f"{variable.name} is read by two stages"
    same = all((one.numpy() == old).all() for one, old in zip(System.variables, before))
    assert same, "a stage changed a variable"
    return values


def gradients(tape: Any, made: Any) -> Any:
    """Return the pairs that the optimiser computes; eagerly, a tape has to do it for it."""
    opt, told = state(made).opt, state(made).compute_gradients_kwargs or {}
    # The true one calls inspect.getargspec, which takes no annotations.
    assert not inspect.getfullargspec(type(opt).apply_gradients).annotations
    if not tf.executing_eagerly():
        return opt.compute_gradients(state(made).loss, **told)
    return list(zip(tape.gradient(state(made).loss, told["var_list"]), told["var_list"]))


def place_state(pairs: Any, told: Any) -> None:
    """Record where the largest variable is that only the update reads (`variables_offload_and_partition.cc`)."""
    weights = [variable for _, variable in pairs]
    own = [one for one in System.variables if all(one is not weight for weight in weights)]
    shares = System.run.replicas if told["replicated_optimizer_state_sharding"] else 1
    # None is automatic: what is large enough goes to remote memory.
    remote = told["offload_weight_update_variables"] is not False and any(
        one.shape.num_elements() * one.dtype.size >= 128 * shares for one in own
    )
    record("tensorflow.lowered", {"state": [{"offChip": remote, "sharded": remote and shares > 1}]})


def keep(self: Any, **told: Any) -> None:
    state(self).__dict__.update(told)


# ---- optimisers ---------------------------------------------------------------------------------


class IpuOptimizer(tf.compat.v1.train.Optimizer):
    def __init__(self, opt: Any, name: Any = None) -> None:
        kind = type(self).__name__
        super().__init__(False, name or (kind if kind != "IpuOptimizer" else None))
        self._opt = opt

    def apply_gradients(self, grads_and_vars: Any, global_step: Any = None, name: Any = None) -> Any:
        return self._opt.apply_gradients(grads_and_vars, global_step, name)

    def compute_gradients(self, loss: Any, var_list: Any = None, **more: Any) -> Any:
        return self._opt.compute_gradients(loss, var_list=var_list, **more)


def mean_over_replicas(self: Any, grads_and_vars: Any, global_step: Any = None, name: Any = None) -> Any:
    pairs = list(grads_and_vars)
    given = System.run.exchange([gradient for gradient, _ in pairs])
    factor = 1.0 if wrong("sum") else 1 / len(given)
    found = [tf.add_n(list(parts)) * factor for parts in zip(*given)]
    return self._opt.apply_gradients([(one, v) for one, (_, v) in zip(found, pairs)], global_step, name)


def accumulate(self: Any, grads_and_vars: Any, global_step: Any = None, name: Any = None) -> Any:
    held = state(self)
    pairs = list(grads_and_vars)
    scale = 1 / held.num_mini_batches if held.reduction_method.name == "MEAN" and not wrong("accumulation") else 1.0
    before = getattr(held, "sums", None) or [0.0] * len(pairs)
    held.sums = [total + gradient * scale for total, (gradient, _) in zip(before, pairs)]
    held.batches = getattr(held, "batches", 0) + 1
    if held.batches % held.num_mini_batches:
        return tf.no_op() if not tf.executing_eagerly() else None
    found, held.sums = held.sums, None
    place_state(pairs, vars(held))
    return self._opt.apply_gradients([(one, v) for one, (_, v) in zip(found, pairs)], global_step, name)

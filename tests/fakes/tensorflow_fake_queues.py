"""Queues between host and IPUs on the CPU: each replica has its own end."""

from __future__ import annotations

import itertools
from typing import Any, List

import tensorflow as tf
from contract import record, state
from fake_machine import wrong
from tensorflow_fake_run import System

OUTFEEDS: List[Any] = []


def make_infeed(self: Any, dataset: Any, **told: Any) -> None:
    depth = told.get("prefetch_depth")
    if depth is not None and not 0 < depth < 256:
        raise ValueError(f"prefetch_depth must be greater than zero, but it is {depth}")
    if not all(spec.shape.is_fully_defined() for spec in tf.nest.flatten(dataset.element_spec)):
        raise ValueError("Output shape is not fully defined.")
    self._dataset = dataset
    state(self).__dict__.update(dataset=dataset, iterator=None, ahead={}, dequeued=False)


def initialise(self: Any) -> None:
    held = state(self)
    if held.iterator is not None:
        raise tf.errors.AlreadyExistsError(None, None, "the infeed is there already")
    # `initializer` of the true queue reads the dataset's tensor anew (`ipu_infeed_queue.py`).
    assert self._dataset.element_spec == held.dataset.element_spec
    # The end of an iterator waits 30 ms for the thread that tunes it.
    untuned = tf.data.Options()
    untuned.autotune.enabled = False
    held.iterator = iter(self._dataset.with_options(untuned))
    held.ahead = held.ahead if wrong("stale") else {}


def delete_infeed(self: Any) -> None:
    state(self).iterator = None


def dequeued(queue: Any) -> List[Any]:
    """Return the next element of the replica whose turn it is: one after the other goes to one after the other."""
    held, run = state(queue), System.run
    record("tensorflow.lowered", {"stream": [{"prefetch": System.prefetches}]})
    assert held.iterator is not None, "an infeed that is not initialised"
    if not held.ahead.get(run.turn):
        # Two more rounds are fetched ahead. The SDK drops the last round where it is incomplete.
        for _ in range(3):
            elements = list(itertools.islice(held.iterator, run.replicas))
            if len(elements) == run.replicas:
                for replica, element in enumerate(elements):
                    held.ahead.setdefault(replica, []).append(element)
    # The SDK's check is LOG(FATAL) in poplar_executor.cc.
    assert held.ahead.get(run.turn), "the SDK ends the process: Infeed dataset iterator out of range"
    return list(held.ahead[run.turn].pop(0))


def forget() -> None:
    """Empty every outfeed: what is only compiled puts nothing there."""
    for held in OUTFEEDS:
        held.elements = {}


def make_outfeed(self: Any, outfeed_mode: Any, **told: Any) -> None:
    OUTFEEDS.append(state(self))
    state(self).__dict__.update(mode=outfeed_mode.name if outfeed_mode else "ALL", elements={}, single=False)


def enqueue(self: Any, tensors: Any) -> Any:
    held, run = state(self), System.run
    flat = list(tensors) if isinstance(tensors, (list, tuple)) else [tensors]
    held.single = not isinstance(tensors, (list, tuple))

    def put(*values: Any) -> None:
        held.elements.setdefault(run.turn, []).append([value.numpy() for value in values])

    if not tf.executing_eagerly():
        return tf.py_function(put, flat, [])
    put(*flat)
    return None


def dequeue(self: Any, wait_for_completion: bool = False) -> Any:
    held = state(self)
    if not held.elements:
        raise ValueError("Trying to dequeue an outfeed which has not been enqueued.")
    elements, held.elements = [held.elements[replica] for replica in sorted(held.elements)], {}
    found = []
    for index in range(len(elements[0][0])):
        copies = [[element[index] for element in own] for own in elements]
        if wrong("replica"):
            copies[-1] = [1.05 * copy for copy in copies[-1]]
        if wrong("iteration"):
            copies[0][0] = 1.05 * copies[0][0]
        array = tf.stack([tf.stack(step) if len(copies) > 1 else step[0] for step in zip(*copies)])
        found.append(array[-1] if held.mode == "LAST" else array)
    return found[0] if held.single else found

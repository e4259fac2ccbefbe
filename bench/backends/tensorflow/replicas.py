"""Replicas in TensorFlow: the mean of their gradients, by tf.distribute's own engine."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from typing import Any, Callable, List

import tensorflow as tf

from bench.group import LOOPBACK, Group

_strategy: List[Any] = []


def join(group: Group) -> None:
    """Make this process a worker of TensorFlow's cluster, once, and before it has computed anything."""
    if _strategy:
        return
    with contextlib.closing(socket.socket()) as held:
        held.bind(("", 0))
        own = LOOPBACK if group.host == LOOPBACK else socket.gethostname()
        workers = group.all_gather(f"{own}:{held.getsockname()[1]}")
    cluster = {"worker": workers}
    os.environ["TF_CONFIG"] = json.dumps({"cluster": cluster, "task": {"type": "worker", "index": group.rank}})
    _strategy.append(tf.distribute.MultiWorkerMirroredStrategy())


def run_in_replicas(step: Callable[..., Any]) -> Callable[..., Any]:
    """A step in which `mean` is over all replicas."""

    def run(*args: Any) -> Any:
        return _strategy[0].run(step, args)

    return run


def mean(gradients: List[Any]) -> List[Any]:
    """The mean over all replicas; inside of `run_in_replicas`."""
    found = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.MEAN, gradients)
    return list(found)

"""Replicas in TensorFlow, whose gradients tf.distribute all-reduces."""

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
    """Make this process a worker of a TensorFlow cluster, once. It must not have computed anything before."""
    if _strategy:
        return
    # The socket reserves a port until all replicas know it.
    with contextlib.closing(socket.socket()) as reserved:
        reserved.bind(("", 0))
        host = LOOPBACK if group.host == LOOPBACK else socket.gethostname()
        workers = group.all_gather(f"{host}:{reserved.getsockname()[1]}")
    cluster = {"worker": workers}
    os.environ["TF_CONFIG"] = json.dumps({"cluster": cluster, "task": {"type": "worker", "index": group.rank}})
    _strategy.append(tf.distribute.MultiWorkerMirroredStrategy())


def run_in_replicas(step: Callable[..., Any]) -> Callable[..., Any]:
    """`step`, as a function in which `all_reduce` works."""

    def run(*args: Any) -> Any:
        return _strategy[0].run(step, args)

    return run


def all_reduce(gradients: List[Any]) -> List[Any]:
    """The mean of the gradients over all replicas. To be called within `run_in_replicas`."""
    return list(tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.MEAN, gradients))

"""Averages of weights over checkpoints, computed after training.

    mean         (w1 + ... + wN) / N
    exponential  a1 = w1, ai = decay * a(i-1) + (1 - decay) * wi

Checkpoints are dictionaries of numpy arrays by name, the oldest first. Sums are float64; an average has the type of
the newest checkpoint. All floating-point arrays are averaged, also the running statistics of a batch norm. Integers
(a count of steps) are taken from the newest checkpoint.

Source   Graphcore's CNN harnesses: TensorFlow in SDK 2.0 (weight_avg.py -N, --mode, --decay 0.99) and PyTorch in
         SDK 2.4 (--weight-avg-strategy, --weight-avg-N, --weight-avg-exp-decay 0.99). As there, a number larger
         than that of the checkpoints takes all. PyTorch's averaged only trained weights. TensorFlow's train.py left
         the last checkpoint out of the mean, and its --weight-avg-N counted epochs; here the caller chooses.
"""

from __future__ import annotations

from typing import Any, Dict, Mapping, Optional, Sequence

Array = Any
Weights = Mapping[str, Array]


def mean(checkpoints: Sequence[Weights], last: Optional[int] = None) -> Dict[str, Array]:
    """Return the mean of the `last` checkpoints, or of all.

    Raises ValueError if there are none, or if their names or shapes differ.
    """
    chosen = _chosen(checkpoints, last)
    return _average(chosen, [1 / len(chosen)] * len(chosen))


def exponential(checkpoints: Sequence[Weights], decay: float = 0.99, last: Optional[int] = None) -> Dict[str, Array]:
    """Return the exponential mean of the `last` checkpoints, or of all, starting with the oldest of them.

    Raises ValueError for a decay outside 0 to 1, if there are no checkpoints, or if their names or shapes differ.
    """
    if not 0 <= decay <= 1:
        raise ValueError(f"decay {decay} is not within 0 to 1")
    chosen = _chosen(checkpoints, last)
    newest = len(chosen) - 1
    return _average(chosen, [decay**newest] + [(1 - decay) * decay ** (newest - i) for i in range(1, newest + 1)])


def _chosen(checkpoints: Sequence[Weights], last: Optional[int]) -> Sequence[Weights]:
    if not checkpoints:
        raise ValueError("no checkpoints to average")
    if last is None:
        return checkpoints
    if last < 1:
        raise ValueError(f"the last {last} checkpoints: at least one is needed")
    return checkpoints[-last:]


def _average(checkpoints: Sequence[Weights], shares: Sequence[float]) -> Dict[str, Array]:
    """The weighted sum of the checkpoints; `shares` are the weights."""
    import numpy as np

    newest = checkpoints[-1]
    sums = {name: np.zeros(np.shape(array)) for name, array in newest.items()}
    for number, (checkpoint, share) in enumerate(zip(checkpoints, shares)):
        _require_same_arrays(checkpoint, newest, number)
        for name, array in checkpoint.items():
            sums[name] += share * np.asarray(array, np.float64)
    return {name: _typed(sums[name], np.asarray(array)) for name, array in newest.items()}


def _typed(total: Array, newest: Array) -> Array:
    # The mean of a count of steps has no meaning.
    return newest.copy() if newest.dtype.kind in "iub" else total.astype(newest.dtype)


def _require_same_arrays(checkpoint: Weights, newest: Weights, number: int) -> None:
    import numpy as np

    if checkpoint.keys() != newest.keys():
        names = ", ".join(sorted(checkpoint.keys() ^ newest.keys()))
        raise ValueError(f"checkpoint {number} and the newest do not both have: {names}")
    for name, array in checkpoint.items():
        if np.shape(array) != np.shape(newest[name]):
            raise ValueError(
                f"{name} is {np.shape(array)} in checkpoint {number}, {np.shape(newest[name])} in the newest"
            )

"""Random weights and inputs of a graph, seeded with their names: every backend gets the same numbers."""

from __future__ import annotations

import zlib
from typing import Any, Dict

import numpy as np

from bench.graph import Graph, Node, activations

Array = Any

# The kinds of inputs that a workload computes on; the other kinds are labels.
FEATURES = ("uniform", "image", "pixels", "uint8")


def rounded(array: Array, dtype: str) -> Array:
    """Return `array` as float32, rounded to the values that `dtype` can hold. Integers stay integers."""
    if array.dtype.kind in "iu":
        return array
    array = np.asarray(array, dtype=np.float32)
    if dtype == "float16":
        return array.astype(np.float16).astype(np.float32)
    if dtype == "bfloat16":
        # Round to nearest, ties to even, on the upper half of the bits.
        bits = np.ascontiguousarray(array).view(np.uint32)
        bits = bits + 0x7FFF + ((bits >> np.uint32(16)) & np.uint32(1))
        return (bits & np.uint32(0xFFFF0000)).view(np.float32).reshape(array.shape)
    return array


# Bounds of the uniform distribution by kind of weight; other kinds have bounds that depend on the fan-in.
BOUNDS = {
    "scale": (0.8, 1.2),
    "last_scale": (0.2, 0.4),
    "shift": (-0.2, 0.2),
    "mean": (-0.2, 0.2),
    "variance": (0.6, 1.4),
}
# The number of the batch that scales the weights of deep networks; no case is checked or timed on it.
SCALING_BATCH = 10**6
# Weights of norms before training.
INITIAL = {"scale": 1.0, "last_scale": 0.0, "shift": 0.0, "mean": 0.0, "variance": 1.0}


def weights(graph: Graph, dtype: str, start: bool = False) -> Dict[str, Array]:
    """Every weight by name, rounded to `dtype`.

    Kernels and matrices are uniform within +-1 / sqrt(fan_in). In a deep network they are uniform within
    +-sqrt(6 / fan_in) (He et al. 2015), and `bench/graph/activations.py` then scales them.

    start   norms have the values with which training starts, not random ones
    """
    arrays = {}
    for weight in graph.weights:
        if start and weight.kind in INITIAL:
            arrays[weight.name] = np.full(weight.shape, INITIAL[weight.kind])
        else:
            bound = ((6 if weight.kind == "deep" else 1) / weight.fan_in) ** 0.5
            low, high = BOUNDS.get(weight.kind, (-bound, bound))
            arrays[weight.name] = _generator(weight.name, 0).uniform(low, high, weight.shape)
    if any(weight.kind == "deep" for weight in graph.weights):
        sample = graph.sample() if graph.sample is not None else graph
        activations.keep_size(sample, arrays, inputs(sample, "float32", SCALING_BATCH), statistics=not start)
    return {name: rounded(array, dtype) for name, array in arrays.items()}


def inputs(graph: Graph, dtype: str, batch: int = 0, zero: bool = False) -> Dict[str, Array]:
    """Every input by name, rounded to `dtype`.

    batch   the number of the batch: each has other values
    zero    zeros in place of random features; labels stay random
    """
    arrays = {}
    for name, node in graph.inputs.items():
        values = _draw(_generator(name, batch), node)
        if zero and node.attrs["values"] in FEATURES:
            values = np.zeros_like(values)
        arrays[name] = rounded(values, dtype)
    return arrays


def _generator(name: str, seed: int) -> Any:
    return np.random.default_rng([zlib.crc32(name.encode()), seed])


def _draw(generator: Any, node: Node) -> Array:
    kind, shape = node.attrs["values"], node.shape
    if kind == "uniform":
        return generator.uniform(-1, 1, shape)
    if kind in ("image", "uint8", "pixels"):
        # Each image has another mean colour. The mean of plain noise is the same in every image, and a deep network
        # would see little else.
        middle = generator.uniform(-0.5, 0.5, (*shape[:2], 1, 1))
        image = middle + (1 - abs(middle)) * generator.uniform(-1, 1, shape)
        if kind == "image":
            return image
        return np.rint(127.5 * (image + 1)).astype(np.uint8 if kind == "uint8" else np.float64)
    if kind == "normal":
        return generator.standard_normal(shape)
    if kind == "unit":
        return generator.uniform(0, 1, shape)
    if kind == "kept":
        share = 1 - node.attrs["rate"]
        return (generator.uniform(0, 1, shape) < share) / share
    if kind == "distribution":
        values = generator.uniform(0, 1, shape)
        return values / values.sum(axis=-1, keepdims=True)
    integers = generator.integers(0, node.attrs.get("count", 2), shape)
    return integers if kind == "classes" else integers.astype(np.float64)

"""The numbers that go into a graph: drawn from names, so that every backend gets the same."""

from __future__ import annotations

import zlib
from typing import Any, Dict

import numpy as np

from bench.graph import Graph, Node

Array = Any


def rounded(array: Array, dtype: str) -> Array:
    """`array` as float32 (integers stay), with only values that `dtype` can hold."""
    if array.dtype.kind == "i":
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


def weights(graph: Graph, dtype: str) -> Dict[str, Array]:
    """Every weight by name, uniform within +-1 / sqrt(fan_in), rounded to `dtype`."""
    found = {}
    for weight in graph.weights:
        bound = weight.fan_in**-0.5
        found[weight.name] = rounded(_generator(weight.name, 0).uniform(-bound, bound, weight.shape), dtype)
    return found


def inputs(graph: Graph, dtype: str, batch: int = 0, zero: bool = False) -> Dict[str, Array]:
    """Every input by name, rounded to `dtype`. `batch` counts the batches; `zero` gives zeros."""
    found = {}
    for name, node in graph.inputs.items():
        values = _draw(_generator(name, batch), node)
        if zero and node.attrs["values"] == "uniform":
            values = np.zeros_like(values)
        found[name] = rounded(values, dtype)
    return found


def _generator(name: str, seed: int) -> Any:
    return np.random.default_rng([zlib.crc32(name.encode()), seed])


def _draw(generator: Any, node: Node) -> Array:
    kind, shape = node.attrs["values"], node.shape
    if kind == "uniform":
        return generator.uniform(-1, 1, shape)
    if kind == "normal":
        return generator.standard_normal(shape)
    if kind == "unit":
        return generator.uniform(0, 1, shape)
    if kind == "distribution":
        values = generator.uniform(0, 1, shape)
        return values / values.sum(axis=-1, keepdims=True)
    integers = generator.integers(0, 2, shape)
    return integers if kind == "classes" else integers.astype(np.float64)

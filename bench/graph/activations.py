"""Weights of deep networks that keep the size of the activations, for the input at hand.

Weights that are only drawn let a signal grow or fade from layer to layer. A network of 200 layers then answers with
numbers of 1e10, and a rounding error in its first layer decides its last. A trained network does not do that. So a few
inputs are taken through a small copy of the network in float64, and each convolution is set by the root mean square
(rms) of its output there:

before a batch norm   the running mean and variance are multiplied, so that the norm's output has the size
before a group norm   nothing is set: the norm measures its input itself
without a norm        the weights are divided, so that the output has the size

Sizes   rms of 1; 4 before silu and hardswish, whose gain depends on the size of a small input, so that small signals
        fade and large ones grow; 0.3 at the end of a residual branch without a norm (norms have it in their scale)
Source  Mishkin and Matas 2016, "All you need is a good init", which does this to the variance

A measured size is rounded to a few bits: every process gets the same weights, whatever the order of its sums.
"""

from __future__ import annotations

import math
from typing import Any, Dict, List, Mapping, Optional

from bench.graph.primitives import Graph, Node
from bench.graph.reference import walk

Array = Any

SIZES = {"silu": 4.0, "hardswish": 4.0}
BRANCH_SIZE = 0.3
SIZE_BITS = 6


def keep_size(graph: Graph, weights: Dict[str, Array], inputs: Mapping[str, Array], statistics: bool = True) -> None:
    """Change the float64 `weights` of an inference graph, in place, so that activations of `inputs` keep their size.

    statistics   also multiply the running statistics of batch norms; else they stay as they are
    """
    readers = _readers(graph)

    def visit(index: int, node: Node, args: List[Array], result: Array) -> Array:
        if node.op != "conv" or not any(weight.kind == "deep" for weight in node.weights):
            return result
        reader = readers.get(index)
        norm = graph.nodes[reader] if reader is not None and graph.nodes[reader].op.endswith("_norm") else None
        if norm is None:
            return _resized(node, weights, result, _size(graph, readers, index))
        if norm.op == "batch_norm" and statistics:
            assert reader is not None
            _scale_statistics(norm, weights, _rms(result) / _size(graph, readers, reader))
        return result

    walk(graph, weights, inputs, "float64", visit)


def _readers(graph: Graph) -> Dict[int, int]:
    """The first node that reads each node's result, by their numbers."""
    found: Dict[int, int] = {}
    for index, node in enumerate(graph.nodes):
        for tensor in node.inputs:
            found.setdefault(tensor.node, index)
    return found


def _size(graph: Graph, readers: Mapping[int, int], index: int) -> float:
    """The size that the result of a node should have."""
    if graph.nodes[index].shape[2:] == (1, 1):
        # Squeeze and excitation: what follows is a gate.
        return 1.0
    if index not in readers:
        return 1.0
    reader = graph.nodes[readers[index]]
    if reader.op == "add" and reader.inputs[0].node == index and graph.nodes[index].op == "conv":
        return BRANCH_SIZE
    return SIZES.get(reader.op, 1.0)


def _scale_statistics(norm: Node, weights: Dict[str, Array], factor: float) -> None:
    names = {weight.kind: weight.name for weight in norm.weights}
    weights[names["mean"]] = factor * weights[names["mean"]]
    weights[names["variance"]] = factor**2 * weights[names["variance"]]


def _resized(conv: Node, weights: Dict[str, Array], result: Array, size: float) -> Array:
    """Divide the weights of a convolution, but not its bias, so that its `result` has a size; return that result."""
    kernel, *biases = [weight.name for weight in conv.weights]
    bias: Optional[Array] = weights[biases[0]][:, None, None] if biases else 0.0
    factor = size / _rms(result - bias)
    weights[kernel] = factor * weights[kernel]
    return factor * (result - bias) + bias


def _rms(x: Array) -> float:
    """The root mean square of an array, to a few bits; 1 for zeros, which nothing can scale."""
    value = math.sqrt(float((x**2).mean()))
    if not value > 0:
        return 1.0
    fraction, exponent = math.frexp(value)
    return math.ldexp(round(fraction * 2**SIZE_BITS) / 2**SIZE_BITS, exponent)

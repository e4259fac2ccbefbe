"""Data-dependent initialisation: scales the weights of deep networks so that activations keep their size.

With random weights alone a signal grows or fades from layer to layer. A network of 200 layers then returns numbers of
1e10, and a rounding error in its first layer decides its result. A trained network does not do that. So a few inputs
run through a small copy of the network in float64. The root mean square (rms) of the output of each convolution sets:

before a batch norm   the running mean and variance, which are multiplied so that the norm's output has the target rms
before a group norm   nothing: the norm measures its input itself
without a norm        the weights, which are divided so that the output has the target rms

Target  an rms of 1; 4 before silu and hardswish, whose gain falls for small inputs, so that small signals fade and
        large ones grow; 0.3 at the end of a residual branch without a norm (norms have it in their scale)
Source  Mishkin and Matas 2016, "All you need is a good init", which does this to the variance

A measured rms is rounded to a few bits, so that every process gets the same weights in whatever order it sums.
"""

from __future__ import annotations

import math
from typing import Any, Dict, List, Mapping, Optional

from bench.graph.primitives import Graph, Node
from bench.graph.reference import walk

Array = Any

TARGET_RMS = {"silu": 4.0, "hardswish": 4.0}
BRANCH_RMS = 0.3
RMS_BITS = 6


def keep_size(graph: Graph, weights: Dict[str, Array], inputs: Mapping[str, Array], statistics: bool = True) -> None:
    """Scale the float64 `weights` of an inference graph in place, so that activations of `inputs` keep their size.

    statistics   also scale the running statistics of batch norms
    """
    readers = _readers(graph)

    def visit(index: int, node: Node, args: List[Array], result: Array) -> Array:
        if node.op != "conv" or not any(weight.kind == "deep" for weight in node.weights):
            return result
        reader = readers.get(index)
        norm = graph.nodes[reader] if reader is not None and graph.nodes[reader].op.endswith("_norm") else None
        if norm is None:
            return _rescaled(node, weights, result, _target_rms(graph, readers, index))
        if norm.op == "batch_norm" and statistics:
            assert reader is not None
            _scale_statistics(norm, weights, _rms(result) / _target_rms(graph, readers, reader))
        return result

    walk(graph, weights, inputs, "float64", visit)


def _readers(graph: Graph) -> Dict[int, int]:
    """For each node, the first node that reads its result; both by index."""
    readers: Dict[int, int] = {}
    for index, node in enumerate(graph.nodes):
        for tensor in node.inputs:
            readers.setdefault(tensor.node, index)
    return readers


def _target_rms(graph: Graph, readers: Mapping[int, int], index: int) -> float:
    """The rms that the result of a node should have."""
    if graph.nodes[index].shape[2:] == (1, 1):
        # Squeeze and excitation: a gate follows.
        return 1.0
    if index not in readers:
        return 1.0
    reader = graph.nodes[readers[index]]
    if reader.op == "add" and reader.inputs[0].node == index and graph.nodes[index].op == "conv":
        return BRANCH_RMS
    return TARGET_RMS.get(reader.op, 1.0)


def _scale_statistics(norm: Node, weights: Dict[str, Array], factor: float) -> None:
    names = {weight.kind: weight.name for weight in norm.weights}
    weights[names["mean"]] = factor * weights[names["mean"]]
    weights[names["variance"]] = factor**2 * weights[names["variance"]]


def _rescaled(conv: Node, weights: Dict[str, Array], result: Array, target_rms: float) -> Array:
    """Scale a convolution's kernel, not its bias, so that its output has the target rms. Returns that output."""
    kernel, *biases = [weight.name for weight in conv.weights]
    bias: Optional[Array] = weights[biases[0]][:, None, None] if biases else 0.0
    factor = target_rms / _rms(result - bias)
    weights[kernel] = factor * weights[kernel]
    return factor * (result - bias) + bias


def _rms(x: Array) -> float:
    """The root mean square of an array, rounded to a few bits; 1 for an array of zeros, which cannot be scaled."""
    value = math.sqrt(float((x**2).mean()))
    if not value > 0:
        return 1.0
    fraction, exponent = math.frexp(value)
    return math.ldexp(round(fraction * 2**RMS_BITS) / 2**RMS_BITS, exponent)

"""Which nodes of a graph the calls of a program of Inductor compute. Its program keeps no names of modules.

Products and convolutions call libraries. They are matched by the shapes of input and weight; of several with the same
shapes, in order. A generated function is named after the operators that it fuses: it computes the nodes of these
kinds between the products before and after it.
"""

from __future__ import annotations

import re
from typing import Dict, List, Optional, Sequence, Tuple

from bench.graph import Graph, Node

Nodes = Tuple[int, ...]
# The name of a call, and the shapes of its arguments.
Call = Tuple[str, Sequence[Tuple[int, ...]]]

PRODUCTS = re.compile(r"conv|linear|mm\b|gemm")
GENERATED = re.compile(r"(cpp|triton)_\w*fused_")
# How the names of generated functions spell primitives, where they differ.
SPELLINGS: Dict[str, Tuple[str, ...]] = {
    "max_pool": ("max_pool2d",),
    "global_mean": ("mean",),
    "pooled": ("mean",),
    "relu6": ("hardtanh", "clamp"),
    "silu": ("silu", "sigmoid"),
    "gate": ("mul",),
    "normalise": ("mul", "add"),
    "batch_norm": ("batch_norm",),
    "group_norm": ("group_norm", "var_mean"),
    "pad_channels": ("pad",),
    "where_less": ("where",),
    "affine": ("mul", "add"),
}


def matched(graph: Graph, calls: Sequence[Call]) -> List[Nodes]:
    """The nodes that each call computes; empty: it is not known."""
    products = [index for index, node in enumerate(graph.nodes) if node.flops]
    found: List[Optional[int]] = []
    for name, shapes in calls:
        index = next((i for i in products if _fits(graph.nodes[i], shapes)), None) if _is_product(name) else None
        found.append(index)
        if index is not None:
            products.remove(index)
    return _with_generated(graph, calls, found)


def _is_product(name: str) -> bool:
    return bool(PRODUCTS.search(name)) and not GENERATED.search(name)


def _fits(node: Node, shapes: Sequence[Tuple[int, ...]]) -> bool:
    """Whether a call with arguments of these shapes can be a node."""
    if node.op not in ("conv", "dense") or not node.weights:
        return False
    weight, x = node.weights[0].shape, node.inputs[0].shape
    return x in shapes and (weight in shapes or (len(weight) == 2 and weight[::-1] in shapes))


def _with_generated(graph: Graph, calls: Sequence[Call], products: Sequence[Optional[int]]) -> List[Nodes]:
    """The nodes of each call, if the products are those of `products`."""
    claimed = {index for index in products if index is not None}
    found: List[Nodes] = []
    for position, (name, _) in enumerate(calls):
        product = products[position]
        if product is not None or not GENERATED.search(name):
            found.append(() if product is None else (product,))
            continue
        before = max((index for index in products[:position] if index is not None), default=-1)
        after = min((index for index in products[position + 1 :] if index is not None), default=len(graph.nodes))
        nodes = [i for i in range(before + 1, after) if i not in claimed and _spelled(graph.nodes[i], name)]
        claimed.update(nodes)
        # A function that computes no node by itself, such as the bias of a product, belongs to the call before it.
        found.append(tuple(nodes) or (found[-1] if found else ()))
    return found


def _spelled(node: Node, name: str) -> bool:
    return any(spelling in name for spelling in SPELLINGS.get(node.op, (node.op,)))

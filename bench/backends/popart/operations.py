"""PopART's own operations, where a model has them in place of ONNX's."""

from __future__ import annotations

from typing import Any, Callable, Dict

from bench.graph import Node

DOMAIN = "ai.graphcore"


def _group_norm(to: Any, node: Node, x: str) -> str:
    """The session says whether the groups are strided. The operator always has a mean and a variance as well."""
    scale, shift = (to.named(node, name)[0] for name in ("weight", "bias"))
    attrs = {"num_groups": node.attrs["groups"], "epsilon": node.attrs["eps"]}
    return str(to.op("GroupNormalization", x, scale, shift, outputs=3, domain=DOMAIN, **attrs)[0])


OPERATIONS: Dict[str, Callable[..., Any]] = {"group_norm": _group_norm}

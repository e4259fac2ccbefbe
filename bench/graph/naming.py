"""The names of a graph's nodes: in tables, and in the programs that frameworks compile.

A framework gets `scope`, which starts with the number of the node, so that `indexes` finds it again whatever the
framework makes of it: `n12_layer1.0.conv1/Conv2D:_FusedConv2D` is node 12.
"""

from __future__ import annotations

import re
from typing import List, Sequence, Tuple

from bench.graph.recording import Node

# The longest name of a node in a table or in a program.
LONGEST = 60
_SCOPE = re.compile(r"(?<![A-Za-z0-9_.])n(\d+)_")


def names(nodes: Sequence[Node]) -> List[str]:
    """A name for each node, each different: that of its weights, such as `layer1.0.conv1`, else its block and its
    primitive, such as `layer1.0.relu12`."""
    found = [_name(index, node) for index, node in enumerate(nodes)]
    return [name if found.count(name) == 1 else f"{name} (n{index})" for index, name in enumerate(found)]


def _name(index: int, node: Node) -> str:
    own = node.weights[0].name.rpartition(".")[0] if node.weights else ""
    if not own or re.search(rf"(^|\.)n{index}$", own) or "\n" in own or node.op == "scan":
        own = ".".join(part for part in (node.block, f"{node.op}{index}") if part)
    printable = "".join(letter if letter.isprintable() else "?" for letter in own)
    return printable if len(printable) <= LONGEST else printable[: LONGEST - 3] + "..."


def scope(index: int, node: Node) -> str:
    """The name of a node in a program: letters, digits, dots and underscores."""
    return f"n{index}_" + re.sub(r"[^A-Za-z0-9_.]", "_", _name(index, node))


def indexes(text: str) -> Tuple[int, ...]:
    """The numbers of the nodes that a name in a program names, in order."""
    return tuple(dict.fromkeys(int(number) for number in _SCOPE.findall(text)))

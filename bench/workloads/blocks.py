"""Where a pipeline of devices is cut: the names of three programs, as the blocks of ours.

Ours         a block, which the next stage starts with: layer2.0, features.3.1, head, fc
PyTorch's    a module's path with slashes; whatever is inside of a block stands for it: layer2/0/conv2, blocks/3/1,
             mb_block/7
TensorFlow's the first operation of the next stage: b2/0 is a block of ResNet, b1/2/relu the end of one, so that the
             next stage starts behind it; block3b is a block of EfficientNet
"""

from __future__ import annotations

import re
from typing import List, Optional, Sequence

from bench import workloads


def resolve(model: str, names: Sequence[str]) -> List[str]:
    """The blocks before which `model` is cut, in order. Raises ValueError for a name that is none of its blocks,
    for one that leaves a stage empty, and for an order that goes back."""
    module = workloads.load(model)
    size = next(iter(workloads.named_sizes(module).values()))
    graph = workloads.record(module, {key: size[key] for key in module.DIMENSIONS}, 1, "inference")
    blocks = graph.blocks
    found = [_block(name, blocks) for name in names]
    for name, block in zip(names, found):
        if block is None:
            raise ValueError(f"{model} has no block {name!r} to be cut before; it has {', '.join(blocks[1:])}")
    places = [blocks.index(block) for block in found if block]
    if places != sorted(set(places)) or 0 in places:
        raise ValueError(f"{model}: the splits {', '.join(names)} leave a stage empty, or go back")
    return [blocks[place] for place in places]


def _block(name: str, blocks: Sequence[str]) -> Optional[str]:
    residual = re.fullmatch(r"b(\d)/(\d+)(/relu)?", name)
    if residual:
        block = f"layer{residual[1]}.{residual[2]}"
        behind = 1 if residual[3] else 0
        return blocks[blocks.index(block) + behind] if block in blocks[: len(blocks) - behind] else None
    inverted = re.fullmatch(r"block(\d)([a-z])(/.*)?", name)
    if inverted:
        name = f"features.{inverted[1]}.{ord(inverted[2]) - ord('a')}"
    path = re.sub(r"^(?:blocks|mb_block)\.(\d+)", lambda found: f"features.{int(found[1]) + 1}", name.replace("/", "."))
    inside = [block for block in blocks if path == block or path.startswith(f"{block}.")]
    first = [block for block in blocks if block.startswith(f"{path}.")]
    return next(iter(inside or first), None)

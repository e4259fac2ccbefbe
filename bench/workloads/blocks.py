"""The blocks before which a pipeline of devices is cut, in the spelling of this suite and of two original programs.

This suite   the first block of the next stage: layer2.0, features.3.1, head, fc
PyTorch      a module's path with slashes: layer2/0/conv2, blocks/3/1, mb_block/7. A path inside a block means the block
TensorFlow   the first operation of the next stage: b2/0 is a block of ResNet, block3b one of EfficientNet. b1/2/relu
             is the end of a block, so the next stage starts with the block after it
"""

from __future__ import annotations

import re
from typing import List, Optional, Sequence

from bench import workloads


def resolve(model: str, names: Sequence[str]) -> List[str]:
    """Return the blocks before which `model` is cut, in order.

    Raises ValueError for a name that is not a block, for an empty stage, and for blocks that are not in order.
    """
    workload = workloads.load(model)
    size = next(iter(workloads.named_sizes(workload).values()))
    graph = workloads.record(workload, {key: size[key] for key in workload.dimensions}, 1, "inference")
    blocks = graph.blocks
    cuts = [_block(name, blocks) for name in names]
    for name, block in zip(names, cuts):
        if block is None:
            raise ValueError(f"{model} has no block {name!r} to be cut before; it has {', '.join(blocks[1:])}")
    indices = [blocks.index(block) for block in cuts if block]
    if indices != sorted(set(indices)) or 0 in indices:
        raise ValueError(f"{model}: the splits {', '.join(names)} leave a stage empty, or go back")
    return [blocks[index] for index in indices]


def _block(name: str, blocks: Sequence[str]) -> Optional[str]:
    residual = re.fullmatch(r"b(\d)/(\d+)(/relu)?", name)
    if residual:
        block = f"layer{residual[1]}.{residual[2]}"
        offset = 1 if residual[3] else 0
        return blocks[blocks.index(block) + offset] if block in blocks[: len(blocks) - offset] else None
    inverted = re.fullmatch(r"block(\d)([a-z])(/.*)?", name)
    if inverted:
        name = f"features.{inverted[1]}.{ord(inverted[2]) - ord('a')}"
    path = re.sub(r"^(?:blocks|mb_block)\.(\d+)", lambda match: f"features.{int(match[1]) + 1}", name.replace("/", "."))
    around = [block for block in blocks if path == block or path.startswith(f"{block}.")]
    within = [block for block in blocks if block.startswith(f"{path}.")]
    return next(iter(around or within), None)

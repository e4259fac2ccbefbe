"""Where pipelines are cut: the names of three programs mean the same blocks."""

from __future__ import annotations

import pytest

from bench import workloads
from bench.workloads import blocks

SAME = [
    ("resnet50", "layer2.0,layer3.0,layer3.4", "b1/2/relu,b2/3/relu,b3/3/relu"),
    ("resnet50", "layer2.0,layer3.1", "layer2/0/conv1,layer3/1"),
    ("resnet50", "layer2.0,layer3.1", "b2/0,b3/1"),
    ("resnext101_32x4d", "layer3.4", "b3/3/relu"),
    ("efficientnet_b4", "features.2.2,features.4.2,features.6.0", "block2c,block4c,block6a"),
    ("efficientnet_b4", "features.2.1,features.4.1,features.6.2", "block2b,block4b/SE,block6c"),
    ("efficientnet_b0", "features.4.0", "blocks/3/0"),
    ("mobilenet_v3_large", "features.3,features.8,features.12", "mb_block/2,mb_block/7,mb_block/11"),
]


@pytest.mark.parametrize("model, ours, theirs", SAME)
def test_every_program_names_the_same_block(model, ours, theirs):
    expected = ours.split(",")

    assert blocks.resolve(model, theirs.split(",")) == expected
    assert blocks.resolve(model, expected) == expected


@pytest.mark.parametrize("model", workloads.names("cnns"))
def test_every_block_but_the_first_may_start_a_stage(model):
    module = workloads.load(model)
    size = next(iter(workloads.named_sizes(module).values()))
    graph = workloads.record(module, {key: size[key] for key in module.dimensions}, 1, "inference")

    assert blocks.resolve(model, graph.blocks[1:]) == graph.blocks[1:]


@pytest.mark.parametrize(
    "names, told",
    [
        (["layer9"], "resnet50 has no block 'layer9' to be cut before; it has layer1.0, "),
        (["b1/3/relu"], "no block 'b1/3/relu'"),
        (["block2a"], "no block 'block2a'"),
        (["layer3", "layer2"], "leave a stage empty, or go back"),
        (["layer2", "layer2.0"], "leave a stage empty, or go back"),
        (["conv1"], "leave a stage empty, or go back"),
    ],
)
def test_what_is_no_place_to_cut_is_told(names, told):
    with pytest.raises(ValueError, match=told.replace("(", r"\(")) as caught:
        blocks.resolve("resnet50", names)

    assert "\n" not in str(caught.value)

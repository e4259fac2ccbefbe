"""Image networks as graphs: what they weigh, cost and are called, against published numbers and paper."""

from __future__ import annotations

import itertools
import math

import pytest

from bench import workloads
from bench.cases.recipe import Recipe
from bench.workloads import network

WIDE = {"group_dim": 16, "expand_ratio": 4}
# A model's largest size: trained weights, those and the running statistics, 10^9 multiply-accumulates of an image.
# ResNet, ResNeXt, MobileNet v3 and EfficientNet as Graphcore's programs have them, MobileNet v2 as torchvision and
# Keras count it. CIFAR's by hand: resnet8 has 432 + 32, 4672, 14528, 57728 and 650 weights in its five blocks, and
# resnet20 two more blocks of 4672, 18560 and 73984; resnext29_32x4d has the 4,774,218 of the usual one and the 1536
# that a first kernel of 3x3 has more than one of 1x1.
WEIGHTS = [
    ("efficientnet_b0", {}, 5_288_548, 5_330_564, 0.386),
    ("efficientnet_b0", WIDE, 5_913_796, 5_943_908, 0.635),
    ("efficientnet_b1", {}, 7_794_184, 7_856_232, 0.687),
    ("efficientnet_b1", WIDE, 8_332_120, 8_376_120, 1.112),
    ("efficientnet_b2", {}, 9_109_994, 9_177_562, 0.994),
    ("efficientnet_b2", WIDE, 9_504_122, 9_552_042, 1.522),
    ("efficientnet_b3", {}, 12_233_232, 12_320_528, 1.827),
    ("efficientnet_b3", WIDE, 12_590_896, 12_652_592, 2.731),
    ("efficientnet_b4", {}, 19_341_616, 19_466_816, 4.394),
    ("efficientnet_b4", WIDE, 19_328_168, 19_416_312, 6.183),
    ("efficientnet_b5", {}, 30_389_784, 30_562_520, 10.266),
    ("efficientnet_b5", WIDE, 28_715_320, 28_836_600, 13.501),
    ("efficientnet_b6", {}, 43_040_704, 43_265_136, 19.068),
    # 56 channels at 16 are three groups, which do not divide them: published are kernels of 56 // 3 = 18 channels,
    # ours are two groups of 28. 10 x 56 x 9 weights more, at 264 x 264 pixels.
    ("efficientnet_b6", WIDE, 39_825_464 + 5040, 39_982_760 + 5040, 23.954 + 0.351),
    ("efficientnet_b7", {}, 66_347_960, 66_658_680, 37.746),
    ("efficientnet_b7", WIDE, 59_210_264, 59_427_544, 44.862),
    ("mobilenet_v2", {}, 3_504_872, 3_538_984, 0.301),
    ("mobilenet_v3_small", {}, 2_945_288, 2_957_400, 0.057),
    ("mobilenet_v3_large", {}, 5_481_752, 5_506_152, 0.217),
    ("resnet18", {}, 11_689_512, 11_699_112, 1.814),
    ("resnet34", {}, 21_797_672, 21_814_696, 3.664),
    ("resnet50", {}, 25_557_032, 25_610_152, 4.089),
    ("resnet101", {}, 44_549_160, 44_654_504, 7.801),
    ("resnet152", {}, 60_192_808, 60_344_232, 11.514),
    ("resnet8", {}, 78_042, 78_714, 0.0125),
    ("resnet20", {}, 272_474, 274_042, 0.0408),
    ("resnext14_32x4d", {}, 9_411_880, 9_435_048, 1.591),
    ("resnext50_32x4d", {}, 25_028_904, 25_097_128, 4.23),
    ("resnext101_32x4d", {}, 44_177_704, 44_315_560, 7.97),
    ("resnext101_32x8d", {}, 88_791_336, 88_994_216, 16.414),
    ("resnext29_32x4d", {}, 4_774_218 + 1536, 4_800_970, 0.774),
]
MODELS = sorted(network.models())


def sized(model, **changed):
    """A model's first size with some dimensions changed, settled."""
    module = workloads.load(model)
    values = {**next(iter(workloads.named_sizes(module).values())), **changed}
    return module.canonical({key: values[key] for key in module.dimensions})


def recorded(model, mode="inference", batch_size=1, recipe=None, **changed):
    return workloads.record(workloads.load(model), sized(model, **changed), batch_size, mode, recipe=recipe or Recipe())


def numbers(graph):
    """Trained numbers, and all."""
    return graph.parameters, sum(math.prod(weight.shape) for weight in graph.weights)


def pixels(graph):
    """The pixels on a side that each block ends with, runs of equal ones as one."""
    ends = {node.block: node.shape[2] for node in graph.nodes if len(node.shape) == 4 and node.shape[2] > 1}
    return [side for side, _ in itertools.groupby(ends[block] for block in graph.blocks if block in ends)]


@pytest.mark.parametrize("model, changed, trained, every, gmacs", WEIGHTS)
def test_a_model_weighs_and_costs_what_is_published(model, changed, trained, every, gmacs):
    graph = recorded(model, **changed)

    assert numbers(graph) == (trained, every)
    assert graph.flops / 2e9 == pytest.approx(gmacs, rel=0.01)


def test_every_model_of_these_families_has_its_published_numbers():
    models, published = network.models(), {row[0] for row in WEIGHTS}
    families = {models[name].family for name in published}

    assert published == {name for name in MODELS if models[name].family in families}


@pytest.mark.parametrize("model, changed, trained", [row[:3] for row in WEIGHTS])
def test_group_norms_weigh_what_batch_norms_do_without_running_statistics(model, changed, trained):
    for fast in ("off", "on"):
        graph = recorded(model, norm_type="group", enable_fast_groupnorm=fast, **changed)

        assert numbers(graph) == (trained, trained)


@pytest.mark.parametrize("model", MODELS)
def test_running_statistics_are_two_numbers_a_channel_of_every_norm(model):
    graph = recorded(model)

    channels = sum(node.shape[1] for node in graph.nodes if node.op == "batch_norm")
    assert numbers(graph)[1] - numbers(graph)[0] == 2 * channels


@pytest.mark.parametrize("model", MODELS)
def test_without_norms_a_bias_stands_for_each_scale_and_shift(model):
    norms, none = recorded(model), recorded(model, norm_type="none")

    channels = sum(node.shape[1] for node in norms.nodes if node.op == "batch_norm")
    assert numbers(none) == (norms.parameters - channels,) * 2


@pytest.mark.parametrize("model", MODELS)
def test_training_has_the_weights_of_inference(model):
    assert recorded(model, "training").weights == recorded(model).weights


def test_groups_of_56_channels_at_16_are_two():
    """Three would not divide them. Where `group_dim` divides, it is what a group has."""
    graph = recorded("efficientnet_b6", **WIDE)
    found = {(n.shape[1], n.attrs["groups"]) for n in graph.nodes if n.op == "conv" and n.attrs["groups"] > 1}

    assert {width // groups for width, groups in found if width % 16 == 0} == {16}
    assert {(width, groups) for width, groups in found if width % 16} == {(56, 2)}


RESNET, DEPTHWISE = [56, 28, 14, 7], [112, 56, 28, 14, 7]


@pytest.mark.parametrize(
    "model, changed, sides",
    [
        ("resnet18", {}, RESNET),
        ("resnet50", {}, RESNET),
        ("resnext50_32x4d", {}, RESNET),
        ("resnet8", {}, [32, 16, 8]),
        ("resnext29_32x4d", {}, [32, 16, 8]),
        ("mobilenet_v2", {}, DEPTHWISE),
        ("mobilenet_v3_small", {}, DEPTHWISE),
        ("mobilenet_v3_large", {}, DEPTHWISE),
        ("efficientnet_b0", {}, DEPTHWISE),
        ("efficientnet_b2", {}, [130, 65, 33, 17, 9]),
        ("efficientnet_b7", {}, [300, 150, 75, 38, 19]),
        # Odd sizes are rounded up, five times.
        ("resnet50", {"image_size": 33}, [9, 5, 3, 2]),
        ("efficientnet_b0", {"image_size": 33}, [17, 9, 5, 3, 2]),
        ("mobilenet_v3_large", {"image_size": 193}, [97, 49, 25, 13, 7]),
    ],
)
@pytest.mark.parametrize("rule", ["symmetric", "same"])
def test_every_stage_halves_the_image(model, changed, sides, rule):
    assert pixels(recorded(model, padding_rule=rule, **changed)) == sides


def first_conv(graph):
    return next(node for node in graph.nodes if node.op == "conv")


@pytest.mark.parametrize(
    "model, rule, image_size, pads",
    [
        ("resnet50", "symmetric", 224, (3, 3)),
        ("resnet50", "same", 224, (2, 3)),
        ("resnet50", "same", 33, (3, 3)),
        ("mobilenet_v2", "symmetric", 224, (1, 1)),
        ("mobilenet_v2", "same", 224, (0, 1)),
        ("mobilenet_v2", "same", 33, (1, 1)),
    ],
)
def test_tensorflow_pads_an_even_image_at_its_end(model, rule, image_size, pads):
    node = first_conv(recorded(model, padding_rule=rule, image_size=image_size))

    assert node.attrs["pads"] == [pads, pads]


def test_blocks_have_torchvision_s_names():
    halves = [f"layer{stage}.{index}" for stage in (1, 2, 3, 4) for index in (0, 1)]

    assert recorded("resnet18").blocks == ["conv1", *halves, "fc"]
    assert recorded("mobilenet_v2").blocks == [*(f"features.{i}" for i in range(18)), "head"]
    assert recorded("mobilenet_v3_small").blocks == [*(f"features.{i}" for i in range(12)), "head"]
    stages = [f"features.{s}.{i}" for s, depth in enumerate((1, 2, 2, 3, 3, 4, 1), start=1) for i in range(depth)]
    assert recorded("efficientnet_b0").blocks == ["features.0", *stages, "head"]


@pytest.mark.parametrize("model, blocks", [("resnet152", 52), ("resnext101_32x8d", 35), ("efficientnet_b7", 57)])
def test_a_deep_model_has_a_block_for_each_residual_one_and_two_more(model, blocks):
    """3 + 8 + 36 + 3 and 3 + 4 + 23 + 3; EfficientNet 4 + 7 + 7 + 10 + 10 + 13 + 4."""
    assert len(recorded(model).blocks) == blocks


@pytest.mark.parametrize("model", MODELS)
def test_everything_but_images_and_loss_is_in_a_block(model):
    graph = recorded(model, "training", batch_size=4, recipe=Recipe(mixup_alpha=0.2), normalization_location="device")

    assert {node.op for node in graph.nodes if not node.block} == {"input", "normalise", "blend", "cross_entropy"}


@pytest.mark.parametrize("model", MODELS)
def test_a_weight_has_a_name_of_its_own(model):
    names = [weight.name for weight in recorded(model).weights]

    assert len(set(names)) == len(names)


@pytest.mark.parametrize("model", MODELS)
def test_costs_grow_with_the_batch_and_weights_do_not(model):
    one, many = recorded(model), recorded(model, batch_size=7)

    assert many.flops == 7 * one.flops
    assert many.parameters == one.parameters


@pytest.mark.parametrize("model", ["resnet8", "mobilenet_v3_small", "efficientnet_b0"])
def test_dropout_is_in_training_alone(model):
    def drops(mode):
        return [node for node in recorded(model, mode).nodes if node.op == "dropout"]

    assert drops("inference") == drops("eval") == []
    assert bool(drops("training")) == (model != "resnet8")


def test_efficientnet_drops_more_of_its_later_branches():
    """Block i of 16 loses 0.2 i / 16 of its rows where it has a branch to lose; the head drops a fifth."""
    found = [node for node in recorded("efficientnet_b0", "training").nodes if node.op == "dropout"]

    assert [node.attrs["rate"] for node in found[:-1]] == pytest.approx(
        [0.2 * index / 16 for index in (2, 4, 6, 7, 9, 10, 12, 13, 14)]
    )
    assert {node.attrs["rows"] for node in found[:-1]} == {True}
    assert (found[-1].attrs, found[-1].block) == ({"rate": 0.2, "rows": False}, "head")


def test_what_is_dropped_is_an_input_where_it_is_checked():
    graph = workloads.record(
        workloads.load("efficientnet_b0"), sized("efficientnet_b0"), 4, "training", random_as_inputs=True
    )

    kept = [node for node in graph.inputs.values() if node.attrs["values"] == "kept"]
    assert [node.shape for node in kept] == 9 * [(4, 1, 1, 1)] + [(4, 1280)]
    assert [node for node in graph.nodes if node.op == "dropout"] == []


def test_norms_take_the_batch_s_statistics_in_training_alone():
    for mode, expected in (("inference", False), ("eval", False), ("training", True)):
        graph = recorded("resnet8", mode, batch_size=2)
        assert {n.attrs["training"] for n in graph.nodes if n.op == "batch_norm"} == {expected}


@pytest.mark.parametrize("model", MODELS)
def test_a_training_step_is_checked_at_a_size_that_its_reference_can_afford(model):
    full = sized(model)
    module = workloads.load(model)

    assert module.checked(full, 16, "inference") == (full, 16)
    assert module.checked(full, 16, "training") == ({**full, "image_size": min(full["image_size"], 64)}, 4)
    assert module.checked(full, 2, "eval")[1] == 2

"""Names of image networks' sizes: one network has one name, and what is impossible is refused by its numbers."""

from __future__ import annotations

import itertools

import pytest

from bench import workloads
from bench.cases import dimension
from bench.selection import Selection, require_possible
from bench.workloads import network

MODELS = sorted(network.models())
# Every choice of every dimension of a network, with a number of groups that is not the model's own; but that host and
# none differ only where images are real.
CHOICES = {
    "norm_type": ("batch", "group", "none"),
    "norm_num_groups": (8, 4),
    "enable_fast_groupnorm": ("off", "on"),
    "norm_eps": ("family", "1e-5", "1e-3"),
    "padding_rule": ("symmetric", "same"),
    "input_image_padding": ("off", "on"),
    "eight_bit_io": ("off", "on"),
    "normalization_location": ("host", "device"),
}


def selected(*models, **options):
    """The cases that a selection makes."""
    return list(Selection(models, **options).cases())


def named(model, **changed):
    """The names that a model's first size has with some dimensions changed."""
    return [case.size for case in selected(model, dimensions={key: [value] for key, value in changed.items()})]


@pytest.mark.parametrize(
    "model, names",
    [
        ("resnet8", ["i32"]),
        ("resnext29_32x4d", ["i32"]),
        ("resnet50", ["i224"]),
        ("mobilenet_v3_small", ["i224"]),
        ("efficientnet_b0", ["i224"]),
        # The later programs ran each at its own size, the earlier ones all at 224.
        ("efficientnet_b1", ["i240", "i224"]),
        ("efficientnet_b4", ["i380", "i224"]),
        ("efficientnet_b7", ["i600", "i224"]),
    ],
)
def test_the_sizes_of_a_model_are_its_images(model, names):
    assert [case.size for case in selected(model, sizes=["all"])] == names


@pytest.mark.parametrize("model", MODELS)
def test_a_model_has_a_thousand_classes_or_cifar_s_ten(model):
    size = selected(model)[0].dimensions

    assert size["classes"] == (10 if size["image_size"] == 32 else 1000)


@pytest.mark.parametrize(
    "model, changed, name",
    [
        ("efficientnet_b0", {"group_dim": 16, "expand_ratio": 4, "norm_type": "group"}, "i224_g16_e4_group"),
        ("efficientnet_b0", {"group_dim": 1, "expand_ratio": 6}, "i224"),
        ("resnet50", {"norm_type": "group"}, "i224_group"),
        ("resnet50", {"norm_type": "group", "norm_num_groups": 32}, "i224_group"),
        ("resnet50", {"norm_type": "group", "norm_num_groups": 16}, "i224_group_n16"),
        ("resnet8", {"norm_type": "group", "norm_num_groups": 8}, "i32_group"),
        ("resnet8", {"norm_type": "group", "norm_num_groups": 8, "enable_fast_groupnorm": "on"}, "i32_group_fast"),
        ("resnet50", {"norm_type": "none", "padding_rule": "same"}, "i224_none_same"),
        ("resnet50", {"norm_eps": "1e-3", "classes": 100}, "i224_eps1em3_c100"),
        ("resnet50", {"input_image_padding": "on", "eight_bit_io": "on"}, "i224_pad4_uint8"),
        ("resnet50", {"normalization_location": "device"}, "i224_atdevice"),
        ("resnet50", {"image_size": 64, "classes": 1000}, "i64"),
    ],
)
def test_a_name_tells_what_differs_from_the_model_in_the_order_of_the_dimensions(model, changed, name):
    assert named(model, **changed) == [name]


@pytest.mark.parametrize(
    "model, changed, name",
    [
        # Groups, and which channels are in one, say nothing about a network without group norms.
        ("resnet50", {"norm_num_groups": 8, "enable_fast_groupnorm": "on"}, "i224"),
        ("resnet50", {"norm_type": "none", "norm_num_groups": 8, "norm_eps": "1e-3"}, "i224_none"),
        # The eps of a family, given as a number.
        ("resnet50", {"norm_eps": "1e-5"}, "i224"),
        ("efficientnet_b0", {"norm_eps": "1e-3"}, "i224"),
        ("mobilenet_v2", {"norm_eps": "1e-5"}, "i224"),
        ("mobilenet_v3_small", {"norm_eps": "1e-3"}, "i224"),
        # Bytes become numbers where they arrive.
        ("resnet50", {"eight_bit_io": "on", "normalization_location": "device"}, "i224_uint8"),
        ("resnet50", {"eight_bit_io": "on", "normalization_location": "none"}, "i224_uint8"),
    ],
)
def test_one_network_has_one_name(model, changed, name):
    assert named(model, **changed) == [name]


def test_names_and_networks_are_one_to_one():
    """All 576 combinations of the choices: as many fingerprints as names, and as pairs of both."""
    module = workloads.load("resnet8")
    first = next(iter(workloads.named_sizes(module).values()))
    pairs = set()
    for values in itertools.product(*CHOICES.values()):
        changed = {**first, "image_size": 9, **dict(zip(CHOICES, values))}
        settled = module.canonical({key: changed[key] for key in module.dimensions})
        graph = workloads.record(module, settled, 1, "inference")
        pairs.add((dimension.name(module.dimensions, settled), graph.fingerprint))

    # Batch, none, or four group norms; two eps for a norm; two paddings, two depths, bytes or one of two places.
    assert len(pairs) == (2 * (1 + 4) + 1) * 2 * 2 * 3
    assert len({name for name, _ in pairs}) == len({fingerprint for _, fingerprint in pairs}) == len(pairs)


def test_a_case_that_another_names_as_well_is_run_once():
    found = selected("resnet8", dimensions={"norm_num_groups": [4, 8], "norm_type": ["batch", "group"]})

    assert [case.size for case in found] == ["i32", "i32_group_n4", "i32_group"]


def test_half_resolution_is_told_by_the_image():
    found = selected("resnet50", "efficientnet_b4", modes=["training"], half_resolution=True)

    assert [(case.workload, case.size) for case in found] == [("resnet50", "i160"), ("efficientnet_b4", "i252")]
    assert [case.dimensions["image_size"] for case in found] == [160, 252]


def test_an_image_that_is_set_is_not_halved():
    found = selected("resnet50", modes=["training"], half_resolution=True, dimensions={"image_size": [128]})

    assert [case.size for case in found] == ["i128"]


@pytest.mark.parametrize("model, pixels", [("resnet8", 32), ("efficientnet_b1", 240), ("efficientnet_b7", 600)])
def test_half_of_a_size_that_was_never_halved_is_refused(model, pixels):
    with pytest.raises(ValueError, match=f"{model}: .*224 and 380 pixels, not {pixels}"):
        selected(model, modes=["training"], half_resolution=True)


@pytest.mark.parametrize(
    "model, changed, text",
    [
        ("resnet50", {"norm_type": "group", "norm_num_groups": 24}, "resnet50: norm_num_groups=24 .* 64 is one"),
        ("resnet8", {"norm_type": "group", "norm_num_groups": 32}, "resnet8: norm_num_groups=32 .* 16 is one"),
        ("mobilenet_v2", {"norm_type": "group", "norm_num_groups": 16}, "norm_num_groups=16 .* 24 is one"),
        ("efficientnet_b0", {"norm_type": "group", "norm_num_groups": 5}, "norm_num_groups=5 .* 32 is one"),
    ],
)
def test_groups_that_do_not_divide_every_norm_are_refused(model, changed, text):
    (case,) = selected(model, dimensions={key: [value] for key, value in changed.items()})

    with pytest.raises(ValueError, match=text):
        require_possible(case)


@pytest.mark.parametrize("model", MODELS)
def test_groups_that_a_model_does_not_have_are_not_asked_about(model):
    (case,) = selected(model, dimensions={"norm_num_groups": [7]})

    require_possible(case)


@pytest.mark.parametrize("model", MODELS)
def test_every_model_takes_group_norms_of_its_own_number(model):
    (case,) = selected(model, dimensions={"norm_type": ["group"]})

    require_possible(case)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("rule", ["symmetric", "same"])
def test_an_image_of_one_pixel_is_padded_to_what_a_network_needs(model, rule):
    (case,) = selected(model, dimensions={"image_size": [1], "padding_rule": [rule]})

    require_possible(case)


@pytest.mark.parametrize(
    "model, key, text, message",
    [
        ("resnet50", "image_size", "0", "0 is not within 1 to 4096"),
        ("resnet50", "image_size", "5000", "5000 is not within 1 to 4096"),
        ("resnet50", "norm_num_groups", "0", "0 is not within 1 to 4096"),
        ("resnet50", "classes", "0", "0 is not within 1 to 1000000"),
        ("efficientnet_b0", "expand_ratio", "65", "65 is not within 1 to 64"),
        ("resnet50", "norm_type", "layer", "'layer' is not one of batch, group, none"),
    ],
)
def test_a_value_that_no_network_takes_is_refused(model, key, text, message):
    with pytest.raises(ValueError, match=message):
        workloads.load(model).dimensions[key].parse(text)


@pytest.mark.parametrize(
    "key, text, value",
    [("norm_type", "bn", "batch"), ("norm_type", "gn", "group"), ("normalization_location", "ipu", "device")],
)
def test_the_programs_own_words_are_taken(key, text, value):
    assert workloads.load("resnet50").dimensions[key].parse(text) == value


@pytest.mark.parametrize("model", [model for model in MODELS if not model.startswith("efficientnet")])
def test_group_dim_is_efficientnet_s_alone(model):
    assert {"group_dim", "expand_ratio"} & set(workloads.load(model).dimensions) == set()

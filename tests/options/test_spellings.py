"""Other names for options and values: what a user of the programs that the suite re-creates would type."""

from __future__ import annotations

import pytest

from bench import workloads
from fixtures import options
from fixtures.options import table

NETWORK = ["--model", "resnet8"]
TRAINING = [*NETWORK, "--mode", "training"]


def parsed(*args):
    """Everything that the options came to, as plain values."""
    found = options.parse(args)
    return {**vars(found), "settings": found.settings(True).plain(), "preset": None}


@pytest.mark.parametrize("flag", ["--eight-bit-io", "--enable-fast-groupnorm", "--input-image-padding"])
def test_a_flag_stands_alone_and_is_off_without_it(flag):
    name = flag[2:].replace("-", "_")

    assert options.parse([*NETWORK, flag]).dimensions == {name: ["on"]}
    assert options.parse(NETWORK).dimensions == {}


def test_every_flag_of_a_network_is_tried():
    flags = {name for name, each in workloads.dimensions(workloads.names()).items() if each.flag}

    assert flags == {"eight_bit_io", "enable_fast_groupnorm", "input_image_padding"}


VALUES = {
    "optimiser": "adam",
    "optimiser_epsilon": "0.25",
    "gradient_accumulation": "3",
    "learning_rate": "0.25",
    "base_learning_rate_exponent": "-8.5",
}


@pytest.mark.parametrize(
    "name, spelling",
    [
        (one.name, spelling)
        for one in table.GROUPS[table.TRAINING]
        for spelling in one.spellings
        if one.name != "epochs"
    ],
)
def test_another_spelling_of_a_recipe_sets_the_same_field(name, spelling):
    ours = parsed(*TRAINING, f"--{name.replace('_', '-')}", VALUES[name])

    assert parsed(*TRAINING, spelling, VALUES[name]) == ours
    assert str(ours["recipe"].__dict__[name]) == VALUES[name]


def test_two_spellings_of_one_option_are_one_option_and_the_last_counts():
    assert options.parse([*TRAINING, "--optimiser", "adam", "--optimizer", "lars"]).recipe.optimiser == "lars"


@pytest.mark.parametrize(
    "family, size, model",
    [
        ("resnet", "50", "resnet50"),
        ("resnet", "8", "resnet8"),
        ("resnext", "101", "resnext101_32x4d"),
        ("efficientnet", "4", "efficientnet_b4"),
        ("efficientnet", "b4", "efficientnet_b4"),
        ("efficientnet", "B4", "efficientnet_b4"),
    ],
)
def test_a_family_and_a_size_are_a_model(family, size, model):
    assert options.parse(["--model", family, "--model-size", size]).models == [model]


@pytest.mark.parametrize("name", workloads.names("cnns"))
def test_a_model_may_be_spelt_with_hyphens(name):
    assert options.parse(["--model", name.replace("_", "-")]).models == [name]


def test_no_model_is_every_workload_and_a_model_is_that_alone():
    assert list(options.parse([]).selection().workloads) == list(workloads.names())
    assert list(options.parse(["--model", "resnet8,resnet20"]).selection().workloads) == ["resnet8", "resnet20"]


def test_what_is_not_given_is_the_plain_recipe():
    found = options.parse(TRAINING)

    assert found.recipe.non_defaults == ""
    assert found.settings(True).protocol == "median"
    assert (found.min_latency, found.half_partial, found.half_res_training) == (False, False, False)


def test_numbers_are_read_as_numbers():
    found = options.parse(
        [*TRAINING, "--lr-schedule", "stepped", "--lr-epoch-decay", "30,60,80", "--warmup-epochs", "5.5"]
    )

    assert found.recipe.lr_epoch_decay == (30.0, 60.0, 80.0)
    assert found.recipe.warmup_epochs == 5.5

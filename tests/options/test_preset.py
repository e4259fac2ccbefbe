"""Presets: what is there, what is refused, and what wins over what."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any, Callable, Dict, Sequence

import pytest
from collecting import Collected, collect
from suite import Suite

from fixtures import options
from fixtures.options import presets as preset
from fixtures.options.table import OPTIONS

SOURCE = {"name": "Here 1", "repository": "a/b", "release": "1", "file": "c.yml", "date": "2021-01-01", "note": ""}
PRECEDENCE = {
    "default": ("--model", "resnet50"),
    "preset": ("--config", "resnet50-mk2"),
    "command line": ("--config", "resnet50-mk2", "--batch-size", "4", "--precision", "fp32"),
}


def one(name: str) -> Sequence[str]:
    return ("--config", name)


def write(folder: Any, name: str = "mine", file: str = "mine.json", **changes: Any) -> Any:
    """A file of one preset, which `changes` makes different."""
    entry: Dict[str, Any] = {"options": {"model": "resnet18"}, "ipu": {}, "ignored": {}, "note": "", **changes}
    path = folder / file
    path.write_text(json.dumps({"source": SOURCE, "presets": {name: entry}}))
    return path


@pytest.fixture(scope="module")
def collected(new_suite: Callable[[], Suite]) -> Dict[Sequence[str], Collected]:
    """What every preset selects, and the lines of PRECEDENCE."""
    return collect(new_suite(), [*map(one, preset.names()), *PRECEDENCE.values()])


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder in the place of the presets."""
    monkeypatch.setattr(preset, "FOLDER", tmp_path)
    preset._all.cache_clear()
    yield tmp_path
    preset._all.cache_clear()


def test_every_preset_of_the_three_releases_is_here():
    presets = [preset.load(name) for name in preset.names()]

    assert Counter((each.source, each.options["mode"]) for each in presets) == {
        ("PyTorch 2.4", "inference"): 9,
        ("PyTorch 2.4", "training"): 11,
        ("TensorFlow 2.0", "training"): 13,
    }


@pytest.mark.parametrize("name", preset.names())
def test_a_preset_selects_one_case_as_it_says(name, collected):
    said = preset.load(name).options

    done = collected[one(name)]

    assert done.returncode == 0, done.text
    (selected,) = done.prefixes
    assert selected.startswith(f"{said['model']}-i")
    assert selected.endswith(f"-{said['mode']}-b{said['batch_size']}-{said['precision']}-x{said['replicas']}")


@pytest.mark.parametrize("name", preset.names())
def test_a_preset_reaches_the_options(name):
    found = options.parse(list(one(name)))

    said = preset.load(name)
    assert found.ipu == said.ipu
    assert found.recipe.gradient_accumulation == int(said.options.get("gradient_accumulation", 1))
    assert list(found.pipeline_splits) == [
        split for split in str(said.options.get("pipeline_splits", "")).split(",") if split
    ]


@pytest.mark.parametrize("name", preset.names())
def test_every_setting_of_a_preset_is_text_a_user_could_type(name):
    said = preset.load(name)

    assert all(value is True or (isinstance(value, str) and value) for value in said.options.values())
    assert all(said.ignored.values())
    assert said.note


@pytest.mark.parametrize(
    "given, expected",
    [
        ("default", "resnet50-i224-inference-b1-fp32-x1"),
        ("preset", "resnet50-i224_uint8-inference-b90-fp16-x1"),
        ("command line", "resnet50-i224_uint8-inference-b4-fp32-x1"),
    ],
)
def test_the_command_line_wins_over_the_preset_and_that_over_the_default(given, expected, collected):
    assert collected[PRECEDENCE[given]].prefixes == [expected]


@pytest.mark.parametrize(
    "name, accumulation", [("mk2_efficientnet_b4_g1_16ipus", 64), ("mk2_efficientnet_b4_g16_16ipus", 40)]
)
def test_a_preset_means_what_it_meant_to(name, accumulation):
    """Their key was misspelt, so that their program accumulated nothing."""
    found = preset.load(name)

    assert found.options["gradient_accumulation"] == str(accumulation)
    assert "passed over" in found.note


EXPONENTIAL = {
    "TensorFlow 2.0": {"lr_drops": "146", "lr_epoch_decay": None},
    "PyTorch 2.4": {"lr_drops": None, "lr_epoch_decay": "2.358"},
}


@pytest.mark.parametrize(
    "name", [n for n in preset.names() if preset.load(n).options.get("lr_schedule") == "exponential"]
)
def test_an_exponential_schedule_drops_as_often_as_in_its_program(name):
    """TensorFlow's: 146 times a run. PyTorch's: 0.424 times an epoch, every 2.358 epochs."""
    said = preset.load(name)

    assert said.options["lr_decay"] == "0.97"
    assert {key: said.options.get(key) for key in ("lr_drops", "lr_epoch_decay")} == EXPONENTIAL[said.source]


@pytest.mark.parametrize(
    "given, schedule",
    [
        (("--epochs", "2"), ("exponential", 146, ())),
        (("--lr-drops", "8"), ("exponential", 8, ())),
        (("--lr-epoch-decay", "2.4"), ("exponential", 0, (2.4,))),
        (("--lr-schedule", "cosine"), ("cosine", 0, ())),
    ],
)
def test_the_command_line_has_another_schedule_than_the_preset(given, schedule):
    recipe = options.parse(["--config", "mk2_efficientnet_b4_g1_16ipus", *given]).recipe

    assert (recipe.lr_schedule, recipe.lr_drops, recipe.lr_epoch_decay) == schedule


@pytest.mark.parametrize("name", [name for name in preset.names() if preset.load(name).source == "TensorFlow 2.0"])
def test_a_preset_of_tensorflow_has_what_its_program_told_an_ipu_by_default(name):
    found = options.parse(["--config", name, "--device", "ipu"]).poplar

    assert found.stochastic_rounding is True
    assert found.max_cross_replica_buffer_size == (100_000_000 if name == "mk1_resnet50_16ipus" else 10 * 2**20)


@pytest.mark.parametrize("name", [name for name in preset.names() if preset.load(name).source == "TensorFlow 2.0"])
def test_a_preset_of_tensorflow_pads_and_normalises_as_its_program_did(name):
    case = next(options.parse(["--config", name]).selection().cases())

    assert case.dimensions["padding_rule"] == "same"
    # Bytes are always normalised on the device.
    assert case.dimensions["eight_bit_io"] == "on" or case.dimensions["normalization_location"] == "device"


def test_the_command_line_switches_off_what_a_preset_tells_an_ipu():
    line = ["--config", "mk2_resnet50_bn_16ipus", "--device", "ipu", "--no-stochastic-rounding"]

    assert options.parse(line).poplar.stochastic_rounding is False


def test_an_unknown_preset_names_the_nearest_and_the_choices():
    with pytest.raises(
        ValueError, match=r"^--config: 'resnet50-mk3' \(did you mean resnet50-mk2\?\) is not one of common, "
    ):
        preset.load("resnet50-mk3")


def test_an_unknown_preset_is_one_line(suite):
    done = suite.run("--config", "resnet50-mk3", "--collect-only", "-q")

    assert done.returncode == 4, done.text
    assert len(done.errors) == 1
    assert "did you mean resnet50-mk2?" in done.errors[0]


def test_an_option_that_does_not_exist_is_refused(folder):
    write(folder, options={"gradient_acumulation": "40"})

    with pytest.raises(ValueError, match=r"mine\.json, preset mine: option 'gradient_acumulation' ") as refusal:
        preset.names()

    assert "(did you mean gradient_accumulation?) is not one of mode, precision, " in str(refusal.value)


@pytest.mark.parametrize("key", ["option", "Note"])
def test_a_key_that_does_not_exist_is_refused(folder, key):
    write(folder, **{key: {}})

    with pytest.raises(ValueError, match=rf"mine\.json, preset mine: key '{key}'"):
        preset.names()


def test_a_name_in_two_files_is_refused(folder):
    write(folder)
    write(folder, file="other.json")

    with pytest.raises(ValueError, match=r"other\.json: preset mine is a/b, 1, c\.yml, 2021-01-01 as well"):
        preset.names()


def test_a_file_in_the_folder_is_a_preset(folder):
    write(folder, ipu={"io": 64}, ignored={"seed": "fixed"}, note="quick")

    assert preset.load("mine") == preset.Preset(
        "mine", "Here 1", "a/b, 1, c.yml, 2021-01-01", {"model": "resnet18"}, {"io": 64}, {"seed": "fixed"}, "quick"
    )


def test_what_a_preset_may_set_is_an_option(suite):
    known = suite.run("--help").stdout

    missing = [name for name, option in OPTIONS.items() if option.preset and f"--{name.replace('_', '-')}" not in known]
    assert missing == []


def test_the_table_has_every_preset_in_100_columns():
    lines = preset.table().splitlines()

    assert max(map(len, lines)) <= 100
    assert lines[0].split() == ["name", "source", "model", "mode", "batch", "precision"]
    assert [line.split()[0] for line in lines[2:] if not line.startswith(" ")] == list(preset.names())


def test_the_table_is_what_config_list_prints(suite):
    done = suite.run("--config", "list")

    assert done.returncode == 0, done.text
    assert preset.table() in done.stdout

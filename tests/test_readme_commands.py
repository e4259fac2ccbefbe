"""Every command of the five READMEs: what our lines for it select and set, and that the page says so."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path
from typing import Any, Callable, Dict, List, Sequence

import pytest
from collecting import Collected, collect
from suite import Suite

from bench import preset
from fixtures import options
from scripts import readme_commands

README = readme_commands.load()["readmes"]
LINES = list(readme_commands.lines(readme_commands.load()))
TRAIN_IMAGES = 1281167
PER_README = {"000": 1, "001": 2, "002": 14, "003": 7, "004": 5}

# How a setting is read from the options; any other is one of the recipe.
SETTINGS: Dict[str, Callable[[Any], Any]] = {
    "global_batch": lambda found: [found.global_batch(size) for size in found.batch_sizes],
    "ipus": lambda found: found.ipus,
    "ipus_per_replica": lambda found: found.ipus // found.axes["replicas"][0],
    "pipeline_splits": lambda found: list(found.pipeline_splits),
    "weight_updates": lambda found: TRAIN_IMAGES * found.recipe.epochs // found.global_batch(found.batch_sizes[0]),
    "data": lambda found: found.data,
    "steps": lambda found: found.steps,
    "batches_per_step": lambda found: found.batches_per_step,
}
# Spellings of the READMEs beside ours: both must mean the same.
SPELLINGS = (
    ("--model resnext --model-size 101", "--model resnext101_32x4d"),
    ("--model efficientnet --model-size 4", "--model efficientnet_b4"),
    ("--model resnet --model-size 50", "--model resnet50"),
    ("--model resnext101", "--model resnext101_32x8d"),
    ("--model resnext50", "--model resnext50_32x4d"),
    ("--model mobilenet", "--model mobilenet_v2"),
    ("--model efficientnet-b0", "--model efficientnet_b0"),
    ("--gradient-accumulation-count 4", "--gradient-accumulation 4"),
    ("--epoch 2 --steps 3", "--epochs 2 --iterations 3"),
    ("--pipeline-split b3/3/relu", "--pipeline-splits b3/3/relu"),
    ("--xla-recompute", "--recompute auto"),
    ("--enable-half-partials", "--half-partial"),
    ("--batch-norm", "--norm-type batch"),
    ("--groups 4", "--norm-num-groups 4"),
    ("--groupnorm-group-num 4", "--norm-num-groups 4"),
    ("--normlayer group", "--norm-type group"),
    ("--synthetic-data", "--data synthetic"),
    ("--generated-data", "--data generated"),
    ("--device-iteration 7", "--batches-per-step 7"),
    ("--device-iterations 7", "--batches-per-step 7"),
    ("--iterations 20", "--steps 20"),
    ("--precision half", "--precision fp16"),
    ("--precision full", "--precision fp32"),
    ("--precision 16.32", "--precision fp16m"),
    ("--normalization-location ipu", "--normalization-location device"),
    ("--efficientnet-group-dim 16", "--group-dim 16"),
    ("--efficientnet-expand-ratio 4", "--expand-ratio 4"),
    ("--optimizer sgd", "--optimiser sgd"),
)


def words(line: str) -> List[str]:
    """The arguments behind `pytest bench`."""
    found = shlex.split(os.path.expandvars(line))
    assert found[:2] == ["pytest", "bench"]
    return found[2:]


def flags(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])-{1,2}[a-zA-Z][\w-]*", text))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the lines find data: $DATASETS_DIR, and a folder named images."""
    place = tmp_path_factory.mktemp("data")
    (place / "images").mkdir()
    return place


@pytest.fixture(autouse=True)
def _beside_the_data(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATASETS_DIR", str(folders))
    monkeypatch.chdir(folders)


@pytest.fixture(scope="module")
def collected(new_suite: Callable[[], Suite], folders: Path) -> Dict[Sequence[str], Collected]:
    """What every line selects."""
    suite = new_suite()
    (suite.root / "images").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATASETS_DIR", str(folders))
        return collect(suite, [words(line.line) for line in LINES])


def test_no_command_is_left_out():
    assert {readme["id"]: len(readme["commands"]) for readme in README} == PER_README


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.where)
def test_a_line_selects_what_the_readme_runs(line, collected):
    done = collected[tuple(words(line.line))]

    assert done.returncode == 0, done.text
    assert done.prefixes == readme_commands.prefixes(line.expect)


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.where)
def test_a_line_sets_what_the_readme_set(line):
    args = words(line.line)
    if "-k" in args:
        del args[args.index("-k") : args.index("-k") + 2]

    found = options.parse(args)

    got = {
        key: SETTINGS.get(key, lambda it, key=key: getattr(it.recipe, key))(found) for key in line.expect["settings"]
    }
    assert got == line.expect["settings"]
    for axis in ("mode", "precision", "replicas"):
        assert found.axes[axis] == [line.expect[axis]]


@pytest.mark.parametrize("theirs, ours", SPELLINGS)
def test_a_spelling_of_the_readmes_means_ours(theirs, ours):
    training = ["--mode", "training"]

    assert vars(options.parse(training + theirs.split())) == vars(options.parse(training + ours.split()))


@pytest.mark.parametrize("readme", README, ids=lambda readme: readme["id"])
def test_the_table_has_every_option_of_the_commands(readme):
    explained = flags(" ".join(theirs for theirs, _, _ in readme["options"]))
    # The folder of a program is no option, and poprun hands -x and what it quotes on to MPI.
    used = flags(re.sub(r'"[^"]*"', "", " ".join(command["original"] for command in readme["commands"])))

    assert used - explained == set()


def test_every_option_that_the_page_names_as_ours_is_one(suite):
    known = flags(suite.run("--help").stdout)
    named = [line.line for line in LINES]
    named += [ours for readme in README for _, ours, _ in readme["options"]]

    assert flags(" ".join(named)) - known == set()


def test_a_preset_that_a_line_names_exists():
    named = {name for line in LINES for name in re.findall(r"--config (\S+)", line.line)}

    assert named
    assert named <= set(preset.names())


def test_the_wrong_lines_stand_there_twice():
    """The README's lines for group dim 1 are those for group dim 16: ours give them as written and as intended."""
    wrong = [
        command
        for readme in README
        for command in readme["commands"]
        if len(command["lines"]) == 2 and "/" in command["where"]
    ]

    names = [[readme_commands.prefixes(pair["ours"]["expect"])[0] for pair in command["lines"]] for command in wrong]
    assert names == [
        [
            f"efficientnet_b4-i380_g16_e4_group-training-b5-fp16m-x{n}",
            f"efficientnet_b4-i380_group-training-b3-fp16m-x{n}",
        ]
        for n in (1, 4)
    ]


@pytest.mark.parametrize(
    "facts, name",
    [
        ("h128_t5", "h128_t5"),
        ({"image_size": 224}, "i224"),
        ({"image_size": 380, "group_dim": 16, "expand_ratio": 4, "norm_type": "group"}, "i380_g16_e4_group"),
        (
            {"image_size": 224, "norm_type": "group", "norm_num_groups": 8, "enable_fast_groupnorm": True},
            "i224_group_n8_fast",
        ),
        (
            {"image_size": 224, "norm_type": "none", "input_image_padding": True, "eight_bit_io": True},
            "i224_none_pad4_uint8",
        ),
        (
            {"image_size": 32, "padding_rule": "same", "normalization_location": "device", "classes": 9},
            "i32_same_atdevice_c9",
        ),
    ],
)
def test_the_name_of_a_size_is_made_of_its_facts(facts, name):
    assert readme_commands.size_name(facts) == name


def test_a_long_line_is_broken_in_front_of_options_only():
    line = 'python train.py --model "a b" ' + "--flag value " * 20

    rows = readme_commands.folded(line).split(" \\\n")

    assert all(len(row) <= readme_commands.WIDTH for row in rows)
    assert all(row.startswith("    --flag value") for row in rows[1:])
    assert shlex.split(" ".join(rows)) == shlex.split(line)


def test_the_page_is_up_to_date(capsys):
    assert readme_commands.main(["--check"]) == 0, capsys.readouterr().out


def test_a_stale_page_is_one_line_and_exit_code_1(tmp_path, monkeypatch, capsys):
    page = readme_commands.ROOT / "docs" / "stale.md"
    monkeypatch.setattr(readme_commands, "PAGE", page)

    assert readme_commands.main(["--check"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "docs/stale.md is out of date: run python scripts/readme_commands.py"
    ]

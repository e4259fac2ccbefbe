"""Every command of the five READMEs: what our lines for it select, and that the page says so.

What the lines set is held against the original programs in tests/options/test_original_settings.py.
"""

from __future__ import annotations

import importlib
import os
import re
import shlex
import types
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import original_settings
import pytest
from collecting import Collected, collect
from suite import Suite

from bench.cases import ipu_rules
from bench.cases.errors import Unavailable
from fixtures import options
from fixtures.options import presets
from scripts import readme_commands

README = readme_commands.load()["readmes"]
LINES = list(readme_commands.lines(readme_commands.load()))
PER_README = {"000": 1, "001": 2, "002": 14, "003": 7, "004": 5}
TRAIN_IMAGES = 1281167

MODELS = ("resnet50", "efficientnet_b0", "efficientnet_b4", "resnext101_32x8d")
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
# The command of theirs behind each of our lines; those for the least latency are the four in front of them.
ORIGINALS = {line.command: line.original for line in LINES}
ORIGINALS.update({f"004/5 {name}": ORIGINALS[f"004/{number}"] for number, name in enumerate(MODELS, 1)})
IPU_BACKENDS = ("poptorch", "popart", "tensorflow_ipu")
REQUIRE = {
    "poptorch": "bench.backends.poptorch.options",
    "popart": "bench.backends.popart.options",
    "tensorflow_ipu": "bench.backends.tensorflow_ipu.config",
}
# By command: the other frameworks that can, with what to leave out, and those that cannot.
OTHERS: Dict[str, Tuple[Dict[str, str], Dict[str, str]]] = {
    " ".join(part for part in (f"{readme['id']}/{number}", pair["what"]) if part): (
        pair["ipu"]["others"],
        pair["ipu"].get("never", {}),
    )
    for readme in README
    for number, command in enumerate(readme["commands"], 1)
    for pair in command["lines"]
}


def words(line: str) -> List[str]:
    """The arguments behind `pytest bench`, whatever starts it."""
    found = shlex.split(os.path.expandvars(line))
    assert found.count("bench") == 1
    return found[found.index("bench") + 1 :]


def without_k(args: List[str]) -> List[str]:
    at = args.index("-k") if "-k" in args else len(args)
    return args[:at] + args[at + 2 :]


def name(line: readme_commands.Line) -> str:
    return f"{line.command}-{line.side}"


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


@pytest.mark.parametrize("line", LINES, ids=name)
def test_a_line_selects_what_the_readme_runs(line, collected):
    done = collected[tuple(words(line.line))]

    assert done.returncode == 0, done.text
    if line.expect:
        assert done.prefixes == readme_commands.prefixes(line.expect)


@pytest.mark.parametrize("line", [line for line in LINES if line.side != "cpu" and line.expect], ids=name)
def test_what_the_page_says_of_a_line_is_so(line):
    found = options.parse(without_k(words(line.line)))

    assert found.ipus == line.expect.get("devices", 1)
    if line.expect["mode"] == "training":
        assert found.global_batch(found.batch_sizes[0]) == line.expect["global_batch"]
        assert line.expect["weight_updates"] == TRAIN_IMAGES * found.recipe.epochs // line.expect["global_batch"]


def test_every_command_with_lines_has_one_for_each_kind_of_device():
    sides: Dict[str, List[str]] = {}
    for line in LINES:
        sides.setdefault(line.command, []).append(line.side)

    profiling = sides.pop("001/2 lstm")
    assert profiling == ["ipu"]
    assert set(map(tuple, sides.values())) == {readme_commands.SIDES}


@pytest.mark.parametrize("line", [line for line in LINES if line.side == "ipu"], ids=name)
def test_a_line_for_an_ipu_starts_as_theirs_does(line):
    launcher = re.findall(r"^poprun .*?(?= python)", ORIGINALS[line.command])

    assert line.line.startswith(f"{launcher[0]} python -m pytest bench " if launcher else "pytest bench ")


@pytest.mark.parametrize("line", [line for line in LINES if line.side == "ipu"], ids=name)
def test_the_frameworks_that_run_a_line_on_an_ipu_are_those_that_the_page_names(line):
    args = without_k(words(line.line))
    named = args[args.index("--backend") + 1]
    others, never = OTHERS[line.command]

    assert sorted([named, *others, *never]) == sorted(IPU_BACKENDS)
    assert refusal(line, named) is None
    for other, without in others.items():
        assert refusal(line, other, without) is None
        assert (refusal(line, other) is None) == (without == "")
    for other in never:
        assert "not supported" in str(refusal(line, other))


def refusal(line: readme_commands.Line, backend: str, without: str = "") -> Optional[str]:
    """Why a framework for IPUs cannot do what a line asks, if so; with some of its options left out."""
    args = words(line.line.replace(f" {without}", "") if without else line.line)
    args[args.index("--backend") + 1] = backend
    found = options.parse(without_k(args))
    case = original_settings.case_of(found, line.command, line.line)
    settings = found.settings(timed=True)
    require: Any = importlib.import_module(REQUIRE[backend]).require
    graph = types.SimpleNamespace(nodes=[], blocks=["some"])
    try:
        ipu_rules.require(case, settings)
        require(*((case, settings) if backend == "poptorch" else (graph, case, settings)))
    except Unavailable as reason:
        return str(reason)
    return None


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
    named = [word for line in LINES for word in words(line.line)]
    named += [ours for readme in README for _, ours, _ in readme["options"]]

    assert flags(" ".join(named)) - known == set()


def test_a_preset_that_a_line_names_exists():
    named = {name for line in LINES for name in re.findall(r"--config (\S+)", line.line)}

    assert named
    assert named <= set(presets.names())


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
            f"efficientnet_b4-i380_g16_e4_group_same_atdevice-training-b5-fp16m-x{n}",
            f"efficientnet_b4-i380_group_same_atdevice-training-b3-fp16m-x{n}",
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
        "docs/stale.md is out of date: run python -m scripts.readme_commands"
    ]

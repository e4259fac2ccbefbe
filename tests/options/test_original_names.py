"""Options by the names that the original programs had for them: taken, or answered with ours in one line."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Set

import original_settings
import pytest
from collecting import collect
from suite import Suite

from fixtures import options
from fixtures.options import original, table

# What a setting is called in docs/original_settings.json that is no option: it has blanks or dots, or follows.
NO_OPTIONS = {"bias"}
TAKEN = [
    ("--train", "--mode training"),
    ("--no-train", "--mode inference"),
    ("--mode infer", "--mode inference"),
    ("--mode train", "--mode training"),
    ("--mode infer,eval,train", "--mode inference,eval,training"),
    ("--popnn", "--rnn-impl fused"),
    ("--include-activation", "--activation relu"),
    ("--use-data", "--data generated"),
    ("--use-generated-data", "--data generated"),
    ("--group-norm", "--norm-type group"),
    ("--size 256", "--units 256"),
    ("--channel-size 8", "--filter-in 8"),
    ("--filter-number 16", "--filter-out 16"),
    ("--repeat 10", "--steps 10"),
    ("--dataloader-worker 2", "--data-workers 2"),
    ("--shards 1", ""),
    ("--shards=1", ""),
    (
        "--mode training --lr-schedule exponential --lr-decay-rate 0.5",
        "--mode training --lr-schedule exponential --lr-decay 0.5",
    ),
    (
        "--mode training --lr-schedule stepped --lr-epoch-decay 1 --learning-rate-decay 0.5",
        "--mode training --lr-schedule stepped --lr-epoch-decay 1 --lr-decay 0.5",
    ),
    ("--simulation --device ipu", "--ipu-model --device ipu"),
    ("--mode training --abs-learning-rate 0.5", "--mode training --learning-rate 0.5"),
]
ANSWERED = {
    "--save-graph": "--save-graph is --export-onnx DIR here",
    "--shards 4": "--shards: how a network is cut over IPUs is said by --pipeline-splits alone here; leave it out",
    "--pipeline": "--pipeline: how a network is cut over IPUs is said by --pipeline-splits alone here; leave it out",
    "--ckpts-per-epoch 0": "--ckpts-per-epoch: no checkpoints are written here; leave it out",
    "--pipeline-num-parallel 32": "--pipeline-num-parallel is --data-workers N here: processes that decode images",
    "--save-graph --gc-profile x": "--save-graph is --export-onnx DIR here; --gc-profile is --profile DIR here",
}


def plain(args: str) -> Dict[str, Any]:
    return vars(options.parse(args.split()))


def known() -> Set[str]:
    """Every spelling that the command line knows."""
    parser = table.parser()
    options.pytest_addoption(parser)
    return {name for group in parser._groups for option in group.options for name in option.names()}


@pytest.mark.parametrize("theirs, ours", TAKEN)
def test_a_name_that_means_one_thing_is_taken(theirs: str, ours: str) -> None:
    assert plain(theirs) == plain(ours)


@pytest.mark.parametrize("given", ANSWERED)
def test_a_name_that_has_another_here_is_answered_with_it(given: str) -> None:
    with pytest.raises(ValueError, match="here") as raised:
        options.parse(given.split())

    assert str(raised.value) == ANSWERED[given]


@pytest.mark.parametrize("name", original.ANSWERS)
def test_an_answer_is_one_line_that_starts_with_the_name(name: str) -> None:
    for args in ([name], [name, "1"], [f"{name}=1"]):
        with pytest.raises(ValueError, match=name) as raised:
            options.parse(args)

        text = str(raised.value)
        assert text.startswith((f"{name} is -", f"{name}: "))
        assert "\n" not in text


def test_an_answer_names_options_that_there_are() -> None:
    named = {
        word.rstrip(",;:")
        for text in original.ANSWERS.values()
        for word in text.split()
        if word.startswith("--") and not word.startswith("--benchmark")
    }

    assert named
    assert named - known() == set()


def test_every_option_of_the_original_programs_is_taken_or_answered() -> None:
    programs = original_settings.DATA["programs"].values()
    parts: List[Dict[str, Any]] = [program["defaults"] for program in programs]
    parts += [rule["then"] for program in programs for rule in program.get("by", [])]
    theirs = {name for part in parts for name in part if not set(name) & {" ", "."}} - NO_OPTIONS

    assert len(theirs) > 80
    assert {f"--{name}" for name in theirs} - known() == set()


def test_on_the_command_line_it_is_one_line_and_exit_code_4(new_suite: Callable[[], Suite]) -> None:
    lines = [("-k", "lstm", "--save-graph"), ("-k", "lstm", "--popnn", "--shards", "1")]

    done = collect(new_suite(), lines)

    assert done[lines[0]].returncode == 4
    assert done[lines[0]].text.split("\n\n")[0].strip() == "ERROR: --save-graph is --export-onnx DIR here"
    assert done[lines[1]].returncode == 0, done[lines[1]].text


def test_the_help_is_silent_on_them(suite: Suite) -> None:
    shown = suite.run("--help").stdout

    for name in (*original.SWITCHES, *original.NAMES, *original.ANSWERS, original.SHARDS):
        assert f"  {name} " not in shown
        assert f"  {name}\n" not in shown
    assert "names of the original programs" not in shown

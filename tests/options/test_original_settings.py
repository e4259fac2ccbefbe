"""Every setting of every command of the READMEs, as the original program had it, is what our line for it sets.

What has no equal here is named, with the reason, and stands on the page.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any, Dict, List

import original_settings
import pytest
from original_settings import DATA, EQUAL, Ours, effective, no_equal, same

from fixtures import options
from scripts import readme_commands

COMMANDS = {command["command"]: command for command in DATA["commands"]}
PAGE = readme_commands.load()
LINES = list(readme_commands.lines(PAGE))
ORIGINALS = {
    f"{readme['id']}/{number}": command["original"]
    for readme in PAGE["readmes"]
    for number, command in enumerate(readme["commands"], 1)
}


def settings_of(name: str) -> Dict[str, Any]:
    command = COMMANDS[name]
    return effective(command, ORIGINALS[command.get("line_of", name.split(" ")[0])])


def ours(line: readme_commands.Line) -> Ours:
    found = shlex.split(os.path.expandvars(line.line))
    args = found[found.index("bench") + 1 :]
    if "-k" in args:
        del args[args.index("-k") : args.index("-k") + 2]
    parsed = options.parse(args)
    return Ours(parsed, original_settings.case_of(parsed, line.command, line.line))


@pytest.fixture(autouse=True)
def _beside_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "images").mkdir()
    monkeypatch.setenv("DATASETS_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)


def test_every_command_with_lines_has_its_settings() -> None:
    assert set(COMMANDS) == {line.command for line in LINES}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_setting_has_an_equal_or_a_reason(name: str) -> None:
    program = COMMANDS[name]["program"]

    neither = [each for each in settings_of(name) if each not in EQUAL and not no_equal(each, program)]

    assert neither == []


def test_a_reason_is_given_for_what_has_no_equal_only() -> None:
    """But for a program that meant something else by a name."""
    everywhere = {each for entry in DATA["no_equal"] if "programs" not in entry for each in entry["options"]}

    assert everywhere & set(EQUAL) == set()


def test_what_has_no_equal_is_a_setting_of_some_command() -> None:
    used = {setting for name in COMMANDS for setting in settings_of(name)}
    named = {setting for entry in DATA["no_equal"] for setting in entry["options"]}

    assert named - used == set()


@pytest.mark.parametrize("line", LINES, ids=lambda line: f"{line.command}-{line.side}")
def test_a_line_sets_what_the_original_program_set(line: readme_commands.Line) -> None:
    program = COMMANDS[line.command]["program"]
    own = COMMANDS[line.command].get("ipu_only", [])
    left_out: List[str] = [] if line.side == "ipu" else DATA["ipu_only"] + own
    left_out = left_out + (DATA["scaled_on_a_cpu"] if line.side == "cpu" else [])

    found = ours(line)

    wanted = settings_of(line.command)
    compared = {name: value for name, value in wanted.items() if name not in left_out and not no_equal(name, program)}
    assert len(compared) >= {"ipu": 6, "ours": 5, "cpu": 2}[line.side]
    different = {name: value for name, value in compared.items() if not same(name, value, found)}
    assert {name: (value, EQUAL[name](found)) for name, value in different.items()} == {}


@pytest.mark.parametrize(
    "name, setting, value",
    [
        ("000/1 gru", "steps", "5"),
        ("000/1 dense", "batches-per-step", 5000),
        ("002/1", "weight-decay", 1e-4),
        ("002/1", "learning-rate-schedule", [0.3, 0.6, 0.8, 0.9]),
        ("002/2", "num-replicas", "4"),
        ("002/3", "base-learning-rate", "-11"),
        ("002/3", "epochs", "2"),
        ("002/5 as written", "label-smoothing", 0.1),
        ("002/5 as written", "pipeline-splits", ["block2c", "block4c", "block6a"]),
        ("002/5 as intended", "pipeline-splits", ["block2b", "block4b", "block6c"]),
        ("002/6 as written", "lr-drops", 146),
        ("003/2", "precision", "half"),
        ("004/1", "device-iterations", 128),
        ("004/4", "exchange-memory-target", "cycles"),
        ("004/5 resnet50", "exchange.enablePrefetch", "false"),
    ],
)
def test_what_a_command_sets_is_the_default_the_line_and_what_follows(name: str, setting: str, value: Any) -> None:
    assert settings_of(name)[setting] == value


@pytest.mark.parametrize(
    "name, setting", [("002/1", "rmsprop-epsilon"), ("002/1", "lr-drops"), ("002/1", "groups"), ("002/2", "replicas")]
)
def test_a_setting_that_means_nothing_to_a_command_is_none_of_its(name: str, setting: str) -> None:
    assert setting not in settings_of(name)


# The numbers that follow from others, worked out again: images of ImageNet, of a weight update, of a printed value.
@pytest.mark.parametrize("name", [name for name in COMMANDS if COMMANDS[name]["program"] == "train.py"])
def test_what_follows_from_a_training_command_is_worked_out_right(name: str) -> None:
    found = {key: original_settings.plain(value) for key, value in settings_of(name).items()}
    replicas = found.get("num-replicas", found.get("replicas"))
    batch = found["batch-size"] * found["gradient-accumulation-count"] * replicas

    assert found["updates of a call"] == (1281167 // batch) // found["logs-per-epoch"]
    if found["optimiser"] == "RMSprop":
        assert found["rmsprop-decay"] == 1 - 2.0 ** found["rmsprop-base-decay-exp"] * batch


@pytest.mark.parametrize(
    "setting, option, other",
    [
        ("weight-decay", "--weight-decay 1e-4", "--weight-decay 1e-5"),
        ("pipeline-schedule", "--pipeline-schedule grouped", "--pipeline-schedule interleaved"),
        ("max-cross-replica-buffer-size", " --max-cross-replica-buffer-size 10485760", ""),
        ("no-stochastic-rounding", "--stochastic-rounding on", "--stochastic-rounding off"),
        ("available-memory-proportion", "--available-memory-proportion 0.15", "--available-memory-proportion 0.6"),
        ("eight-bit-io", " --eight-bit-io", ""),
        ("warmup-epochs", " --warmup-epochs 5", ""),
        ("updates of a call", " --batches-per-step 4", ""),
    ],
)
def test_a_line_that_sets_something_else_is_told_from_one_that_does_not(setting: str, option: str, other: str) -> None:
    (line,) = [line for line in LINES if (line.command, line.side) == ("002/1", "ipu")]
    assert option in line.line
    changed = readme_commands.Line(line.command, line.side, line.line.replace(option, other), {}, line.original)

    value = settings_of("002/1")[setting]

    assert same(setting, value, ours(line))
    assert not same(setting, value, ours(changed))

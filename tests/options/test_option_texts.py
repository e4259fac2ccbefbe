"""What a user reads of the options: the help, and the header of a run."""

from __future__ import annotations

import argparse
import re
from typing import Any, Callable, Dict, List

import pytest
from suite import Suite

from bench import workloads
from fixtures import options
from fixtures.options import parsing, presets, table

# In the order of the help.
GROUPS = (
    "layerbench: what is measured (comma-separated lists)",
    "layerbench: how it is measured",
    "layerbench: comparisons and baselines",
    "layerbench: dimensions, in place of those of the selected sizes (lists)",
    "layerbench: training (--mode training)",
    "layerbench: image networks and their images",
    "layerbench: Graphcore IPUs (--device ipu)",
)
# Options that say what another does.
SHORTHANDS = {
    "--synthetic-data": "--data synthetic",
    "--generated-data": "--data generated",
    "--batch-norm": "--norm-type batch",
    "--xla-recompute": "--recompute auto",
    "--enable-stochastic-rounding": "--stochastic-rounding on",
    "--no-stochastic-rounding": "--stochastic-rounding off",
    "--disable-variable-offloading": "--variable-offloading off",
    "--no-prefetch": "--prefetch off",
}


@pytest.fixture(scope="module")
def plain(new_suite: Callable[[], Suite]) -> Suite:
    """A copy for runs that leave nothing behind."""
    return new_suite()


def own_groups() -> Dict[str, List[Any]]:
    """Our options by group, as pytest's parser has them, but for those that --help leaves out."""
    parser = table.parser()
    options.pytest_addoption(parser)
    return {
        group.name: [option for option in group.options if option.attrs()["help"] != argparse.SUPPRESS]
        for group in parser._groups
    }


OWN = {option.names()[0]: option.attrs() for group in own_groups().values() for option in group}


@pytest.fixture(scope="module")
def shown(plain: Suite) -> str:
    """What --help prints, on lines as wide as they come."""
    result = plain.run("--help", COLUMNS="400")
    assert result.returncode == 0, result.text
    return result.stdout


@pytest.mark.parametrize("group", GROUPS)
def test_the_help_has_a_group_for_each_part_of_a_run(shown: str, group: str) -> None:
    assert f"\n{group}:\n" in shown


def test_what_and_how_is_measured_comes_before_the_rest(shown: str) -> None:
    assert re.findall(r"^(layerbench: .*):$", shown, re.MULTILINE) == list(GROUPS)


def test_there_is_no_other_group() -> None:
    assert {name for name, found in own_groups().items() if found} == set(GROUPS)


@pytest.mark.parametrize("option", OWN)
def test_an_option_is_in_the_help_with_its_text(shown: str, option: str) -> None:
    (line,) = re.findall(rf"^  {option}(?:[=, ].*)?$(?:\n {{24}}.*)*", shown, re.MULTILINE)

    assert OWN[option]["help"] in " ".join(line.split())


@pytest.mark.parametrize("option", OWN)
def test_a_text_explains_and_does_not_repeat(option: str) -> None:
    text = OWN[option]["help"]

    assert text not in ("", "the default", option)
    assert not text.endswith(".")


@pytest.mark.parametrize("option", [option for option in OWN if option not in SHORTHANDS])
def test_a_text_says_the_default(option: str) -> None:
    assert re.search(r"[(;] ?default: \S.*\)$", OWN[option]["help"])


@pytest.mark.parametrize(
    "option, default",
    [
        ("--device", "cpu"),
        ("--precision", "fp32"),
        ("--mode", "inference"),
        ("--replicas", "1"),
        ("--data", "synthetic"),
        ("--protocol", "median"),
        ("--tuning", "best"),
        ("--case-timeout", "600"),
        ("--min-latency", "off"),
        ("--budget", "5"),
        ("--undecided", "fail with --against, else warn"),
        ("--optimiser", "sgd"),
        ("--momentum", "0.9"),
        ("--gradient-accumulation", "1"),
        ("--cutmix-lambda", "1, off"),
        ("--data-errors", "stop"),
        ("--prefetch", "on"),
        ("--wait", "0"),
        ("--rnn-impl", "fused"),
        ("--eight-bit-io", "off"),
    ],
)
def test_the_default_is_what_it_is_without_the_option(option: str, default: str) -> None:
    assert OWN[option]["help"].endswith(f"default: {default})")


@pytest.mark.parametrize("option", SHORTHANDS)
def test_a_shorthand_is_explained_by_what_it_stands_for(option: str) -> None:
    assert OWN[option]["help"] == f"same as {SHORTHANDS[option]}"
    assert parsing.option(OWN[option]["dest"]) == SHORTHANDS[option].split()[0]


@pytest.mark.parametrize("name, choices", [("optimiser", 7), ("recompute", 3), ("lr_schedule", 5)])
def test_an_option_of_choices_names_them(name: str, choices: int) -> None:
    kinds = {"optimiser": table.OPTIMISERS, "recompute": table.RECOMPUTE, "lr_schedule": table.KINDS}

    assert len(kinds[name]) == choices
    assert [each for each in kinds[name] if each not in OWN[parsing.option(name)]["help"]] == []


@pytest.mark.parametrize("name", workloads.dimensions(workloads.names()))
def test_a_dimension_says_who_has_it(name: str) -> None:
    """The layers by name; networks, of which there are many, together."""
    text = OWN[parsing.option(name)]["help"]

    layers = [each for each in workloads.names("layers") if name in workloads.load(each).dimensions]
    networks = any(name in workloads.load(each).dimensions for each in workloads.names("cnns"))
    assert [layer for layer in layers if not re.search(rf"\b{layer}\b.*: ", text)] == []
    assert bool(re.search("(networks|efficientnet): ", text)) == networks


def test_no_line_of_the_help_is_wider_than_a_terminal(plain: Suite) -> None:
    """But for those that list the spellings of an option, which argparse does not wrap."""
    result = plain.run("--help", COLUMNS="100")

    ours = result.stdout.split("\nlayerbench: what", 1)[1].split("\n[pytest]", 1)[0]
    assert [line for line in ours.splitlines() if len(line) > 100 and ", --" not in line] == []


# The header of a run.


def header(suite: Suite, *args: str) -> List[str]:
    """The lines of the header that are ours, behind the first."""
    result = suite.run(*([] if "--config" in args else ["--model", "resnet8"]), "--collect-only", *args)
    assert result.returncode == 0, result.text
    return [line for line in result.stdout.splitlines() if line.startswith("layerbench: ")][1:]


def test_the_header_of_a_plain_run_has_one_line_of_ours(plain: Suite) -> None:
    assert header(plain) == []


def test_the_header_names_a_preset_and_what_of_it_has_no_effect(plain: Suite) -> None:
    assert len(presets.load("mk1_resnet50_16ipus").ipu) == 5

    found = header(plain, "--config", "mk1_resnet50_16ipus")

    idle = (
        "--half-partial, --pipeline-splits, --stable-norm, the preset's pipeline_schedule, available_memory_proportion,"
        " max_cross_replica_buffer_size, internal_exchange_optimisation_target, stochastic_rounding"
    )
    assert found == [
        "layerbench: preset mk1_resnet50_16ipus (TensorFlow 2.0)",
        f"layerbench: without effect on cpu: {idle}",
    ]


@pytest.mark.parametrize(
    "args, idle",
    [
        (["--half-partial"], "--half-partial"),
        (["--enable-half-partials"], "--half-partial"),
        (["--pipeline-splits", "layer2.0"], "--pipeline-splits"),
        (["--stable-norm"], "--stable-norm"),
        (
            ["--stable-norm", "--pipeline-split", "layer2.0", "--half-partial"],
            "--half-partial, --pipeline-splits, --stable-norm",
        ),
    ],
    ids=" ".join,
)
def test_the_header_names_what_has_no_effect_on_a_cpu(plain: Suite, args: List[str], idle: str) -> None:
    assert header(plain, *args) == [f"layerbench: without effect on cpu: {idle}"]


@pytest.mark.parametrize(
    "device, idle",
    [
        ("cpu", ["half_partial", "pipeline_splits", "stable_norm"]),
        ("cuda", ["pipeline_splits", "stable_norm"]),
        ("ipu", []),
        ("cpu,cuda", ["pipeline_splits", "stable_norm"]),
    ],
)
def test_what_has_no_effect_depends_on_the_device(device: str, idle: List[str]) -> None:
    found = options.parse(["--device", device, "--half-partial", "--pipeline-splits", "layer2.0", "--stable-norm"])

    assert found.without_effect == idle


def test_the_list_of_presets_is_all_that_is_printed(plain: Suite) -> None:
    result = plain.run("--config", "list", "--model", "nonsense")

    assert result.returncode == 0, result.text
    assert result.text.strip() == presets.table()
    assert [name for name in presets.names() if f"\n{name} " not in result.stdout] == []

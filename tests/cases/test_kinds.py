"""Layers, image networks and input pipelines: a file of tests each, and how one kind is selected."""

from __future__ import annotations

import re
from typing import Callable, Dict, List, Sequence

import pytest
from collecting import Collected, collect
from suite import Result, Suite

from bench import workloads

KINDS = ("layers", "cnns", "pipelines")
TEST = {"layers": "test_layer", "cnns": "test_cnn", "pipelines": "test_host_pipeline"}
NUMBERS = {kind: len(workloads.names(kind)) for kind in KINDS}

# Arguments, and how many cases of each kind they select.
SELECTED: Dict[Sequence[str], Dict[str, int]] = {
    (): NUMBERS,
    ("-k", "cnn"): {"cnns": NUMBERS["cnns"]},
    ("-k", "test_layer"): {"layers": NUMBERS["layers"]},
    ("-k", "host_pipeline"): {"pipelines": 1},
    ("-k", "not cnn and not host_pipeline"): {"layers": NUMBERS["layers"]},
    ("-k", "dense or resnet8"): {"layers": 1, "cnns": 1},
    ("-k", "cnn and resnet50 and not resnext"): {"cnns": 1},
    ("--model", "resnet8"): {"cnns": 1},
    ("--model", "resnet8,resnet20", "-k", "resnet20"): {"cnns": 1},
    ("--model", "resnet8,resnet20", "--mode", "inference,training"): {"cnns": 4},
    ("--config", "resnet50-mk2"): {"cnns": 1},
    ("--sizes", "i32"): {"cnns": 3},
    ("--sizes", "u1024"): {"layers": 1},
    ("--sizes", "u1024,i32"): {"layers": 1, "cnns": 3},
    ("--sizes", "all", "-k", "host_pipeline"): {"pipelines": 1},
}
# Arguments that leave nothing, and what the one line says.
NOTHING = {
    ("--model", "resnet8", "-k", "dense"): "-k 'dense' selects no case",
    ("--model", "resnet8", "-k", "host_pipeline"): "-k 'host_pipeline' selects no case",
    ("--sizes", "u1024", "-k", "cnn"): "-k 'cnn' selects no case",
    ("--model", "resnet8", "-k", "test_layer"): "-k 'test_layer' selects no case",
}
# What pytest counts.
COUNTED = {
    ("--model", "resnet8"): "1 test",
    ("--model", "resnet8,resnet20", "-k", "resnet20"): "1/2 tests",
    ("--sizes", "u1024,i32"): "4 tests",
    ("-k", "host_pipeline"): f"1/{len(workloads.names())} tests",
}


def text_of(line: Sequence[str]) -> str:
    return " ".join(line) or "nothing"


@pytest.fixture(scope="module")
def plain(new_suite: Callable[[], Suite]) -> Suite:
    """A copy for runs that leave nothing behind."""
    return new_suite()


@pytest.fixture(scope="module")
def collected(plain: Suite) -> Dict[Sequence[str], Collected]:
    """What every line selects."""
    return collect(plain, [*SELECTED, *NOTHING])


def found_by(done: Collected) -> List[str]:
    """The files and tests that were selected, each with its case."""
    return re.findall(r"bench/test_(\w+)\.py::(test_\w+)\[(.+)\]", done.text)


@pytest.mark.parametrize("line", SELECTED, ids=text_of)
def test_a_selection_has_so_many_cases_of_each_kind(
    collected: Dict[Sequence[str], Collected], line: Sequence[str]
) -> None:
    done = collected[line]

    files = [kind for kind, _, _ in found_by(done)]

    assert done.returncode == 0, done.text
    assert {kind: files.count(kind) for kind in KINDS if kind in files} == SELECTED[line]


@pytest.mark.parametrize("line", SELECTED, ids=text_of)
def test_a_file_holds_its_own_kind_alone(collected: Dict[Sequence[str], Collected], line: Sequence[str]) -> None:
    for kind, test, name in found_by(collected[line]):
        assert test == TEST[kind]
        assert name.split("-")[0] in workloads.names(kind)


@pytest.mark.parametrize("line", NOTHING, ids=text_of)
def test_a_keyword_that_leaves_nothing_is_one_line(
    collected: Dict[Sequence[str], Collected], line: Sequence[str]
) -> None:
    done = collected[line]

    assert done.returncode == 4, done.text
    assert done.text.count("ERROR: ") == 1
    assert NOTHING[line] in done.text


@pytest.mark.parametrize("line", COUNTED, ids=text_of)
def test_nothing_stands_for_a_file_without_a_case(
    collected: Dict[Sequence[str], Collected], line: Sequence[str]
) -> None:
    assert f"\n{COUNTED[line]} collected" in collected[line].text


@pytest.fixture(scope="module")
def networks(plain: Suite) -> Result:
    """A run of one network, with everything that pytest would say of other items."""
    return plain.run("--model", "resnet8", "--image-size", "8", "--steps", "2", "-rA", "-v")


def test_one_network_runs_and_nothing_skips(networks: Result) -> None:
    assert networks.returncode == 0, networks.text
    assert list(networks.outcomes()) == ["resnet8-i8-inference-b1-fp32-x1-numpy-cpu"]
    assert "skipped" not in networks.text
    assert re.search(r"^=+ 1 passed in ", networks.stdout, re.MULTILINE)


def test_the_one_item_is_the_one_that_was_collected(networks: Result) -> None:
    assert "collected 1 item\n" in re.sub(r"collecting \.\.\. ", "", networks.stdout)


def test_a_pipeline_on_a_backend_that_has_none_skips_with_that_reason(plain: Suite) -> None:
    result = plain.run("-k", "host_pipeline", "-rs")

    assert result.returncode == 0, result.text
    assert "numpy has no input pipeline of its own, as torch and tensorflow have" in result.stdout
    assert "1 skipped" in result.stdout

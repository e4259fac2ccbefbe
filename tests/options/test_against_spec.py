"""The value of --against, and how it differs from other options."""

from __future__ import annotations

import pytest

from fixtures.options import parse
from fixtures.options.spec import Spec
from fixtures.options.spec import parse as parse_spec


@pytest.mark.parametrize(
    "text, expected",
    [
        ("same", Spec()),
        ("python=/opt/old/bin/python", Spec("python=/opt/old/bin/python", python="/opt/old/bin/python")),
        ("rev=HEAD~1", Spec("rev=HEAD~1", revision="HEAD~1")),
        ("env=A=1", Spec("env=A=1", variables={"A": "1"})),
        # A comma within a value, and an equals sign.
        ("env=A=1,2", Spec("env=A=1,2", variables={"A": "1,2"})),
        ("env=A=b=c", Spec("env=A=b=c", variables={"A": "b=c"})),
        ("option=--tuning default", Spec("option=--tuning default", options=["--tuning=default"])),
        ("option=--tuning=default", Spec("option=--tuning=default", options=["--tuning=default"])),
        ("option=--use-zero-values", Spec("option=--use-zero-values", options=["--use-zero-values"])),
        (
            "rev=v1,env=A=1,env=B=,,option=--tuning default",
            Spec(
                "rev=v1,env=A=1,env=B=,,option=--tuning default",
                revision="v1",
                variables={"A": "1", "B": ","},
                options=["--tuning=default"],
            ),
        ),
    ],
)
def test_a_specification_says_how_the_other_side_differs(text, expected):
    assert parse_spec(text) == expected


@pytest.mark.parametrize(
    "text, said",
    [
        ("", "python=FILE"),
        ("other", "python=FILE"),
        ("python=", "python=FILE"),
        ("env=A", "env=NAME=VALUE"),
        ("env=OMP_PROC_BIND=true", "--pin"),
        ("env=A=http://x", "//"),
        ("rev=a,rev=b", "twice"),
        ("option=tuning default", "an option of the suite"),
    ],
)
def test_another_specification_is_refused_in_one_line(text, said):
    with pytest.raises(ValueError, match=said) as error:
        parse_spec(text)

    assert "\n" not in str(error.value)


@pytest.mark.parametrize("option", ["--budgets=f.toml", "--max-minutes=3", "--resume"])
def test_an_option_of_against_needs_it(option):
    with pytest.raises(ValueError, match="is for --against SPEC"):
        parse([option])


@pytest.mark.parametrize(
    "option", ["--in-process", "--steps=3", "--protocol=tensorflow_layers", "--parallel-timing", "--baseline=x"]
)
def test_an_option_that_contradicts_against_is_refused(option):
    with pytest.raises(ValueError, match="contradict"):
        parse(["--against=same", option])


def test_a_number_of_pairs_has_a_plan():
    assert parse(["--against=same", "--pairs=16"]).pairs == 16
    with pytest.raises(ValueError, match=r"--pairs: .*9, 12, 16, 20"):
        parse(["--against=same", "--pairs=10"])

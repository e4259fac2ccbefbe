"""The table of options: a row is all that an option needs."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from bench.cases.case import Settings
from bench.cases.poplar import Poplar
from bench.cases.recipe import Recipe
from fixtures.options import parsing, presets, table
from fixtures.options.table import OPTIONS

# What the code works out from several options, or knows by itself.
WORKED_OUT = {
    "recipe",
    "poplar",
    "caches",
    "cores",
    "compile_cores",
    "max_time_s",
    "min_rounds",
    "min_warmup_s",
    "timed",
}


@pytest.mark.parametrize("kind", [Recipe, Poplar])
def test_every_field_of_a_recipe_and_of_an_ipu_is_set_by_an_option(kind: Any) -> None:
    assert {field.name for field in dataclasses.fields(kind)} - set(OPTIONS) == set()


def test_every_setting_is_set_by_an_option_or_worked_out() -> None:
    settings = {field.name for field in dataclasses.fields(Settings)}

    assert settings - set(OPTIONS) - WORKED_OUT == {"ipus_held"}


def test_a_name_stands_in_one_row() -> None:
    rows = [option for group in table.GROUPS.values() for option in group]
    names = [name for option in rows for name in (option.spelling, *option.spellings, *option.shorthands)]

    assert len(OPTIONS) == len(rows)
    assert len(set(names)) == len(names)


def test_what_an_option_overrides_or_needs_is_an_option() -> None:
    named = {name for option in OPTIONS.values() for name in (*option.overrides, option.needs[0]) if name}

    assert named
    assert named - set(OPTIONS) == set()


def test_a_preset_sets_only_what_it_may() -> None:
    said = {name for preset in presets.names() for name in presets.load(preset).options}

    assert {name for name in said if not OPTIONS[name].preset} == set()


@pytest.mark.parametrize("name", [name for name, option in OPTIONS.items() if isinstance(option.parse, tuple)])
def test_a_choice_that_there_is_not_is_answered_with_all_of_them(name: str) -> None:
    option = OPTIONS[name]
    assert isinstance(option.parse, tuple)

    with pytest.raises(ValueError, match="is not one of") as refusal:
        option.value("xyz", parsing.LOCAL_HOST)

    assert str(refusal.value) == f"{option.spelling}: 'xyz' is not one of {', '.join(option.parse)}"

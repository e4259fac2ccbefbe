"""The table of options: a row is all that an option needs."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from typing import Any

import pytest
from suite import Suite

from bench.cases.case import Settings
from bench.cases.poplar import Poplar
from bench.cases.recipe import Recipe
from fixtures.options import parsing, presets, table
from fixtures.options.table import OPTIONS

# What the code works out from several options, or knows by itself.
WORKED_OUT = {"recipe", "poplar", "cores", "compile_cores", "max_time_s", "min_rounds", "min_warmup_s", "timed"}


@pytest.mark.parametrize("kind", [Recipe, Poplar])
def test_every_field_of_a_recipe_and_of_an_ipu_is_set_by_an_option(kind: Any) -> None:
    assert {field.name for field in dataclasses.fields(kind)} - set(OPTIONS) == set()


def test_every_setting_is_set_by_an_option_or_worked_out() -> None:
    settings = {field.name for field in dataclasses.fields(Settings)}

    assert settings - set(OPTIONS) - WORKED_OUT == {"ipus_held"}


def test_a_name_stands_in_one_row() -> None:
    rows = [option for group in table.GROUPS.values() for option in group]
    names = [name for option in rows for name in (option.spelt, *option.spellings, *option.shorthands)]

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
        option.value("xyz", parsing.HERE)

    assert str(refusal.value) == f"{option.spelt}: 'xyz' is not one of {', '.join(option.parse)}"


def test_an_option_of_a_new_setting_is_one_row(suite: Suite) -> None:
    """The row, and the field that it sets: parsed, refused, defaulted and explained."""
    add_line(suite, "bench/cases/case.py", "    ipus_held: ", "    niceness: int = 2")
    row = '    Option("niceness", "how far a worker stands back behind other processes", whole(0, 19), "N"),'
    add_line(suite, "fixtures/options/table.py", "_HOW = (", row)

    def parsed(*args: str) -> str:
        program = f"from fixtures import options; print(options.parse({args!r}).settings(True).niceness)"
        done = subprocess.run([sys.executable, "-c", program], cwd=str(suite.root), stdout=subprocess.PIPE, text=True)
        return done.stdout.strip()

    assert parsed() == "2"
    assert parsed("--niceness", "3") == "3"
    assert suite.run("--niceness=20").errors == ["ERROR: --niceness: 20 is not within 0 to 19"]
    shown = " ".join(suite.run("--help").stdout.split())
    assert "--niceness=N how far a worker stands back behind other processes (default: 2)" in shown


def add_line(suite: Suite, path: str, start: str, line: str) -> None:
    """Add a line to a file, behind the first that starts so."""
    text = (suite.root / path).read_text()
    changed = re.sub(
        rf"^{re.escape(start)}.*\n", lambda match: match[0] + line + "\n", text, count=1, flags=re.MULTILINE
    )
    assert changed != text
    (suite.root / path).write_text(changed)

"""The documentation is true: its tables are the code's, its commands can be run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Callable, Dict, Sequence, Tuple

import pytest
from collecting import Collected, collect
from suite import Suite

from bench.cases import poplar
from bench.cases.precision import PRECISIONS
from bench.results import fields
from fixtures.options import ipu
from scripts import record_page

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands() -> list[str]:
    """Every command that a page shows in a block of shell, once."""
    found = []
    for page in PAGES:
        for block in re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL):
            found += [line.split("  #")[0].strip() for line in block.splitlines() if line.strip()]
    return sorted(set(found))


def pytest_commands() -> list[str]:
    return [line for line in commands() if re.match(r"(.*/)?(python -m )?pytest bench", line)]


def test_the_pages_show_commands():
    assert len(pytest_commands()) >= 5


def words(command: str) -> Tuple[str, ...]:
    """The arguments behind `pytest bench`, but for baselines, which are not there."""
    found = shlex.split(re.sub(r" --collect-only -q| --baseline(-accept)? (\"[^\"]*\"|\S+)", "", command))
    return tuple(found[found.index("bench") + 1 :])


@pytest.fixture(scope="module")
def collected(new_suite: Callable[[], Suite]) -> Dict[Sequence[str], Collected]:
    """What every documented command selects."""
    return collect(new_suite(), map(words, pytest_commands()))


@pytest.mark.parametrize("command", pytest_commands())
def test_a_documented_command_selects_cases(command, collected):
    done = collected[words(command)]

    assert done.returncode == 0, done.text
    assert done.ids


def test_the_page_on_the_record_is_what_its_fields_say():
    """`python -m scripts.record_page` writes it."""
    assert (ROOT / "docs" / "record.md").read_text() == record_page.page()


@pytest.mark.parametrize("field", fields.FIELDS.values(), ids=lambda field: field.name)
def test_every_field_of_a_record_is_explained(field):
    assert field.text.strip()
    assert f"| `{field.name}` | {field.unit} | {field.text} |" in (ROOT / "docs" / "record.md").read_text()


@pytest.mark.parametrize("name", sorted(PRECISIONS))
def test_the_methodology_names_every_precision(name):
    assert f"`{name}`" in (ROOT / "docs" / "methodology.md").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_a_page_names_exists(page):
    named = re.findall(r"`((?:bench|fixtures|tests|docs|scripts|constraints|baselines)/[\w./-]*)`", page.read_text())

    missing = [name for name in named if not (ROOT / name).exists()]

    assert missing == []


@pytest.mark.parametrize("name", sorted(ipu.OPTIONS))
def test_the_page_on_ipus_has_every_option(name):
    assert f"`{poplar.option(name)}" in (ROOT / "docs" / "ipu.md").read_text()

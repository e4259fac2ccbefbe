"""The documentation is true: its tables are the code's, its commands can be run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Callable, Dict, List, Sequence, Tuple

import pytest
from collecting import Collected, collect
from suite import Suite
from test_imports import FLOORS

from bench.cases import poplar
from bench.cases.precision import PRECISIONS
from bench.results import fields
from fixtures.options import ipu
from scripts import record_page

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
# README's limits.
LINES, WIDTH = 120, 120


def commands() -> List[str]:
    """Every command that a page shows in a block of shell, once."""
    found = []
    for page in PAGES:
        for block in re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL):
            lines = block.replace("\\\n", "").splitlines()
            found += [line.split("  #")[0].strip() for line in lines if line.strip()]
    return sorted(set(found))


def pytest_commands() -> List[str]:
    return [line for line in commands() if re.match(r"(.*/)?(python -m )?pytest bench", line)]


def anchor(heading: str) -> str:
    """The fragment by which GitHub links to a heading."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def links(page: Path) -> List[Tuple[Path, str]]:
    """The relative links of a page: the file, and the heading in it or nothing."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    targets = [target for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target]
    parts = [target.partition("#") for target in targets]
    return [((page.parent / path).resolve() if path else page, heading) for path, _, heading in parts]


def broken(page: Path) -> List[str]:
    """The relative links of a page that lead nowhere."""
    return [
        f"{path.name}#{heading}"
        for path, heading in links(page)
        if not path.exists()
        or (heading and heading not in map(anchor, re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)))
    ]


def test_readme_is_short():
    lines = README.read_text().splitlines()

    assert len(lines) < LINES
    assert [line for line in lines if len(line) >= WIDTH] == []


def test_readme_shows_ten_commands():
    (block,) = re.findall(r"## Ten commands\n\n```sh\n(.*?)```", README.read_text(), re.DOTALL)

    assert len([line for line in block.splitlines() if line.startswith("pytest bench ")]) == 10


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_resolves(page):
    assert broken(page) == []


def test_a_link_that_leads_nowhere_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# A page\n\n[a](#a-page) [b](#other) [c](gone.md) [d](page.md#a-page) [e](https://gone.example)\n")

    assert broken(page) == ["page.md#other", "gone.md#"]


def test_every_page_is_reachable_from_readme():
    reached, pending = {README}, [README]
    while pending:
        new = {path for path, _ in links(pending.pop()) if path.suffix == ".md"} - reached
        reached |= new
        pending += new

    assert [page.name for page in PAGES if page not in reached] == []


def test_the_design_page_has_the_floors_of_the_imports():
    rows = re.findall(r"^\| (\d+) \| (.+) \|$", (ROOT / "docs" / "design.md").read_text(), re.MULTILINE)

    floors = [(str(floor), ", ".join(rooms)) for floor, rooms in enumerate(FLOORS, 1)]
    assert rows == floors[::-1]


def test_the_pages_show_commands():
    assert len(pytest_commands()) >= 5


def words(command: str) -> Tuple[str, ...]:
    """The arguments behind `pytest bench`, but for baselines, which are not there."""
    found = shlex.split(re.sub(r" --collect-only -q| --baseline(-accept|-software)? (\"[^\"]*\"|\S+)", "", command))
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

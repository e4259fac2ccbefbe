"""The page on extending: each diff on it is all that the addition needs, and its commands print what it shows."""

from __future__ import annotations

import functools
import importlib.util
import re
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Tuple

import pytest
from suite import Result, Suite

from bench import backends

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "extending.md").read_text()
SHOWN = ("A layer", "A primitive", "An image network", "A backend", "An option", "A record's field", "A device")


def blocks(section: str, kind: str) -> List[str]:
    """The blocks of a kind in a section of the page."""
    text = PAGE.split(f"\n## {section}\n")[1].split("\n## ")[0]
    return re.findall(rf"^```{kind}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def diff_of(section: str) -> str:
    return "".join(blocks(section, "diff"))


def hunks(diff: str) -> Iterator[Tuple[str, bool, List[str], List[str]]]:
    """For each hunk: its file, whether the file is new, and its lines before and after."""
    for old_path, path, body in re.findall(r"^--- (.*)\n\+\+\+ b/(.*)\n((?:(?!--- ).*\n)*)", diff, re.MULTILINE):
        for hunk in re.split(r"^@@.*\n", body, flags=re.MULTILINE)[1:]:
            lines = [line or " " for line in hunk.splitlines()]
            before, after = ([line[1:] for line in lines if line[0] != sign] for sign in "+-")
            yield path, old_path == "/dev/null", before, after


def apply(suite: Suite, diff: str) -> None:
    """Change a copy of the suite. The lines before a change have to be in its file, once."""
    for path, new, before, after in hunks(diff):
        if new:
            assert not (suite.root / path).exists(), path
            suite.add(path, "\n".join(after) + "\n")
            continue
        text = (suite.root / path).read_text()
        old = "\n".join(before) + "\n"
        assert text.count(old) == 1, f"{path} has {text.count(old)} times:\n{old}"
        (suite.root / path).write_text(text.replace(old, "\n".join(after) + "\n"))


def commands(section: str) -> Iterator[Tuple[List[str], List[str]]]:
    """The arguments of each command of a section, and the lines that are shown of its output."""
    for block in blocks(section, "console"):
        for command in block.split("$ pytest bench ")[1:]:
            first, *lines = command.splitlines()
            yield shlex.split(first), lines


def missing(line: str, known: Dict[str, str]) -> bool:
    """Whether a line is about a backend whose package is not installed."""
    words = re.findall(r"\w+", line)
    return any(name in words and importlib.util.find_spec(package) is None for name, package in known.items())


def pattern(line: str) -> str:
    """A regular expression of a shown line: `...` is anything within a line, and white space any white space."""
    return r"\s+".join(re.escape(word).replace(r"\.\.\.", ".*?") for word in line.split())


@pytest.fixture(scope="module")
def extended(new_suite: Callable[[], Suite]) -> Callable[[str], Suite]:
    """Return a function from a section to a copy of the suite with the section's diff."""
    copies: Dict[str, Suite] = {}

    def copy(section: str) -> Suite:
        if section not in copies:
            copies[section] = new_suite()
            apply(copies[section], diff_of(section))
        return copies[section]

    return copy


def test_the_page_shows_each_addition_as_a_diff_and_a_run() -> None:
    sections = re.findall(r"^## (.*)$", PAGE, re.MULTILINE)

    assert tuple(section for section in sections if blocks(section, "diff")) == SHOWN
    assert tuple(section for section in sections if list(commands(section))) == SHOWN


@pytest.fixture(scope="module")
def shown(extended: Callable[[str], Suite]) -> Callable[[str], List[Tuple[Result, List[str]]]]:
    """Return a function from a section to the result of each of its commands, with the lines that the page shows."""

    @functools.lru_cache(maxsize=None)
    def run(section: str) -> List[Tuple[Result, List[str]]]:
        # Nothing that is shown depends on the search for the fastest program, which takes longest.
        fixed = ("--tuning=default", "--benchmark-json=run.json")
        return [(extended(section).run(*arguments, *fixed), lines) for arguments, lines in commands(section)]

    return run


@pytest.mark.parametrize("section", SHOWN)
def test_a_shown_diff_is_all_that_the_addition_needs(
    shown: Callable[[str], List[Tuple[Result, List[str]]]], section: str
) -> None:
    known = {name: backends.load(name).package for name in backends.names()}

    for result, lines in shown(section):
        assert result.returncode == (4 if any(line.startswith("ERROR") for line in lines) else 0), result.text
        unseen = [line for line in lines if not missing(line, known) and not re.search(pattern(line), result.text)]
        assert unseen == [], result.text
        reasons = [line for line in result.stdout.splitlines() if line.startswith("SKIPPED")]
        unsaid = [reason for reason in reasons if not any(re.match(pattern(line), reason) for line in lines)]
        assert [reason for reason in unsaid if "not installed: " not in reason] == []


def test_a_diff_whose_context_is_not_in_the_file_is_refused(suite: Suite) -> None:
    with pytest.raises(AssertionError, match="has 0 times"):
        apply(suite, "--- a/pytest.ini\n+++ b/pytest.ini\n@@\n nothing of it\n+a line\n")


def test_lines_of_a_diff_go_and_come(suite: Suite) -> None:
    suite.add("a.txt", "one\n\ntwo\nthree\n")

    apply(suite, "--- a/a.txt\n+++ b/a.txt\n@@ here\n one\n\n-two\n+2\n@@\n three\n+four\n")

    assert (suite.root / "a.txt").read_text() == "one\n\n2\nthree\nfour\n"


def python(root: Path, program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], cwd=str(root), stdout=subprocess.PIPE, text=True)
    assert done.returncode == 0
    return done.stdout.strip()


def test_a_framework_without_the_new_primitive_skips_and_names_it(new_suite: Callable[[], Suite]) -> None:
    pytest.importorskip("torch")
    suite = new_suite()
    files = re.split(r"^(?=--- )", diff_of("A primitive"), flags=re.MULTILINE)
    apply(suite, "".join(file for file in files if "backends/torch/" not in file))

    result = suite.run("-k", "layer_norm", "--backend=torch,numpy", "-rs")

    assert "1 passed, 1 skipped" in result.stdout, result.text
    assert "not supported: torch lacks layer_norm" in result.stdout


OURS = """
from bench import workloads
model = workloads.load("regnet_x_400mf")
size = next(iter(workloads.named_sizes(model).values()))
graph = workloads.record(model, {name: size[name] for name in model.dimensions}, 1, "inference")
print(graph.parameters, *sorted(weight.name for weight in graph.weights))
"""
THEIRS = """
import cnn_oracles
model = cnn_oracles.torchvision_models().regnet_x_400mf()
names = [name for name in model.state_dict() if not name.endswith("num_batches_tracked")]
print(sum(parameter.numel() for parameter in model.parameters()), *sorted(names))
"""


def test_the_new_network_has_the_weights_of_torchvision_s(extended: Callable[[str], Suite]) -> None:
    if not all(importlib.util.find_spec(name) for name in ("torch", "torchvision")):
        pytest.skip("torch and torchvision are not installed")

    ours = python(extended("An image network").root, OURS)

    assert ours.split()[0] == "5495976"
    path = f"import sys; sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / 'tests')!r}]"
    assert ours == python(ROOT, path + THEIRS)


def test_the_new_option_is_parsed_and_has_the_default_of_its_field(extended: Callable[[str], Suite]) -> None:
    program = """
        from fixtures import options
        print(*(options.parse(args).settings(True).niceness for args in [(), ("--niceness", "3")]))
    """

    assert python(extended("An option").root, textwrap.dedent(program)) == "2 3"


def test_the_new_field_is_in_a_record(
    extended: Callable[[str], Suite], shown: Callable[[str], List[Tuple[Result, List[str]]]]
) -> None:
    shown("A record's field")

    (entry,) = extended("A record's field").read("run.json")["benchmarks"]
    assert entry["extra_info"]["nodes"] == 2


def test_the_new_device_runs_cases_where_it_is_present(new_suite: Callable[[], Suite], tmp_path: Path) -> None:
    suite = new_suite()
    (tmp_path / "governor").write_text("performance\n")
    diff = diff_of("A device")
    apply(suite, re.sub(r'Path\("/sys.*"\)', f'Path("{tmp_path}/governor")', diff))

    result = suite.run("-k", "dense", "--units=8", "--device=performance_cpu", "-rs")

    assert "1 passed" in result.stdout, result.text
    assert "layerbench: dense, u8, inference, batch 32, fp32, performance_cpu, 1 thread" in result.stdout

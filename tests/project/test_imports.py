"""The rooms of the code lie on floors: what is imported lies below, and nothing goes round in a circle."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Dict, Iterator, List, Tuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
# From the ground up. A room is a folder of bench/ or a file at its root. It imports from rooms below, and from itself.
FLOORS = (
    ("training", "registry", "cache", "quota", "environment", "parent", "signatures"),
    ("locks",),
    ("cases",),
    ("graph", "group", "images", "profiling"),
    ("program", "job"),
    ("check", "devices", "workloads"),
    ("backends", "clock", "machine"),
    ("results", "selection", "recheck", "startup"),
    ("real_data", "calibration", "report"),
    ("run", "compare"),
    ("processes",),
    ("fixtures",),
)
HEIGHT = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}
# Pytest collects these; they only name fixtures.
TEST_FILES = ("bench.test_layers", "bench.test_cnns", "bench.test_pipelines")


def modules() -> Dict[str, Path]:
    """The modules of bench/ and fixtures/, by dotted name."""
    found = {}
    for path in [*ROOT.glob("bench/**/*.py"), *ROOT.glob("fixtures/**/*.py")]:
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return {name: path for name, path in found.items() if name not in TEST_FILES}


MODULES = modules()


def imported(path: Path) -> Iterator[str]:
    """The modules of ours that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, (ast.Import, ast.ImportFrom)) else []
        if isinstance(node, ast.ImportFrom):
            assert node.module is not None, f"{path}: a relative import"
            names = [f"{node.module}.{name}" if f"{node.module}.{name}" in MODULES else node.module for name in names]
        yield from (name for name in names if name in MODULES)


def room(module: str) -> str:
    first, *rest = module.split(".")
    return first if first == "fixtures" or not rest else rest[0]


def wrong(edges: List[Tuple[str, str]]) -> List[str]:
    """The imports that do not go down."""
    return [
        f"{module} imports {other}"
        for module, other in edges
        if room(module) != room(other) and HEIGHT[room(module)] <= HEIGHT[room(other)]
    ]


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_module_imports_only_from_floors_below(module):
    edges = [(module, other) for other in imported(MODULES[module]) if other != "bench"]

    assert module in ("bench",) or room(module) in HEIGHT
    assert wrong(edges) == []


def test_an_import_that_goes_up_is_found():
    assert wrong([("bench.graph.draws", "bench.run"), ("bench.run", "bench.graph.draws")]) == [
        "bench.graph.draws imports bench.run"
    ]
    assert wrong([("bench.devices.cpu", "bench.check")]) == ["bench.devices.cpu imports bench.check"]

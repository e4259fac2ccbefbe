"""Makes a report of runs and writes it: a page (.html) or Markdown (.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Callable, Dict, Mapping, Optional, Sequence

from bench import cache
from bench.report import markdown, page, sections
from bench.report.content import Section
from bench.report.history import History
from bench.report.names import MARKDOWN, PAGE
from bench.report.reading import Run

RENDERERS: Dict[str, Callable[[Sequence[Run], Mapping[str, Section]], str]] = {
    PAGE: page.render,
    MARKDOWN: markdown.render,
}


def write(runs: Sequence[Run], paths: Sequence[Path], history: Optional[History] = None) -> None:
    """Write the report of these runs, oldest first, to files that replace older ones whole. Raises OSError."""
    made = sections.build(runs, history)
    for path in paths:
        cache.write_whole(path, RENDERERS[path.suffix](runs, made).encode("utf-8", "replace"))


def brief(runs: Sequence[Run]) -> str:
    """The Markdown of these runs."""
    return markdown.render(runs, sections.build(runs))

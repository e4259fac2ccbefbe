"""The sections of a report: each module is one, with what `Kind` in `bench/report/content.py` lists."""

from __future__ import annotations

from typing import Dict, Optional, Sequence

from bench import registry
from bench.report.content import Kind, Section
from bench.report.history import History
from bench.report.reading import Run


def build(runs: Sequence[Run], history: Optional[History] = None) -> Dict[str, Section]:
    """The sections for which the runs have data, by the name of their module, in their order on the page."""
    kinds = {name: registry.filled(Kind, registry.load(__name__, name)) for name in registry.names(__name__)}
    found = {}
    for name, kind in sorted(kinds.items(), key=lambda entry: entry[1].position):
        section = kind.section(runs)
        if section is None and history is not None:
            section = kind.of_history(history)
        if section is not None:
            found[name] = section
    return found

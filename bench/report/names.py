"""The names of report files. This loads nothing else, since the table of options asks for it."""

from __future__ import annotations

from pathlib import Path

# The endings of a page and of Markdown.
PAGE, MARKDOWN = ".html", ".md"


def require_name(name: str) -> str:
    """The name of a report of a run. Raises ValueError if its ending is not that of a page or of Markdown."""
    if Path(name).suffix not in (PAGE, MARKDOWN):
        raise ValueError(f"{name!r}: a report is a file that ends with {PAGE} or {MARKDOWN}; an IPU's is --profile DIR")
    return name

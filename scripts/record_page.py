"""Write docs/record.md from the fields of a record: `python -m scripts.record_page`."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from bench.results.fields import FIELDS, SCHEMA  # noqa: E402

PAGE = ROOT / "docs" / "record.md"
HEAD = """\
# The record

Every measured case stores one flat dictionary as pytest-benchmark's `extra_info`. Besides these keys there are the
backend's own facts (`tuned_*`) and the device's (`device_*`: model, cores or driver). Every record has every key; what
does not apply to a case is null. The samples themselves are in `stats.data`, in seconds.

A baseline must have the keys that are marked "needed". Two records are compared only where those that are marked
"match", and the `device_*` and `tuned_*` facts, are the same; settings count where they have an effect on the case.
"""
TAIL = """
Records of earlier versions are read as well, in baselines and by `--benchmark-compare`:

| schema | what was different |
|---|---|
"""


def page() -> str:
    """The text of docs/record.md. It is written from `bench/results/fields.py` by this script."""
    lines = [HEAD, "| key | unit | meaning | in a baseline |", "|---|---|---|---|"]
    for field in FIELDS.values():
        uses = [use for use, on in (("needed", field.needed), ("match", field.matched)) if on]
        lines.append(f"| `{field.name}` | {field.unit} | {field.text} | {', '.join(uses)} |")
    old = [f"`{field.schema_1}` for `{field.name}`" for field in FIELDS.values() if field.schema_1]
    lines += [
        TAIL + f"| 1 | other names: {', '.join(old)}; zero or empty text in some places for what does not apply |"
    ]
    return "\n".join([*lines, f"| {SCHEMA} | this page, written by `python -m scripts.record_page` |", ""])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")

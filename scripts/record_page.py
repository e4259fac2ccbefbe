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

Every measured case stores one flat dictionary as pytest-benchmark's `extra_info`. Besides these keys, it has the
facts of the backend (`tuned_*`) and of the device (`device_*`: model, cores or driver). Every record has every key. The
value is null if it does not apply to the case. The samples are in `stats.data`, in seconds.

Beside `benchmarks`, a file has `layerbench_invalid`, the records of INVALID cases, and `layerbench`: the `command` of
the run, `missing` (cases without a result, and why), `verdicts` that are in no record, and `self_check`, the findings
of the last one with `--against`.

A baseline must have the keys that are marked "needed". Two records are compared only if the keys that are marked
"match" and the `device_*` and `tuned_*` facts are equal. Settings without an effect on the case are ignored.
"""
TAIL = """
Baselines and `--benchmark-compare` also read records of earlier versions:

| schema | difference |
|---|---|
"""


def page() -> str:
    """The text of docs/record.md, from the rows of `bench/results/fields.py`."""
    lines = [HEAD, "| key | unit | meaning | in a baseline |", "|---|---|---|---|"]
    for field in FIELDS.values():
        uses = [use for use, on in (("needed", field.needed), ("match", field.matched)) if on]
        lines.append(f"| `{field.name}` | {field.unit} | {field.text} | {', '.join(uses)} |")
    old = [f"`{field.schema_1}` for `{field.name}`" for field in FIELDS.values() if field.schema_1]
    lines += [TAIL + f"| 1 | other names: {', '.join(old)}; some values that do not apply are zero or empty |"]
    return "\n".join([*lines, f"| {SCHEMA} | this page, written by `python -m scripts.record_page` |", ""])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")

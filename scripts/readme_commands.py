"""Write docs/readme-commands.md from docs/readme_commands.json; with --check, only say whether it is up to date.

The JSON is data: per README of Graphcore's examples its command lines, ours for the same, a smaller one for a CPU,
and what ours must select and set. `size` holds facts, not names: `size_name` makes the name, in one place.
"""

from __future__ import annotations

import json
import re
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Union

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "docs" / "readme_commands.json"
PAGE = ROOT / "docs" / "readme-commands.md"
WIDTH = 116
# The value of each fact that goes without saying in the name of a size, in the order of the name.
UNNAMED: Dict[str, Any] = {
    "group_dim": 1,
    "expand_ratio": 6,
    "norm_type": "batch",
    "norm_num_groups": None,
    "enable_fast_groupnorm": False,
    "norm_eps": "family",
    "padding_rule": "symmetric",
    "input_image_padding": False,
    "eight_bit_io": False,
    "normalization_location": "host",
    "classes": None,
}
LETTERS = {
    "group_dim": "g{}",
    "expand_ratio": "e{}",
    "norm_num_groups": "n{}",
    "enable_fast_groupnorm": "fast",
    "norm_eps": "eps{}",
    "input_image_padding": "pad4",
    "eight_bit_io": "uint8",
    "normalization_location": "at{}",
    "classes": "c{}",
}
INTRODUCTION = """\
# The commands of five READMEs

Every command line of five READMEs of Graphcore's examples, and ours for the same. `scripts/readme_commands.py` makes
this page from `docs/readme_commands.json`; a test runs each of our lines to see what it selects and sets.

* **theirs**: the line as it stands there. `$DATASETS_DIR` is the folder of ImageNet.
* **ours**: the same work, on any device (`--device cuda`) and in every framework that is installed (`--backend
  tensorflow`: in one). What their program set where the line says nothing is written out.
  Devices = replicas x (pipeline splits + 1); global batch = batch size x gradient accumulation x replicas.
* **on a CPU**: a smaller line that ends in minutes: fp32, one replica (more skip: "not supported"), no pipeline, two
  accumulated batches, generated for real data, batch sizes up to 32, a few steps.
* **selects**: the names of the cases, without backend and device.
"""


@dataclass(frozen=True)
class Line:
    """One line of ours. `where` finds it in the data, `expect` is what it selects and sets."""

    where: str
    line: str
    expect: Mapping[str, Any]


def load() -> Any:
    return json.loads(DATA.read_text())


def lines(data: Any) -> Iterator[Line]:
    """Every line of ours, those for a CPU behind those for any device."""
    for readme in data["readmes"]:
        for command in readme["commands"]:
            for pair in command["lines"]:
                where = " / ".join(part for part in (readme["id"], command["where"], pair["what"]) if part)
                for side in ("ours", "cpu"):
                    yield Line(f"{where} / {side}", pair[side]["line"], expected(pair, side))


def expected(pair: Any, side: str) -> Dict[str, Any]:
    """What a line selects and sets. A CPU's line says only what differs, and null where nothing is expected."""
    whole: Dict[str, Any] = pair["ours"]["expect"]
    if side == "cpu":
        change = pair["cpu"]["expect"]
        settings = {**whole["settings"], **change.get("settings", {})}
        kept = {key: value for key, value in settings.items() if value is not None}
        whole = {**whole, **change, "settings": kept}
    return whole


def prefixes(expect: Mapping[str, Any]) -> List[str]:
    """The names of the cases that are expected, without backend and device."""
    facts = {**expect, "size": size_name(expect["size"])}
    return [
        "{workload}-{size}-{mode}-b{batch}-{precision}-x{replicas}".format(batch=batch, **facts)
        for batch in expect["batch_sizes"]
    ]


def size_name(size: Union[str, Mapping[str, Any]]) -> str:
    """The name of a size: that of a layer as it is, that of a network made of its facts."""
    if isinstance(size, str):
        return size
    parts = [f"i{size['image_size']}"]
    for fact, unnamed in UNNAMED.items():
        if fact in size and size[fact] != unnamed:
            parts.append(LETTERS.get(fact, "{}").format(size[fact]))
    return "_".join(parts)


def render(data: Any) -> str:
    """Return the page."""
    parts = [INTRODUCTION]
    for readme in data["readmes"]:
        parts.append(f"## {readme['id']}: {readme['title']}\n\n{readme['origin']}\n")
        parts += [_command(command) for command in readme["commands"]]
        parts.append(f"### Options of {readme['id']}\n\n" + _options(readme["options"]))
    return "\n".join(parts)


def _command(command: Any) -> str:
    blocks = ["# theirs", folded(command["original"])]
    for pair in command["lines"]:
        name = f", {pair['what']}" if pair["what"] else ""
        blocks += [f"# ours{name}", folded(pair["ours"]["line"]), f"# on a CPU{name}", folded(pair["cpu"]["line"])]
    notes = [command["note"]] if command["note"] else []
    if command["ipu"]:
        notes.append(f"Only an IPU has these, and we have no options for them yet: {_settings(command['ipu'])}.")
    notes += [_selects(pair) for pair in command["lines"]]
    body = "\n".join(blocks)
    return f"### {command['where']}\n\n```text\n{body}\n```\n\n" + "\n".join(map(_bullet, notes)) + "\n"


def _bullet(text: str) -> str:
    return textwrap.fill(f"* {text}", WIDTH + 4, subsequent_indent="  ", break_on_hyphens=False, break_long_words=False)


def _selects(pair: Any) -> str:
    expect = pair["ours"]["expect"]
    cases, settings = prefixes(expect), expect["settings"]
    named = cases[0] if len(cases) == 1 else f"{cases[0]} ... {cases[-1]}"
    facts = [f"`{named}`"]
    if settings["ipus"] > 1:
        facts.append(f"{settings['ipus']} devices")
    if expect["mode"] == "training":
        facts += [f"global batch {settings['global_batch'][0]}", f"{settings['weight_updates']} weight updates"]
    return f"Selects{' ' + pair['what'] if pair['what'].startswith('as ') else ''} {', '.join(facts)}."


def _settings(given: Mapping[str, Any]) -> str:
    return ", ".join(key if value is True else f"{key} {value}" for key, value in given.items())


def _options(rows: List[List[str]]) -> str:
    found = ["| theirs | ours | |", "|---|---|---|"]
    found += [f"| {_code(theirs)} | {_code(ours) or 'none'} | {note} |" for theirs, ours, note in rows]
    return "\n".join(found) + "\n"


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def folded(line: str) -> str:
    """A command line over several rows, broken in front of options only."""
    words = re.findall(r"""(?:[^\s"']|"[^"]*"|'[^']*')+""", line)
    groups: List[str] = []
    for word in words:
        if groups and not word.startswith("-"):
            groups[-1] += f" {word}"
        else:
            groups.append(word)
    rows: List[str] = []
    for group in groups:
        if rows and len(rows[-1]) + len(group) < WIDTH:
            rows[-1] += f" {group}"
        else:
            rows.append(f"    {group}" if rows else group)
    return " \\\n".join(rows)


def main(arguments: List[str]) -> int:
    page = render(load())
    if "--check" not in arguments:
        PAGE.write_text(page)
    elif not PAGE.exists() or PAGE.read_text() != page:
        print(f"{PAGE.relative_to(ROOT)} is out of date: run python scripts/readme_commands.py")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
